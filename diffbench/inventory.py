"""What lies in a store: every artefact, partial, attempt and leftover, with size and age. Links are neither followed nor touched."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from diffbench.claims import Claims, Holder
from diffbench.manifest import KEY, STAGE
from diffbench.store import Store


@dataclass(frozen=True, kw_only=True)
class Item:
    """One thing that lies in a store."""

    kind: str                         # "artefact", "partial", "attempts", "damaged", "staging" or "trash"
    path: Path
    stage: str = ""                   # of artefacts and partials
    key: str = ""                     # of artefacts, partials and attempts

    def measure(self) -> tuple[int, float]:
        """(bytes of all files below, seconds since anything below was last written)."""
        size, newest = 0, 0.0
        for entry in _below(self.path):
            size, newest = size + entry.st_size, max(newest, entry.st_mtime)
        return size, time.time() - newest


@dataclass
class Inventory:
    """Everything in a store, and what is in it that a store does not have."""

    items: list[Item] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)      # why something was left alone

    def of(self, kind: str) -> list[Item]:
        """The items of a kind."""
        return [item for item in self.items if item.kind == kind]


def take_inventory(store: Store) -> Inventory:
    """Reads the folders of a store; what comes or goes meanwhile may be in it or not."""
    found, root = Inventory(), store.root
    for stage in _folders(root / "store", found, STAGE):
        for shard in _folders(Path(stage.path), found):
            for entry in _folders(Path(shard.path), found, KEY):
                found.items.append(Item(kind="artefact", path=Path(entry.path), stage=stage.name, key=entry.name))
    for stage in _folders(root / "partial", found, STAGE):
        for entry in _folders(Path(stage.path), found, KEY):
            found.items.append(Item(kind="partial", path=Path(entry.path), stage=stage.name, key=entry.name))
    for entry in _folders(root / "attempts", found, KEY):
        found.items.append(Item(kind="attempts", path=Path(entry.path), key=entry.name))
    for kind in ("damaged", "staging", "trash"):
        for entry in _entries(root / kind):
            if entry.is_symlink():
                found.strange.append(f"{entry.path} is a link; it is left alone")
            else:
                found.items.append(Item(kind=kind, path=Path(entry.path)))
    return found


def holders(store: Store) -> dict[str, Holder | None]:
    """Who works on which key; None where the claim is void, because its process is no more."""
    claims = Claims()
    return {entry.name: claims.holder(Path(entry.path)) for entry in _entries(store.root / "claims") if KEY.fullmatch(entry.name)}


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        yield from sorted(entries, key=lambda e: e.name)


def _folders(folder: Path, found: Inventory, names: re.Pattern[str] | None = None) -> Iterator[os.DirEntry[str]]:
    if folder.is_symlink():
        found.strange.append(f"{folder} is a link; what it leads to is left alone")
        return
    for entry in _entries(folder):
        if entry.is_symlink():
            found.strange.append(f"{entry.path} is a link; what it leads to is left alone")
        elif not entry.is_dir() or (names is not None and not names.fullmatch(entry.name)):
            found.strange.append(f"{entry.path} is nothing that a store has; it is left alone")
        else:
            yield entry


def _below(path: Path) -> Iterator[os.stat_result]:
    with contextlib.suppress(OSError):
        yield os.lstat(path)
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(folder, name))
