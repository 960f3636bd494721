"""Garbage of a store: what no run needs any more, and its removal. Used by `diffbench gc`.

A run is a folder of results that is registered with the store, whether or not it is to be seen now, until the user says
that it is no more; and one that lies in `runs/` of the working folder. What their plans name stays, with all its
ancestors; so does what somebody works on and what is younger than an hour.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import secrets
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.store import disk, output_folder, registrations
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims, foreign
from diffbench.store.inventory import Item, holders, take_inventory
from diffbench.store.registrations import Registration

YOUNGEST_SECONDS = 3600.0             # a run on another node may be about to name what is younger
BATCH = 256                           # items moved to the trash before their folders are flushed


@dataclass(frozen=True, kw_only=True)
class Forget:
    """The runs that the user says no longer exist."""

    folders: tuple[Path, ...] = ()
    missing: bool = False             # all that are not where this machine registered them

    def includes(self, registration: Registration) -> bool:
        """Whether a run that cannot be found is to be forgotten."""
        is_named = registration.folder in [folder.absolute() for folder in self.folders]
        return is_named or (self.missing and registration.host == socket.gethostname())

    def check(self, needs: Needs) -> None:
        """Raises DiffbenchError for a folder that exists, or in which no run is registered."""
        for folder in self.folders:
            if folder.absolute() in needs.runs:
                raise DiffbenchError(f"--forget {folder}: the run is there; delete its folder first")
            if folder.absolute() not in [registration.folder for registration in needs.forgotten]:
                missing_folders = ", ".join(str(registration.folder) for registration in needs.missing) or "none"
                raise DiffbenchError(f"--forget {folder}: no run is registered there; those that are not to be seen: "
                                     f"{missing_folders}")


@dataclass
class Needs:
    """The artefacts that runs need."""

    keys: set[str] = field(default_factory=set)
    runs: dict[Path, tuple[str | None, set[str]]] = field(default_factory=dict)      # folder -> identity, keys
    missing: list[Registration] = field(default_factory=list)         # not where they were: what they need is kept
    forgotten: list[Registration] = field(default_factory=list)       # to be deleted: found elsewhere, or by the user
    forgotten_by_user: list[Registration] = field(default_factory=list)
    as_of: int = 0                    # when a run was last registered or forgotten

    def add(self, folder: Path, keys: Iterable[str] = ()) -> None:
        """Adds a run that is there: the keys of its plan, and these."""
        try:
            needed = registrations.planned(folder / "plan.json") | set(keys)
        except OSError as error:
            raise DiffbenchError(f"{folder / 'plan.json'} cannot be read ({error.strerror}), so it is not known what "
                                 "its run needs") from None
        self.runs[folder] = output_folder.identity(folder), needed
        self.keys |= needed

    def has_again(self, registration: Registration) -> bool:
        """Whether all that a run needed is needed by the same run elsewhere, or by another run in its place."""
        return any((folder == registration.folder or (identity is not None and identity == registration.identity))
                   and registration.keys <= keys for folder, (identity, keys) in self.runs.items())


@dataclass
class Garbage:
    """What can be removed, with sizes in bytes, and what stays although no run needs it."""

    items: list[tuple[Item, int]] = field(default_factory=list)
    needs: Needs = field(default_factory=Needs)
    young: int = 0                    # items
    claimed: int = 0
    strange: list[str] = field(default_factory=list)
    forget: Forget | None = None


def find_garbage(store: Store, working: Path, older_than: float = YOUNGEST_SECONDS,
                 forget: Forget | None = None) -> Garbage:
    """Items that no run needs, nobody works on, and nobody touched for `older_than` seconds. Nothing is changed.

    forget: runs that are no more, because the user says so. What any other run needs stays, whether or not it is to be
    seen.
    """
    if older_than < YOUNGEST_SECONDS:
        raise DiffbenchError("what is younger than an hour is never removed, as a run may be about to need it; got "
                             f"{older_than:g} s")
    needs = needs_of_runs(store, working, forget)         # before the inventory: what is named afterwards is young
    inventory = take_inventory(store)
    artefacts = {item.key: item for item in inventory.of("artefact")}
    keep = _with_ancestors(needs.keys, artefacts)
    working_on = {key for key, holder in holders(store).items() if holder is not None}
    garbage = Garbage(needs=needs, strange=inventory.strange, forget=forget)
    for item in inventory.items:
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
    """Removes garbage, and registrations and claims that are void; returns the items that were removed.

    An item is moved to the trash in one step, so that a removal that is killed leaves nothing half in place.
    """
    trash = store.root / "trash"
    disk.make_folders(trash)
    removed: list[tuple[Item, int]] = []
    as_of, keep = garbage.needs.as_of, set[str]()
    waiting = iter(garbage.items)
    while batch := list(itertools.islice(waiting, BATCH)):
        if _registered_at(store) != as_of:                # a run has begun meanwhile
            needs = needs_of_runs(store, working, garbage.forget)
            as_of, keep = needs.as_of, needs.keys
        moved, parents = [], set()
        for item, size in batch:
            if item.key in keep or (item.key and Claims().holder(store.claim(item.key)) is not None):
                continue
            aside = item.path if item.kind == "trash" else trash / f"{item.kind}-{secrets.token_hex(8)}"
            try:
                if aside != item.path:
                    disk.disk.rename(item.path, aside)
                    parents.add(item.path.parent)
            except FileNotFoundError:                     # another process was faster
                continue
            moved.append(aside)
            removed.append((item, size))
        # a power cut must not bring back the name of what is half deleted
        for parent in (*parents, trash):
            disk.disk.flush_folder(parent)
        for aside in moved:
            _delete(aside)
    for registration in garbage.needs.forgotten:
        with contextlib.suppress(FileNotFoundError):
            disk.disk.unlink(registration.path)
    _drop_void_claims(store)
    return removed


def needs_of_runs(store: Store, working: Path, forget: Forget | None = None) -> Needs:
    """The needs of all runs. Raises DiffbenchError where a run cannot be read, for its needs are not known then."""
    needs, missing = Needs(as_of=_registered_at(store)), []
    for registration in registrations.registrations(store.root):
        if registration.is_there:
            needs.add(registration.folder, registration.keys)
        else:
            missing.append(registration)
    for plan in sorted((working / "runs").glob("*/plan.json")):
        if plan.parent.absolute() not in needs.runs:
            needs.add(plan.parent.absolute())
    for registration in missing:
        if needs.has_again(registration):
            needs.forgotten.append(registration)          # it was moved, or run anew in its place: nothing is lost
        elif forget is not None and forget.includes(registration):
            needs.forgotten.append(registration)
            needs.forgotten_by_user.append(registration)
        else:
            needs.keys |= registration.keys
            needs.missing.append(registration)
    if forget is not None:
        forget.check(needs)
    return needs


def _with_ancestors(keys: Iterable[str], artefacts: dict[str, Item]) -> set[str]:
    with_ancestors: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key not in with_ancestors:
            with_ancestors.add(key)
            if key in artefacts:
                waiting.extend(_parents(artefacts[key].path))
    return with_ancestors


def _parents(artefact: Path) -> list[str]:
    try:
        return list(json.loads((artefact / "task.json").read_bytes())["parents"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return []                                         # damaged: its parents are named by the plan, or by nobody


def _registered_at(store: Store) -> int:
    return os.stat(store.root / "runs").st_mtime_ns if (store.root / "runs").is_dir() else 0


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        disk.disk.rmtree(path)
    else:
        disk.disk.unlink(path)


def _drop_void_claims(store: Store) -> None:
    claims = Claims()
    try:
        for key, holder in holders(store).items():
            if holder is None and not foreign(store.claim(key)) and claims.take(store.claim(key)) is None:
                claims.release(store.claim(key))
    finally:
        claims.close()
