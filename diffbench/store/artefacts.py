"""The store of artefacts: results of finished stages as plain folders named by their keys.

Used by workers and by the engine.

store/<stage>/3f/3f9c.../     task.json, the stage's files and manifest.json (size and SHA-256 of each), published by
rename attempts/<key>/01/            every try with its log, finished or not
partial/<stage>/<key>/        what a try that was killed leaves to the next: checkpoints of a training, finished blocks
of samples claims/<key>/                 somebody works on this stage
runs/<...>.json               a folder of results and the keys it needs, so that `diffbench gc` keeps them
damaged/                      artefacts whose files did not match their manifest, set aside
staging/, trash/              what is being written, what is being deleted
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffbench.errors import Damaged, DiffbenchError
from diffbench.process import import_path
from diffbench.store import contents, disk, manifest, registrations, shapes
from diffbench.store.disk import write_atomically, write_flushed
from diffbench.store.paths import user_path

if TYPE_CHECKING:
    from torch import Tensor


__all__ = ["Damaged", "Found", "Store", "write_atomically", "write_flushed"]

IMPORTED = "imported.json"             # in an artefact that came by an archive, beside what its manifest names
FOLDERS = ("store", "attempts", "staging", "runs")
READERS = 16                          # threads that verify at once, where that helps
CHUNK = 64                            # artefacts looked at in one go
# an artefact that takes longer is big or far away: others can be read meanwhile. Small ones near by only
SLOW_SECONDS = 1e-3
                                      # make threads wait for each other: 40,000 took 2.1 s in one thread and 11 s in
                                      # four


class Found(NamedTuple):
    """The stages, of some that were looked for, that a store has."""

    done: set[str]                    # keys of whole artefacts
    damaged: set[str]                 # keys of artefacts that were found damaged and set aside


class Store:
    """Artefacts by key. Reading verifies them; writing publishes a whole folder in one step."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    @classmethod
    def default(cls) -> Store:
        """The store at DIFFBENCH_HOME, or at .diffbench in the working folder."""
        return cls(user_path(os.environ.get("DIFFBENCH_HOME") or ".diffbench"))

    def prepare(self) -> None:
        """Makes the folders. Raises DiffbenchError where nothing can be written, before any work is done."""
        try:
            for name in FOLDERS:
                disk.make_folders(self.root.absolute() / name)
            probe = self.root / "staging" / f"probe-{secrets.token_hex(8)}"
            write_flushed(probe, b"can this be written?")
            disk.disk.unlink(probe)
        except OSError as error:
            reason = f"{error.strerror or error}; set DIFFBENCH_HOME to another folder"
            raise DiffbenchError(f"the store {self.root.resolve()} cannot be written: {reason}") from None

    def path(self, stage: str, key: str) -> Path:
        """The folder of a published artefact."""
        # asked 100,000 times of a large matrix: `/` takes three times as long
        return Path(f"{self.root}/store/{stage}/{key[:2]}/{key}")

    def partial(self, stage: str, key: str) -> Path:
        """The folder in which a stage keeps what a later attempt can continue from."""
        return self.root / "partial" / stage / key

    def forget_partial(self, stage: str, key: str) -> None:
        """Deletes the partial results of a finished stage; what cannot be deleted now is left to `diffbench gc`."""
        with contextlib.suppress(OSError):
            disk.disk.rmtree(self.partial(stage, key))

    def claim(self, key: str) -> Path:
        """The folder of the claim on a stage."""
        return self.root / "claims" / key

    def has(self, stage: str, key: str) -> bool:
        """Whether a whole artefact is there. A damaged one is set aside, so that it is built again."""
        try:
            return self.check(stage, key)
        except Damaged:
            return False

    def check(self, stage: str, key: str) -> bool:
        """Whether an artefact is there. One that does not match its manifest is set aside, and Damaged is raised."""
        folder = self.path(stage, key)
        try:
            before = os.stat(folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            manifest.verify(folder, stage, key)
        except Damaged:
            if self._is_still(folder, before):
                self.set_aside(stage, key)
            raise
        return True

    def find(self, stages: Iterable[tuple[str, str]]) -> Found:
        """The artefacts (stage, key) that are there and whole, checked in parallel. Damaged ones are set aside."""
        artefacts = list(stages)
        done, damaged = set(), set()

        def check_all(part: list[tuple[str, str]]) -> None:
            for stage, key in part:
                try:
                    if self.check(stage, key):
                        done.add(key)
                except Damaged:
                    damaged.add(key)
        chunks = [artefacts[i : i + CHUNK] for i in range(0, len(artefacts), CHUNK)]
        with ThreadPoolExecutor(READERS) as pool:
            while chunks:
                start, chunk = time.perf_counter(), chunks.pop(0)
                check_all(chunk)
                if time.perf_counter() - start > SLOW_SECONDS * len(chunk):
                    list(pool.map(check_all, chunks[: 4 * READERS]))
                    del chunks[: 4 * READERS]
        return Found(done, damaged)

    def is_published(self, stage: str, key: str) -> bool:
        """Whether an artefact's manifest is there. Files are not checked: for display only, otherwise use `has`."""
        return os.path.isfile(f"{self.root}/store/{stage}/{key[:2]}/{key}/{manifest.MANIFEST}")

    def imported_from(self, stage: str, key: str) -> str | None:
        """The name of the archive that an artefact was imported from; None where it was made on this store."""
        try:
            content = shapes.parse((self.path(stage, key) / IMPORTED).read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            content = None
        name = content.get("file") if isinstance(content, dict) else None
        return name if isinstance(name, str) and name.isprintable() else "an archive"

    def set_aside(self, stage: str, key: str) -> Path | None:
        """Moves an artefact to damaged/; None where another process has moved it already."""
        target = self.root / "damaged" / f"{stage}-{key}-{time.time_ns()}"
        folder = self.path(stage, key)
        try:
            disk.make_folders(target.parent)
            disk.disk.rename(folder, target)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiffbenchError(f"the damaged artefact {folder} cannot be set aside: {error.strerror}") from None
        disk.disk.flush_folder(target.parent)
        disk.disk.flush_folder(folder.parent)
        return target

    def publish(self, stage: str, key: str, task: dict[str, Any], files: Mapping[str, bytes | Path]) -> Path:
        """Writes an artefact aside, flushes it and renames it into place. An artefact that is there already stays.

        files: by name, their bytes or the path of a file on the disk of the store, which is moved.

        On return the artefact is on the disk. Raises DiskFull with the room that it needs.
        """
        aside = self.new_folder(key[:8])
        try:
            manifest.write_folder(aside, stage, key, {"task.json": json.dumps(task, indent=1, sort_keys=True).encode(),
                                                      **files})
            self.move_in(stage, key, aside)
        finally:
            disk.disk.rmtree(aside)
        return self.path(stage, key)

    def new_folder(self, name: str) -> Path:
        """A new folder in staging/, for files that are not to be seen yet."""
        aside = self.root / "staging" / f"{name}-{secrets.token_hex(8)}"
        disk.disk.mkdir(aside)
        return aside

    def move_in(self, stage: str, key: str, aside: Path) -> bool:
        """Publishes a folder of flushed files as an artefact; False where a whole one is there already, which stays."""
        target = self.path(stage, key)
        for _ in range(2):
            try:
                disk.publish_folder(aside, target, top=self.root)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.has(stage, key):                      # else it was damaged, and is out of the way now
                disk.disk.flush_folder(target.parent)  # the first may have been killed before it did
                return False
        raise DiffbenchError(f"{target} cannot be published: something there is in the way, and setting it aside does "
                             "not help")

    def read(self, stage: str, key: str, name: str) -> bytes:
        """The content of a file of an artefact. Raises Damaged where it does not match the manifest, or is gone."""
        return manifest.read(self.path(stage, key), stage, key, name)

    def read_json(self, stage: str, key: str, name: str) -> Any:
        """A JSON file of an artefact.

        Raises Damaged where it does not match the manifest, or is not what its stage writes.
        """
        try:
            return contents.of_json(self.read(stage, key, name), stage, name)
        except ValueError as error:
            raise manifest.damaged(self.path(stage, key), stage, key, str(error), is_content=True) from None

    def read_tensors(self, stage: str, key: str, name: str) -> dict[str, Tensor]:
        """A file of tensors of an artefact, checked in the same way."""
        try:
            return contents.of_tensors(self.read(stage, key, name), stage, name)
        except ValueError as error:
            raise manifest.damaged(self.path(stage, key), stage, key, str(error), is_content=True) from None

    def new_attempt(self, content: Mapping[str, Any], execution: Mapping[str, Any]) -> Path:
        """A new folder for one attempt at a stage, with the task that the worker reads.

        content: what `Stage.content` gives.
        """
        parent = self.root / "attempts" / content["key"]
        disk.make_folders(parent)
        number = len(os.listdir(parent)) + 1
        while True:
            folder = parent / f"{number:02d}"
            try:
                disk.disk.mkdir(folder)
                break
            except FileExistsError:                       # another run tries the same stage
                number += 1
        task = {**content, "execution": {**execution, "installation": import_path.installation()}}
        write_atomically(folder / "task.json", json.dumps(task, indent=1, sort_keys=True).encode())
        return folder

    def register_run(self, folder: Path, keys: Iterable[str], matrix: str = "") -> Path:
        """Registers a folder of results and the artefacts it needs, which `diffbench gc` then keeps."""
        return registrations.register(self.root, folder, keys, matrix)

    def found_again(self, folder: Path) -> None:
        """Registers a folder of results anew where it was moved. Called for each folder that is opened."""
        registrations.found_again(self.root, folder)

    def _is_still(self, folder: Path, before: os.stat_result) -> bool:
        """Whether a folder is the same as before: another process may have replaced it."""
        try:
            return os.path.samestat(os.stat(folder), before)
        except OSError:
            return False
