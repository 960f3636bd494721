"""Inventory of a store: artefacts, partial results, attempts and leftovers. Used by `garbage` and `audit`.

Links are not followed.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims, Holder
from diffbench.store.manifest import KEY, STAGE

# What the program itself makes in these folders; anything else there is somebody's who keeps a store among other
# things.
NAMES = {
    "damaged": re.compile(rf"{STAGE.pattern}-{KEY.pattern}-\d+"),
    "staging": re.compile(r"(probe|import|piece|[0-9a-f]{8})-[0-9a-f]{16}|[0-9a-f]{8}-ranks-\w+"),
    "trash": re.compile(r"(artefact|partial|attempts|damaged|staging)-[0-9a-f]{16}"),
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a store."""

    kind: str                         # "artefact", "partial", "attempts", "damaged", "staging" or "trash"
    path: Path
    stage: str = ""                   # of artefacts and partials
    key: str = ""                     # of artefacts, partials and attempts

    def measure(self) -> tuple[int, float]:
        """(bytes of all files below, seconds since anything below was last written)"""
        size, newest = 0, 0.0
        for entry in _below(self.path):
            size, newest = size + entry.st_size, max(newest, entry.st_mtime)
        return size, time.time() - newest


@dataclass
class Inventory:
    """All items of a store, and what does not belong in one."""

    items: list[Item] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)      # why something was left alone

    def of(self, kind: str) -> list[Item]:
        """The items of a kind."""
        return [item for item in self.items if item.kind == kind]


def take_inventory(store: Store) -> Inventory:
    """Lists the folders of a store; items that come or go meanwhile may be missing."""
    inventory, root = Inventory(), store.root
    for stage in _folders(root / "store", inventory, STAGE):
        for shard in _folders(Path(stage.path), inventory):
            for entry in _folders(Path(shard.path), inventory, KEY):
                inventory.items.append(Item(kind="artefact", path=Path(entry.path), stage=stage.name, key=entry.name))
    for stage in _folders(root / "partial", inventory, STAGE):
        for entry in _folders(Path(stage.path), inventory, KEY):
            inventory.items.append(Item(kind="partial", path=Path(entry.path), stage=stage.name, key=entry.name))
    for entry in _folders(root / "attempts", inventory, KEY):
        inventory.items.append(Item(kind="attempts", path=Path(entry.path), key=entry.name))
    for kind, names in NAMES.items():
        for entry in _entries(root / kind):
            if entry.is_symlink():
                inventory.strange.append(f"{entry.path} is a link; it is left alone")
            elif not names.fullmatch(entry.name):
                inventory.strange.append(f"{entry.path} is nothing that a store has; it is left alone")
            else:
                inventory.items.append(Item(kind=kind, path=Path(entry.path)))
    return inventory


def holders(store: Store) -> dict[str, Holder | None]:
    """The holder of each claim by key; None where the claim is void."""
    claims = Claims()
    return {entry.name: claims.holder(Path(entry.path)) for entry in _entries(store.root / "claims")
            if KEY.fullmatch(entry.name)}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda e: e.name)


def _folders(folder: Path, inventory: Inventory, names: re.Pattern[str] | None = None) -> Iterator[os.DirEntry[str]]:
    if folder.is_symlink():
        inventory.strange.append(f"{folder} is a link; what it leads to is left alone")
        return
    for entry in _entries(folder):
        if entry.is_symlink():
            inventory.strange.append(f"{entry.path} is a link; what it leads to is left alone")
        elif not entry.is_dir() or (names is not None and not names.fullmatch(entry.name)):
            inventory.strange.append(f"{entry.path} is nothing that a store has; it is left alone")
        else:
            yield entry


def _below(path: Path) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        yield os.lstat(path)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(folder, name))
