"""The store: finished stages as plain folders named by their keys, shared by runs, never half-written, never pickled.

store/<stage>/3f/3f9c.../     task.json, the stage's files and manifest.json (size and SHA-256 of each), published by rename
attempts/<key>/01/            every try with its log, finished or not
partial/<stage>/<key>/        what a try that was killed leaves to the next: checkpoints of a training, finished blocks of samples
claims/<key>/                 somebody works on this stage
runs/<digest>.json            a folder of results and the keys it needs, so that `diffbench gc` keeps them
damaged/                      artefacts whose files did not match their manifest, set aside
staging/, trash/              what is being written, what is being deleted
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffbench import durable, manifest
from diffbench.durable import write_atomically, write_flushed
from diffbench.errors import Damaged, DiffbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from diffbench.planning import Stage

__all__ = ["Damaged", "Found", "Store", "write_atomically", "write_flushed"]

FOLDERS = ("store", "attempts", "staging", "runs")
READERS = 16                          # threads that verify at once, where that helps
CHUNK = 64                            # artefacts looked at in one go
SLOW_SECONDS = 1e-3                   # an artefact that takes longer is big or far away: others can be read meanwhile. Small ones near by only
                                      # make threads wait for each other: 40,000 took 2.1 s in one thread and 11 s in four


class Found(NamedTuple):
    """What a store has of some stages."""

    done: set[str]                    # keys of whole artefacts
    damaged: set[str]                 # keys of artefacts that were found damaged and set aside


class Store:
    """Artefacts by key. Reading verifies; writing publishes a whole folder at once or nothing."""

    def __init__(self, root: str | Path):
        self.root = Path(root)

    @classmethod
    def default(cls) -> Store:
        """DIFFBENCH_HOME, or .diffbench in the working folder."""
        return cls(os.environ.get("DIFFBENCH_HOME") or ".diffbench")

    def prepare(self) -> None:
        """Makes the folders; raises DiffbenchError where nothing can be written, before any work is done."""
        try:
            for name in FOLDERS:
                durable.make_folders(self.root.absolute() / name)
            probe = self.root / "staging" / f"probe-{secrets.token_hex(8)}"
            write_flushed(probe, b"can this be written?")
            durable.disk.unlink(probe)
        except OSError as error:
            said = f"{error.strerror or error}; set DIFFBENCH_HOME to another folder"
            raise DiffbenchError(f"the store {self.root.resolve()} cannot be written: {said}") from None

    def path(self, stage: str, key: str) -> Path:
        """Where an artefact lies once it is published."""
        return Path(f"{self.root}/store/{stage}/{key[:2]}/{key}")          # asked 100,000 times of a large matrix: `/` takes three times as long

    def partial(self, stage: str, key: str) -> Path:
        """Where a stage keeps what a later try can go on from."""
        return self.root / "partial" / stage / key

    def forget_partial(self, stage: str, key: str) -> None:
        """Drops what a finished stage needs no longer; what cannot be dropped now is left to `diffbench gc`."""
        with contextlib.suppress(OSError):
            durable.disk.rmtree(self.partial(stage, key))

    def claim(self, key: str) -> Path:
        """The folder that says that somebody works on a stage."""
        return self.root / "claims" / key

    def has(self, stage: str, key: str) -> bool:
        """Whether a whole, undamaged artefact is there; a damaged one is set aside, so that it is built again."""
        try:
            return self.check(stage, key)
        except Damaged:
            return False

    def check(self, stage: str, key: str) -> bool:
        """Whether an artefact is there; raises Damaged where it is not what its manifest says, after setting it aside."""
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
        """Which of the artefacts (stage, key) are there and whole, many at once; damaged ones are set aside."""
        wanted = list(stages)
        done, damaged = set(), set()

        def look(some: list[tuple[str, str]]) -> None:
            for stage, key in some:
                try:
                    if self.check(stage, key):
                        done.add(key)
                except Damaged:
                    damaged.add(key)
        chunks = [wanted[i : i + CHUNK] for i in range(0, len(wanted), CHUNK)]
        with ThreadPoolExecutor(READERS) as pool:
            while chunks:
                start, chunk = time.perf_counter(), chunks.pop(0)
                look(chunk)
                if time.perf_counter() - start > SLOW_SECONDS * len(chunk):
                    list(pool.map(look, chunks[: 4 * READERS]))
                    del chunks[: 4 * READERS]
        return Found(done, damaged)

    def is_published(self, stage: str, key: str) -> bool:
        """Whether an artefact's manifest is there; its files are not read. For looking only: what goes on from an artefact asks `has`."""
        return os.path.isfile(f"{self.root}/store/{stage}/{key[:2]}/{key}/{manifest.MANIFEST}")

    def set_aside(self, stage: str, key: str) -> Path | None:
        """Moves an artefact to damaged/; None where it is gone, because another process did."""
        target = self.root / "damaged" / f"{stage}-{key}-{time.time_ns()}"
        folder = self.path(stage, key)
        try:
            durable.make_folders(target.parent)
            durable.disk.rename(folder, target)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise DiffbenchError(f"the damaged artefact {folder} cannot be set aside: {error.strerror}") from None
        durable.disk.flush_folder(target.parent)
        durable.disk.flush_folder(folder.parent)
        return target

    def publish(self, stage: str, key: str, task: dict[str, Any], files: dict[str, bytes]) -> Path:
        """Writes an artefact aside, flushes it and renames it into place; where another run was first, its copy stays.

        On return the artefact is on the disk. Raises DiskFull with the room that it needs.
        """
        aside = self.new_folder(key[:8])
        try:
            manifest.write_folder(aside, stage, key, {"task.json": json.dumps(task, indent=1, sort_keys=True).encode(), **files})
            self.move_in(stage, key, aside)
        finally:
            durable.disk.rmtree(aside)
        return self.path(stage, key)

    def new_folder(self, name: str) -> Path:
        """A new folder to write something in that is not to be seen yet."""
        aside = self.root / "staging" / f"{name}-{secrets.token_hex(8)}"
        durable.disk.mkdir(aside)
        return aside

    def move_in(self, stage: str, key: str, aside: Path) -> bool:
        """Publishes a folder of flushed files as an artefact; False where a whole one is there already, which stays."""
        target = self.path(stage, key)
        for _ in range(2):
            try:
                durable.publish_folder(aside, target, top=self.root)
                return True
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.has(stage, key):                      # else it was damaged, and is out of the way now
                durable.disk.flush_folder(target.parent)  # the first may have been killed before it did
                return False
        raise DiffbenchError(f"{target} cannot be published: something there is in the way, and setting it aside does not help")

    def read(self, stage: str, key: str, name: str) -> bytes:
        """The content of a file of an artefact, checked against its manifest; raises Damaged where it is not what it was, or gone."""
        return manifest.read(self.path(stage, key), stage, key, name)

    def read_json(self, stage: str, key: str, name: str) -> Any:
        """A JSON file of an artefact, checked against its manifest."""
        return json.loads(self.read(stage, key, name))

    def read_tensors(self, stage: str, key: str, name: str) -> dict[str, Tensor]:
        """A safetensors file of an artefact, checked against its manifest."""
        import safetensors.torch

        return safetensors.torch.load(self.read(stage, key, name))

    def new_attempt(self, stage: Stage, execution: dict[str, Any]) -> Path:
        """A fresh folder for one try of a stage, with the task the worker will read and how it is to be done."""
        parent = self.root / "attempts" / stage.key
        durable.make_folders(parent)
        number = len(os.listdir(parent)) + 1
        while True:
            folder = parent / f"{number:02d}"
            try:
                durable.disk.mkdir(folder)
                break
            except FileExistsError:                       # another run tries the same stage
                number += 1
        content = {"stage": stage.name, "key": stage.key, "identity": stage.identity, "task": stage.task, "parents": stage.parents,
                   "execution": execution}
        write_atomically(folder / "task.json", json.dumps(content, indent=1, sort_keys=True).encode())
        return folder

    def register_run(self, folder: Path, keys: Iterable[str]) -> Path:
        """Notes that a folder of results needs these artefacts; `diffbench gc` keeps them while the folder holds its plan."""
        place = {"folder": str(Path(folder).absolute()), "host": socket.gethostname()}
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        name = hashlib.sha256(json.dumps(place, sort_keys=True).encode()).hexdigest()[:32]
        durable.make_folders(self.root / "runs")
        path = self.root / "runs" / f"{name}.json"
        write_atomically(path, json.dumps({**place, "registered_at": now, "keys": sorted(keys)}).encode())
        return path

    def _is_still(self, folder: Path, before: os.stat_result) -> bool:
        """Whether a folder is the one it was: another process may have set it aside, and a third one built it anew."""
        try:
            return os.path.samestat(os.stat(folder), before)
        except OSError:
            return False
