"""Import of the archive of a run, which a stranger may have made: all is checked before anything can be seen.

Nothing in it is executed. What is believed is what its hashes name; whether its numbers are true is a matter of who
made them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from diffbench.errors import Damaged, DiffbenchError
from diffbench.results import checked_json
from diffbench.results.exporting import ARTEFACT_FILE, CHUNK, FORMAT, INDEX, NAME, RUN_FILE, ArchiveError
from diffbench.store import contents, disk, manifest, shapes
from diffbench.store.artefacts import IMPORTED, Store
from diffbench.store.digest import digest
from diffbench.wording import in_bytes

LIMIT = 100 * 10**9                   # bytes that an archive may unpack to, unless told otherwise
READ_LIMIT = 128 * 10**6              # bytes of any file of JSON in it
# in a file of JSON that is read: a plan has about 150 for a cell, each of up to 100 bytes once read
MOST_VALUES = 8 * 10**6
MOST_MEMBERS = 250_000                # each of which is flushed: a run of 40,000 artefacts has as many
MOST_OTHERS = 1_000                   # files of a run besides the records and pictures of its cells
MOST_OF_ARTEFACT = 100                # files
MOST_SQUEEZED = 100                   # times that an archive may grow: images and weights are not compressed in it
ALWAYS_FINE = 10 * 10**6              # bytes that any archive may grow to


@dataclass(frozen=True, kw_only=True)
class Imported:
    """What an archive brought."""

    folder: Path                      # of the results
    artefacts: int                    # new in the store
    found: int                        # in the store already, kept
    results_found: bool               # the folder held this run already, and was kept


def import_run(file: Path, store: Store, out: Path | None = None, *, limit: int = LIMIT) -> Imported:
    """Unpacks a run into a folder of results and the store.
    Raises ArchiveError, with nothing to be seen, where anything is not as it must be.
    """
    store.prepare()
    aside = store.new_folder("import")
    try:
        with _opened(file) as archive:
            contents = _Contents(archive, file, limit)
            out = out or Path("runs") / contents.name
            results_found = _holds(out, contents)
            done_already = store.find((stage, key) for stage, key in contents.artefacts).done
            beside = out.absolute().parent / f".{out.absolute().name}-{secrets.token_hex(8)}"
            try:
                contents.unpack(aside, beside, done_already, with_results=not results_found)
                new = sum(store.move_in(stage, key, aside / key) for stage, key in contents.artefacts
                          if key not in done_already)
                if not results_found:
                    _publish_results(beside, out)
            finally:
                disk.disk.rmtree(beside)
    finally:
        disk.disk.rmtree(aside)
    store.register_run(out, contents.stages)
    return Imported(folder=out, artefacts=new, found=len(contents.artefacts) - new, results_found=results_found)


class _Contents:
    """The members of an archive, after every check that needs no unpacking."""

    def __init__(self, archive: zipfile.ZipFile, file: Path, limit: int):
        self.archive, self.file = archive, file
        self.members: dict[str, zipfile.ZipInfo] = {}
        seen: set[str] = set()
        if len(archive.infolist()) > MOST_MEMBERS:
            raise self._refused(f"it holds {len(archive.infolist()):,} files, and {MOST_MEMBERS:,} are the most")
        for info in archive.infolist():
            self._check_member(info)
            if info.filename.lower() in seen:             # file systems that take A for a are about
                raise self._refused(f"{info.filename} is in it twice")
            seen.add(info.filename.lower())
            self.members[info.filename] = info
        self._check_size(limit)
        self.files, self.name = self._index()
        self.stages, self.cells = self._plan()
        self._check_files()
        self.artefacts = sorted({(m[1], m[2]) for m in map(ARTEFACT_FILE.fullmatch, self.files) if m})
        for stage, key in self.artefacts:
            if self.stages.get(key) != stage:
                raise self._refused(f"its plan names no stage {stage} {key}")
            for needed in (manifest.MANIFEST, "task.json"):
                if f"store/{stage}/{key}/{needed}" not in self.files:
                    raise self._refused(f"store/{stage}/{key} has no {needed}")

    def unpack(self, aside: Path, beside: Path, done_already: set[str], with_results: bool) -> None:
        """Artefacts that are not known to `aside`/<key>, results to `beside`;
        each file against its hash, each artefact against its manifest and its key.
        """
        for key in sorted({key for _, key in self.artefacts} - done_already):
            disk.disk.mkdir(aside / key)
        folders = {beside, *(beside / Path(name).parts[1] for name in self.files if name.startswith("run/")
                             and name.count("/") == 2)}
        if with_results:
            disk.make_folders(beside.parent)
            for folder in sorted(folders):
                disk.disk.mkdir(folder)
        for name in self.files:
            match = ARTEFACT_FILE.fullmatch(name)
            if match:
                self._unpack(name, None if match[2] in done_already else aside / match[2] / match[3])
            else:
                self._unpack(name, beside / name.partition("/")[2] if with_results else None)
        for folder in folders if with_results else ():
            disk.disk.flush_folder(folder)
        for stage, key in self.artefacts:
            if key not in done_already:
                self._verify(stage, key, aside / key)

    def read(self, name: str, expected: dict[str, Any] | None = None) -> bytes:
        """A member that is read at once."""
        data = io.BytesIO()
        for chunk in self._chunks(name, expected):
            data.write(chunk)
        return data.getvalue()

    def _check_member(self, info: zipfile.ZipInfo) -> None:
        name, kind = info.filename, stat.S_IFMT(info.external_attr >> 16)
        is_mark = name.endswith(f"/{IMPORTED}")           # written by the import itself
        if is_mark or name != info.orig_filename or not (name == INDEX or RUN_FILE.fullmatch(name)
                                                         or ARTEFACT_FILE.fullmatch(name)):
            raise self._refused(f"{info.orig_filename!r} is nothing that a run has")
        if kind not in (0, stat.S_IFREG):
            raise self._refused(f"{name} is a link, a device or a folder, not a file")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise self._refused(f"{name} is encrypted or compressed in a way that is not read here")
        if name.endswith(".json"):
            if info.file_size > READ_LIMIT:
                raise self._refused(f"{name} is too large: {in_bytes(info.file_size)}, and {in_bytes(READ_LIMIT)} are "
                                    "the most")
            if info.file_size > max(ALWAYS_FINE, MOST_SQUEEZED * info.compress_size):
                raise self._refused(f"{name} is squeezed from {in_bytes(info.file_size)} to "
                                    f"{in_bytes(info.compress_size)}: no file of a run is")

    def _check_size(self, limit: int) -> None:
        total, packed = sum(info.file_size for info in self.members.values()), self.file.stat().st_size
        if total > limit:
            raise self._refused(f"it says that it unpacks to {in_bytes(total)}, and the limit is {in_bytes(limit)}; "
                                "raise it with --limit")
        if total > max(ALWAYS_FINE, MOST_SQUEEZED * packed):
            raise self._refused(f"it says that its {in_bytes(packed)} unpack to {in_bytes(total)}: no run is squeezed "
                                "like that")

    def _index(self) -> tuple[dict[str, dict[str, Any]], str]:
        if INDEX not in self.members:
            raise self._refused(f"it has no {INDEX}")
        try:
            index = shapes.parse(self.read(INDEX), MOST_VALUES)
            if index["format"] != FORMAT:
                raise self._refused(f"it is of format {index['format']!r}, and this version of diffbench reads "
                                    f"{FORMAT}")
            files, name = index["files"], str(index["name"])
            sizes = {member: (facts["size"], facts["sha256"])[0] for member, facts in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise self._refused(f"its {INDEX} cannot be read: {type(error).__name__}: {error}") from None
        if sizes != {name: info.file_size for name, info in self.members.items() if name != INDEX}:
            odd = (sorted(set(sizes) ^ (set(self.members) - {INDEX}))
                   or [n for n in sizes if sizes[n] != self.members[n].file_size])
            raise self._refused(f"it does not hold what its {INDEX} lists: {odd[0]}")
        return files, name if NAME.fullmatch(name) else "imported"

    def _plan(self) -> tuple[dict[str, str], set[str]]:
        """({key: stage}, ids of cells) of its plan."""
        if "run/plan.json" not in self.files:
            raise self._refused("it has no run/plan.json")
        try:
            plan = shapes.parse(self.read("run/plan.json", self.files["run/plan.json"]), MOST_VALUES)
            checked_json.PLAN(plan, "it")
        except ValueError as error:
            raise self._refused(f"run/plan.json is not the plan of a run: {error}") from None
        return ({key: stage["name"] for key, stage in plan["stages"].items()},
                {cell["cell_id"] for cell in plan["cells"]})

    def _check_files(self) -> None:
        """Whether it holds the files of such a run:
        every one is written and flushed, so an archive may not name what it likes.
        """
        count = Counter[str]()
        for name in self.files:
            place, stem = name.split("/")[:-1], PurePosixPath(name).stem
            if place[-1] in ("cells", "samples"):
                cell_id = stem.removesuffix("-trajectory") if place[-1] == "samples" else stem
                if cell_id not in self.cells:
                    raise self._refused(f"its plan names no cell {cell_id} for {name}")
            else:
                count["/".join(place) if place[0] == "store" else "run"] += 1
        for what, most in (("run", MOST_OTHERS), *((each, MOST_OF_ARTEFACT) for each in count if each != "run")):
            if count[what] > most:
                raise self._refused(f"{what} has {count[what]:,} files, and {most:,} are the most")

    def _unpack(self, name: str, target: Path | None) -> None:
        """Writes a member, or only compares it with its hash where there is no target."""
        if target is None:
            for _ in self._chunks(name, self.files[name]):
                pass
            return
        with disk.disk.create(target) as file:
            for chunk in self._chunks(name, self.files[name]):
                disk.disk.write(file, chunk)
            disk.disk.flush(file)

    def _chunks(self, name: str, expected: dict[str, Any] | None) -> Iterator[bytes]:
        info, size, whole = self.members[name], 0, hashlib.sha256()
        try:
            with self.archive.open(info) as member:
                while chunk := member.read(CHUNK):
                    size += len(chunk)
                    if size > info.file_size:
                        raise self._refused(f"{name} is longer than it says")
                    whole.update(chunk)
                    yield chunk
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise self._refused(f"{name} is damaged: {error}") from None
        if size != info.file_size or (expected is not None and whole.hexdigest() != expected["sha256"]):
            raise self._refused(f"{name} is damaged: it does not match its checksum")

    def _verify(self, stage: str, key: str, folder: Path) -> None:
        try:
            manifest.verify(folder, stage, key)
            listed = {*manifest.listing_of(folder, stage, key), manifest.MANIFEST}
            task = contents.of_json((folder / "task.json").read_bytes(), stage, "task.json", MOST_VALUES)
            is_named_right = task["stage"] == stage and task["key"] == key and digest(task["identity"]) == key
        except Damaged as error:
            raise self._refused(str(error)) from None
        except (ValueError, TypeError, RecursionError) as error:
            raise self._refused(
                f"store/{stage}/{key}/task.json cannot be read: {type(error).__name__}: {error}") from None
        if not is_named_right:
            raise self._refused(f"store/{stage}/{key} is not what its key names")
        if listed != set(os.listdir(folder)):
            raise self._refused(f"store/{stage}/{key} holds a file that its manifest does not name")
        try:
            contents.check_folder(stage, folder, MOST_VALUES)
        except ValueError as error:
            raise self._refused(f"store/{stage}/{key} is not what a {stage} stage writes: {error}") from None
        disk.write_flushed(folder / IMPORTED, json.dumps({"file": self.file.name}).encode())

    def _refused(self, why: str) -> ArchiveError:
        return ArchiveError(f"{self.file} is refused: {why}")


@contextmanager
def _opened(file: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(file)
    except OSError as error:
        raise ArchiveError(f"{file} cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise ArchiveError(
            f"{file} is refused: it is no whole zip file ({error}); make it with diffbench export") from None
    with archive:
        yield archive


def _publish_results(beside: Path, out: Path) -> None:
    try:
        disk.publish_folder(beside, out.absolute(), top=beside.parent)
    except OSError as error:
        raise DiffbenchError(f"--out {out}: the results cannot be put there: {error.strerror}; the artefacts are in "
                             "the store") from None


def _holds(out: Path, contents: _Contents) -> bool:
    """Whether a folder holds this very run already; raises DiffbenchError where it holds something else."""
    if not out.exists() or (out.is_dir() and not os.listdir(out)):
        return False
    expected = contents.files["run/plan.json"]["sha256"]
    if (out / "plan.json").is_file() and hashlib.sha256((out / "plan.json").read_bytes()).hexdigest() == expected:
        return True
    raise DiffbenchError(f"--out {out}: the folder holds something else; name another one")

