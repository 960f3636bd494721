"""Archive of a run in one file: its folder of results and every artefact that its plan names. Used by `diffbench
export`.

run/plan.json, run/cells/<cell_id>.json, ...     the folder of results
store/<stage>/<key>/manifest.json, ...           artefacts
diffbench-run.json                               size and SHA-256 of every other member; written last
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from diffbench.errors import DiffbenchError
from diffbench.results.folder import RunFolder
from diffbench.store import disk, manifest
from diffbench.store.artefacts import Store

INDEX = "diffbench-run.json"
FORMAT = 1
CHUNK = 1 << 20
# report.html is left out: it is made anew from the rows, and a stranger's page may hold anything.
# Names that Windows gives to devices, whatever follows their first dot.
_DEVICE = r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)\.)"
RUN_FILE = re.compile(r"run/(?:(?:cells|events|samples)/)?" + _DEVICE
                      + r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\.(?:json|jsonl|csv|md|parquet|png|yaml)")
ARTEFACT_FILE = re.compile(r"store/(?!(?:con|prn|aux|nul|com\d|lpt\d)/)([a-z][a-z0-9_]{0,63})/([0-9a-f]{64})/"
                           r"(" + _DEVICE + r"(?!(?i:con|prn|aux|nul|com\d|lpt\d)$)[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})")
NAME = re.compile(r"(?!(?:con|prn|aux|nul|com\d|lpt\d)$)[a-z][a-z0-9_-]{0,63}")


class ArchiveError(DiffbenchError):
    """A file is no archive of a run, or not one that may be unpacked."""


@dataclass
class Exported:
    """What an archive holds."""

    files: int = 0                    # of the folder of results
    artefacts: int = 0
    size: int = 0                     # bytes of the archive
    missing: list[str] = field(default_factory=list)      # stages of the plan that are not done
    left_out: list[str] = field(default_factory=list)     # files of the folder that are none of a run's


def export_run(run: Path, store: Store, target: Path, *, results_only: bool = False) -> Exported:
    """Writes the archive of a run, whole or not at all. Raises Damaged where an artefact is not what it was;
    the next run builds it again.
    """
    stages = {key: stage["name"] for key, stage in RunFolder(run).stages().items()}
    store.found_again(run)
    if os.path.lexists(target):
        raise DiffbenchError(f"--to {target}: there is a file of that name already")
    if not target.absolute().parent.is_dir():
        raise DiffbenchError(f"--to {target}: there is no folder {target.parent}; make it first")
    result, files = Exported(), {}
    aside = target.parent / f".{target.name}-{secrets.token_hex(8)}"
    try:
        with _created(aside) as file, zipfile.ZipFile(_Out(file), "w") as archive:
            for path in _files(run, result):
                name = f"run/{path.relative_to(run).as_posix()}"
                files[name] = _add(archive, name, path)
                result.files += 1
            for key, stage in {} if results_only else stages.items():
                if not store.check(stage, key):
                    result.missing.append(f"{stage} {key}")
                    continue
                folder = store.path(stage, key)
                expected = manifest.listing_of(folder, stage, key)
                for name in (*expected, manifest.MANIFEST):
                    member = f"store/{stage}/{key}/{name}"
                    files[member] = _add(archive, member, folder / name)
                    if name in expected and files[member]["sha256"] != expected[name]["sha256"]:
                        raise manifest.damaged(folder, stage, key, f"{name} does not match its checksum")
                result.artefacts += 1
            index = {"format": FORMAT, "name": run.absolute().name, "files": files}
            _write(archive, INDEX, io.BytesIO(json.dumps(index, indent=1).encode()))
        disk.disk.rename(aside, target)
        disk.disk.flush_folder(target.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.disk.unlink(aside)
        raise
    result.size = target.stat().st_size
    return result


class _Out:
    """What a zip file is written into: forwards only, through the one door to the disk."""

    def __init__(self, file: io.FileIO):
        self.file = file

    def write(self, data: bytes) -> int:
        disk.disk.write(self.file, data)
        return len(data)

    def flush(self) -> None:
        """Flushed once, at the end."""


@contextlib.contextmanager
def _created(path: Path) -> Iterator[io.FileIO]:
    with disk.disk.create(path) as file:
        yield file
        disk.disk.flush(file)


def _files(run: Path, result: Exported) -> Iterator[Path]:
    """The files of a folder of results, sorted; hidden ones, links and what no run writes are left out."""
    for folder, folders, names in os.walk(run):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            path = Path(folder) / name
            if (RUN_FILE.fullmatch(f"run/{path.relative_to(run).as_posix()}") and path.is_file()
                and not path.is_symlink()):
                yield path
            elif not name.startswith(".") and path != run / "report.html":
                result.left_out.append(path.relative_to(run).as_posix())


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> dict[str, Any]:
    with open(path, "rb") as source:
        return _write(archive, name, source)


def _write(archive: zipfile.ZipFile, name: str, source: BinaryIO) -> dict[str, Any]:
    """Adds a member; returns its size and SHA-256. The same run gives the same bytes: no member has a date."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    info.compress_type = (zipfile.ZIP_STORED if name.endswith((".safetensors", ".png", ".parquet"))
                          else zipfile.ZIP_DEFLATED)
    whole, size = hashlib.sha256(), 0
    with archive.open(info, "w", force_zip64=True) as target:
        while data := source.read(CHUNK):
            target.write(data)
            whole.update(data)
            size += len(data)
    return {"size": size, "sha256": whole.hexdigest()}
