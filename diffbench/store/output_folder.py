"""The folder of results of a run: checks, the lock of one run, its identity.

Used by `api.running`, the store and `diffbench gc`.

A run writes into a new or empty folder, or into that of an earlier run, and removes nothing but what its own writer
makes. The identity is drawn once and moves with the folder, so that a store knows a folder again that has another place
now.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.process import interrupts
from diffbench.store.claims import ASIDE, Claims, sweep
from diffbench.store.disk import disk, write_atomically, write_flushed

WAIT_SECONDS = 1.0                    # between looks at whether another run has ended
IDENTITY = "run.json"                 # written before anything else
LOCK = ".run"
CELL_ID = re.compile(r"[0-9a-f]{12}")
# Files that a run writes, by the folder they lie in.
FILES = {
    "": re.compile(r"(run|matrix|plan|environment|columns|real|finished)\.json|results\.(csv|parquet)|report\.html|"
                   r"(fid|throughput)\.(md|csv)|(means|differences)\.csv"),
    "cells": re.compile(rf"{CELL_ID.pattern}\.json"),
    "samples": re.compile(rf"{CELL_ID.pattern}(-trajectory)?\.png"),
}
_UNFINISHED = re.compile(r"\.(?P<name>.+)-[0-9a-f]{8}")               # names given by `disk.write_atomically`
_PROBE = re.compile(r"\.writable-[0-9a-f]{8}")


def prepare(folder: Path) -> None:
    """Makes the folder. Raises DiffbenchError where it cannot be written, or holds something else than a run."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = [] if is_run(folder) else sorted(name for name in os.listdir(folder) if not _is_of_a_start(name))
        if others:
            raise DiffbenchError(f"--out {folder}: the folder holds {others[0]!r} and no run of diffbench; name a new "
                                 "folder, an empty one or one of an earlier run")
        probe = folder / f".writable-{secrets.token_hex(4)}"
        write_flushed(probe, b"")
        disk.unlink(probe)
    except OSError as error:
        raise DiffbenchError(f"--out {folder}: the folder cannot be written: {error.strerror or error}") from None


@contextlib.contextmanager
def alone_in(folder: Path, wait: bool) -> Iterator[Callable[[], None]]:
    """Locks a prepared folder against other runs; the claim of a run that has ended does not count.

    Gives a check that the folder is still there and ours, which raises DiffbenchError where it is not.
    """
    claims, lock = Claims(), folder / LOCK

    def check() -> None:
        if claims.holds(lock):
            return
        if identity(folder) is None:
            raise DiffbenchError(f"--out {folder}: the folder was removed while this run wrote to it; what was "
                                 "finished is in the store, and the same line goes on from there")
        raise DiffbenchError(f"--out {folder}: the claim {lock.name} of this run was removed, another run may write "
                             "there; stopped")
    try:
        while (holder := claims.take(lock)) is not None:
            if not wait:
                raise DiffbenchError(f"--out {folder}: {holder} writes to this folder; wait for it with --wait, or "
                                     "name another folder with --out")
            interrupts.check()
            time.sleep(WAIT_SECONDS)
        sweep(folder)
        _remove_unfinished(folder)
        if identity(folder) is None:
            write_atomically(folder / IDENTITY, json.dumps({"diffbench": "run", "id": secrets.token_hex(16)}).encode())
        yield check
    except FileNotFoundError:
        check()
        raise
    finally:
        claims.close()


def identity(folder: Path) -> str | None:
    """The identity of a folder, 32 hexadecimal digits; None where no run, or only an earlier version, has written."""
    try:
        content = json.loads((folder / IDENTITY).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    run_id = content.get("id") if isinstance(content, dict) and content.get("diffbench") == "run" else None
    return run_id if isinstance(run_id, str) and re.fullmatch(r"[0-9a-f]{32}", run_id) else None


def is_run(folder: Path) -> bool:
    """Whether a run has written to a folder: it has an identity or, from an earlier version, a plan."""
    if identity(folder) is not None:
        return True
    try:
        content = json.loads((folder / "plan.json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"cells", "stages"} <= content.keys()


def _is_of_a_start(name: str) -> bool:
    """Whether a file is one that a run leaves when it is killed before it has written the identity."""
    return name == LOCK or bool(ASIDE.fullmatch(name) or _PROBE.fullmatch(name)) or _is_unfinished("", name)


def _is_unfinished(place: str, name: str) -> bool:
    match = _UNFINISHED.fullmatch(name)
    return match is not None and FILES[place].fullmatch(match["name"]) is not None


def _remove_unfinished(folder: Path) -> None:
    """Removes the files that a killed run was writing, recognised by their full names."""
    for place in FILES:
        inside = folder / place
        if place and inside.is_symlink():
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(inside) as entries:
            for entry in entries:
                is_ours = _is_unfinished(place, entry.name) or (place == ""
                                                                and _PROBE.fullmatch(entry.name) is not None)
                if is_ours and entry.is_file(follow_symlinks=False):
                    disk.unlink(Path(entry.path))
