"""Registrations of runs with a store: which folder of results needs which artefacts. Used by `garbage`.

A folder is known by its identity, so one that was moved is found again by any command that opens it: see `found_again`.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.store import output_folder
from diffbench.store.disk import disk, make_folders, write_atomically
from diffbench.store.manifest import KEYS

FOLDER = "runs"                       # in the store's home


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A folder of results and the artefacts that it needs, as a run, an import or a command last registered it."""

    path: Path                        # of the file
    folder: Path
    host: str
    keys: frozenset[str]
    identity: str | None              # None: of an earlier version
    matrix: str                       # its name

    @property
    def is_there(self) -> bool:
        """Whether this run is found at the place where it is registered."""
        try:
            has_plan = (self.folder / "plan.json").is_file()
        except OSError:                                   # a folder above it may not be read: nobody can tell
            return False
        return has_plan and output_folder.identity(self.folder) == self.identity

    def __str__(self) -> str:
        elsewhere = f" on {self.host}" if self.host != socket.gethostname() else ""
        return f"{self.folder}{elsewhere}" + (f" (matrix {self.matrix})" if self.matrix else "")


def register(home: Path, folder: Path, keys: Iterable[str], matrix: str = "") -> Path:
    """Registers a folder of results with the artefacts it needs; returns the file. Raises OSError where it cannot."""
    place = {"folder": str(Path(folder).absolute()), "host": socket.gethostname()}
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    path, identity = _path(home, folder), output_folder.identity(folder)
    make_folders(path.parent)
    write_atomically(path, json.dumps({**place, "registered_at": now, "identity": identity, "matrix": matrix,
                                       "keys": sorted(keys)}).encode())
    return path


def found_again(home: Path, folder: Path) -> None:
    """Registers a folder of results at its present place, where the store knows it from another place.

    It reads one small file where there is nothing to do. A store that cannot be written, or has a registration that
    cannot be read, stays as it is: who looks at results is not held up, and `diffbench gc` says what is wrong.
    """
    with contextlib.suppress(OSError, DiffbenchError):
        identity, path = output_folder.identity(folder), _path(home, folder)
        if identity is None or path.exists():
            return
        registered = [read(path_of_one) for path_of_one in (home / FOLDER).glob(f"{identity}-*.json")]
        if not registered:
            return
        keys = planned(folder / "plan.json")
        register(home, folder, keys, registered[0].matrix)
        for earlier in registered:  # where it was before: nothing is named there that is not named here
            if not earlier.is_there and earlier.host == socket.gethostname() and earlier.keys <= keys:
                disk.unlink(earlier.path)


def registrations(home: Path) -> Iterator[Registration]:
    """All registrations of a store. Raises DiffbenchError where one cannot be read, as its needs are not known then."""
    for path in sorted((home / FOLDER).glob("*.json")):
        yield read(path)


def read(path: Path) -> Registration:
    """One registration. Raises DiffbenchError where it cannot be read."""
    try:
        facts = json.loads(path.read_bytes())
        folder, host, keys, identity, matrix = (facts["folder"], facts["host"], facts["keys"], facts.get("identity"),
                                                facts.get("matrix", ""))
        are_texts = all(isinstance(text, str) for text in (folder, host, matrix, identity or ""))
        if not are_texts or not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("a folder, a host and keys are expected")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DiffbenchError(f"{path} cannot be read ({error}), so it is not known what its run needs; run that matrix "
                             "again, or delete the file") from None
    return Registration(path=path, folder=Path(folder), host=host, keys=frozenset(keys), identity=identity,
                        matrix=matrix)


def planned(plan: Path) -> set[str]:
    """All keys in a plan. Raises OSError where it cannot be read."""
    return {key.decode() for key in KEYS.findall(plan.read_bytes())}


def _path(home: Path, folder: Path) -> Path:
    """The file of a registration: one for each folder, and for each run that was in it."""
    place = json.dumps({"folder": os.path.abspath(folder), "host": socket.gethostname()}, sort_keys=True)
    digest, identity = hashlib.sha256(place.encode()).hexdigest(), output_folder.identity(folder)
    return home / FOLDER / (f"{identity}-{digest[:16]}.json" if identity else f"{digest[:32]}.json")
