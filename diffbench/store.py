"""The store: finished stages as plain folders named by their keys, shared by runs, never half-written, never pickled.

store/<stage>/3f/3f9c.../     task.json, the stage's files and manifest.json (size and SHA-256 of each), published by rename
attempts/<key>/01/            every try with its log, finished or not
partial/<stage>/<key>/        what a try that was killed leaves to the next: checkpoints of a training, finished blocks of samples
damaged/                      artefacts whose files did not match their manifest, set aside
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.errors import DiffbenchError

if TYPE_CHECKING:
    from torch import Tensor

    from diffbench.planning import Stage

MANIFEST = "manifest.json"


class Damaged(DiffbenchError):
    """An artefact's files do not match its manifest."""


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
            for name in ("store", "attempts", "staging"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root / "staging"):
                pass
        except OSError as error:
            said = f"{error.strerror or error}; set DIFFBENCH_HOME to another folder"
            raise DiffbenchError(f"the store {self.root.resolve()} cannot be written: {said}") from None

    def path(self, stage: str, key: str) -> Path:
        """Where an artefact lies once it is published."""
        return self.root / "store" / stage / key[:2] / key

    def partial(self, stage: str, key: str) -> Path:
        """Where a stage keeps what a later try can go on from."""
        return self.root / "partial" / stage / key

    def forget_partial(self, stage: str, key: str) -> None:
        """Drops what a finished stage needs no longer."""
        shutil.rmtree(self.partial(stage, key), ignore_errors=True)

    def has(self, stage: str, key: str) -> bool:
        """Whether a whole, undamaged artefact is there; a damaged one is set aside, so that it is built again."""
        folder = self.path(stage, key)
        if not (folder / MANIFEST).is_file():
            return False
        try:
            verify(folder)
        except Damaged:
            self.set_aside(stage, key)
            return False
        return True

    def is_published(self, stage: str, key: str) -> bool:
        """Whether an artefact's manifest is there; its files are not read. For looking only: what goes on from an artefact asks `has`."""
        return os.path.isfile(f"{self.root}/store/{stage}/{key[:2]}/{key}/{MANIFEST}")

    def set_aside(self, stage: str, key: str) -> Path:
        """Moves an artefact to damaged/."""
        target = self.root / "damaged" / f"{stage}-{key}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        os.rename(self.path(stage, key), target)
        return target

    def publish(self, stage: str, key: str, task: dict[str, Any], files: dict[str, bytes]) -> Path:
        """Writes an artefact aside, flushes it and renames it into place; where another run was first, its copy stays."""
        staging = Path(tempfile.mkdtemp(prefix=f"{key[:8]}-", dir=self.root / "staging"))
        try:
            contents = {"task.json": json.dumps(task, indent=1, sort_keys=True).encode(), **files}
            listing = {}
            for name, data in contents.items():
                write_flushed(staging / name, data)
                listing[name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            manifest = {"stage": stage, "key": key, "files": listing}
            write_flushed(staging / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
            os.chmod(staging, 0o777 & ~_umask())          # mkdtemp is private; a shared store is not
            target = self.path(stage, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(staging, target)
            except OSError:
                if not self.has(stage, key):
                    raise
            flush_folder(target.parent)
            return target
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def read_json(self, stage: str, key: str, name: str) -> Any:
        """A JSON file of an artefact."""
        return json.loads((self.path(stage, key) / name).read_bytes())

    def read_tensors(self, stage: str, key: str, name: str) -> dict[str, Tensor]:
        """A safetensors file of an artefact, checked against its manifest."""
        import safetensors.torch

        folder = self.path(stage, key)
        data = (folder / name).read_bytes()
        expected = json.loads((folder / MANIFEST).read_bytes())["files"][name]["sha256"]
        if hashlib.sha256(data).hexdigest() != expected:
            raise Damaged(f"{folder / name} does not match its checksum")
        return safetensors.torch.load(data)

    def new_attempt(self, stage: Stage, execution: dict[str, Any]) -> Path:
        """A fresh folder for one try of a stage, with the task the worker will read and how it is to be done."""
        parent = self.root / "attempts" / stage.key
        parent.mkdir(parents=True, exist_ok=True)
        number = len(list(parent.iterdir())) + 1
        while True:
            folder = parent / f"{number:02d}"
            try:
                folder.mkdir()
                break
            except FileExistsError:                       # another run tries the same stage
                number += 1
        content = {"stage": stage.name, "key": stage.key, "identity": stage.identity, "task": stage.task, "parents": stage.parents,
                   "execution": execution}
        write_atomically(folder / "task.json", json.dumps(content, indent=1, sort_keys=True).encode())
        return folder


def verify(folder: Path) -> None:
    """Raises Damaged unless every file of an artefact has the size and SHA-256 its manifest names."""
    try:
        listing = json.loads((folder / MANIFEST).read_bytes())["files"]
        for name, facts in listing.items():
            data = (folder / name).read_bytes()
            if len(data) != facts["size"] or hashlib.sha256(data).hexdigest() != facts["sha256"]:
                raise Damaged(f"{folder / name} does not match its checksum")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"{folder} is incomplete: {error}") from None


def write_atomically(path: Path, data: bytes) -> None:
    """The old content or the new one, never part of one."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    flush_folder(path.parent)


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a new file and waits until it is on the disk."""
    with open(path, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def append_line(path: Path, line: bytes) -> None:
    """Adds a line by a single write, so that several processes may add to one file; not waited for: for what can be derived again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        os.write(handle, line + b"\n")
    finally:
        os.close(handle)


def flush_folder(folder: Path) -> None:
    """Waits until a folder's entries are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
