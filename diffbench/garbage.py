"""What a store holds that no run names any more, and its removal.

A run is a folder of results that still holds its plan: those registered with the store, and those in `runs/` of the working folder.
What their plans name stays, with all its ancestors; so does what somebody works on and what is younger than an hour.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench import durable
from diffbench.claims import Claims
from diffbench.errors import DiffbenchError
from diffbench.inventory import Item, holders, take_inventory
from diffbench.store import Store

YOUNGEST_SECONDS = 3600.0             # a run on another node may be about to name what is younger
BATCH = 256                           # items moved to the trash before their folders are flushed
KEYS = re.compile(rb'"([0-9a-f]{64})"')


@dataclass
class Named:
    """What runs need."""

    keys: set[str] = field(default_factory=set)
    runs: list[Path] = field(default_factory=list)        # their folders
    gone: list[Path] = field(default_factory=list)        # registrations of runs that are no more
    notes: list[str] = field(default_factory=list)
    as_of: int = 0                    # when a run was last registered or forgotten


@dataclass
class Garbage:
    """What can go, with its size in bytes, and what stays although no run names it."""

    items: list[tuple[Item, int]] = field(default_factory=list)
    named: Named = field(default_factory=Named)
    young: int = 0                    # items
    claimed: int = 0
    strange: list[str] = field(default_factory=list)


def find_garbage(store: Store, working: Path, older_than: float = YOUNGEST_SECONDS) -> Garbage:
    """What no run names and nobody works on, untouched for `older_than` seconds, an hour at least. Nothing is changed."""
    if older_than < YOUNGEST_SECONDS:
        raise DiffbenchError(f"what is younger than an hour is never removed, as a run may be about to need it; got {older_than:g} s")
    named = named_by_runs(store, working)                 # before the inventory: what is named afterwards is young
    found = take_inventory(store)
    artefacts = {item.key: item for item in found.of("artefact")}
    keep = _with_ancestors(named.keys, artefacts)
    working_on = {key for key, holder in holders(store).items() if holder is not None}
    garbage = Garbage(named=named, strange=found.strange)
    for item in found.items:
        is_leftover = item.kind in ("damaged", "staging", "trash") or (item.kind == "partial" and item.key in artefacts)
        if item.key in keep and not is_leftover:
            continue
        if item.key in working_on:
            garbage.claimed += 1
            continue
        size, age = item.measure()
        if age < older_than and item.kind != "trash":
            garbage.young += 1
        else:
            garbage.items.append((item, size))
    return garbage


def remove(store: Store, garbage: Garbage, working: Path) -> list[tuple[Item, int]]:
    """Removes garbage, and what is left of runs and claims that are no more; returns what was removed.

    An item is moved to the trash in one step, so that a removal that is killed leaves nothing half in place.
    """
    trash = store.root / "trash"
    durable.make_folders(trash)
    removed: list[tuple[Item, int]] = []
    seen, keep = garbage.named.as_of, set[str]()
    waiting = iter(garbage.items)
    while batch := list(itertools.islice(waiting, BATCH)):
        if _registered_at(store) != seen:                 # a run has begun meanwhile
            named = named_by_runs(store, working)
            seen, keep = named.as_of, named.keys
        moved, parents = [], set()
        for item, size in batch:
            if item.key in keep or (item.key and Claims().holder(store.claim(item.key)) is not None):
                continue
            aside = item.path if item.kind == "trash" else trash / f"{item.kind}-{secrets.token_hex(8)}"
            try:
                if aside != item.path:
                    durable.disk.rename(item.path, aside)
                    parents.add(item.path.parent)
            except FileNotFoundError:                     # another process was faster
                continue
            moved.append(aside)
            removed.append((item, size))
        for parent in (*parents, trash):                  # a power cut must not bring back the name of what is half deleted
            durable.disk.flush_folder(parent)
        for aside in moved:
            _delete(aside)
    for registration in garbage.named.gone:
        with contextlib.suppress(FileNotFoundError):
            durable.disk.unlink(registration)
    _drop_void_claims(store)
    return removed


def named_by_runs(store: Store, working: Path) -> Named:
    """The keys that runs name. Raises DiffbenchError where a run cannot be read: what it needs is not known."""
    found = Named(as_of=_registered_at(store))
    for path in sorted((store.root / "runs").glob("*.json")):
        facts = _registration(path)
        folder = Path(facts["folder"])
        if (folder / "plan.json").is_file():
            found.keys |= _planned(folder / "plan.json") | set(facts["keys"])
            found.runs.append(folder)
        elif facts["host"] == socket.gethostname():
            found.gone.append(path)
        else:
            found.keys |= set(facts["keys"])
            found.notes.append(f"the run {folder} on {facts['host']} cannot be seen from here, so what it needs is kept; if it is no more, delete {path}")
    for plan in sorted((working / "runs").glob("*/plan.json")):
        if plan.parent.absolute() not in found.runs:
            found.keys |= _planned(plan)
            found.runs.append(plan.parent.absolute())
    return found


def _registration(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
        if isinstance(facts["folder"], str) and isinstance(facts["host"], str) and isinstance(facts["keys"], list):
            return facts
        raise ValueError("a folder, a host and keys are expected")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DiffbenchError(f"{path} cannot be read ({error}), so it is not known what its run needs; run that matrix again, or delete the file") from None


def _planned(plan: Path) -> set[str]:
    """Every key that a plan names, in whatever place."""
    try:
        return {key.decode() for key in KEYS.findall(plan.read_bytes())}
    except OSError as error:
        raise DiffbenchError(f"{plan} cannot be read ({error.strerror}), so it is not known what its run needs") from None


def _with_ancestors(keys: Iterable[str], artefacts: dict[str, Item]) -> set[str]:
    found: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in found:
            found.add(key)
            if key in artefacts:
                waiting.extend(_parents(artefacts[key].path))
    return found


def _parents(artefact: Path) -> list[str]:
    try:
        return list(json.loads((artefact / "task.json").read_bytes())["parents"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []                                         # damaged: its parents are named by the plan, or by nobody


def _registered_at(store: Store) -> int:
    return os.stat(store.root / "runs").st_mtime_ns if (store.root / "runs").is_dir() else 0


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        durable.disk.rmtree(path)
    else:
        durable.disk.unlink(path)


def _drop_void_claims(store: Store) -> None:
    claims = Claims()
    try:
        for key, holder in holders(store).items():
            if holder is None and claims.take(store.claim(key)) is None:
                claims.release(store.claim(key))
    finally:
        claims.close()
