"""What a power cut may leave: every durable operation of a real run is recorded, and every state that could have survived is made.

The model is the pessimist's. A file's content survives where the file was flushed afterwards; else it may be whole, cut in half, full
of zeros or empty. A name that was added or removed survives where its folder was flushed afterwards; else each such change, on its
own, may be there or not, in any order. A rename is one change, which journals see to, and lasts once the folder it went to is flushed.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench.store.disk import Disk

MOST_PENDING = 10                     # changes not flushed at one moment of which every subset is walked through
FEW = 2                               # of more than that: subsets that have, or lack, so many

Tree = dict[str, Any]                 # name -> bytes (a file) or Tree (a folder)
Operation = tuple[Any, ...]           # kind, then its facts


class Recorder:
    """A disk that does what the real one does and notes it. `root` is there, and on the disk, before."""

    def __init__(self, root: Path, real: Disk):
        self.root, self.real = root, real
        self.log: list[Operation] = []
        self.files: dict[Any, int] = {}

    def say(self, text: str) -> None:
        """Something a user was told at this moment."""
        self.log.append(("said", text))

    def create(self, path: Path) -> Any:
        file = self.real.create(path)
        self.files[file] = len(self.files)
        self.log.append(("create", self._parts(path), self.files[file]))
        return file

    def write(self, file: Any, data: bytes) -> None:
        self.real.write(file, data)
        self.log.append(("write", self.files[file], bytes(data)))

    def flush(self, file: Any) -> None:
        self.real.flush(file)
        self.log.append(("flush", self.files[file]))

    def flush_file(self, path: Path) -> None:
        self.real.flush_file(path)
        self.log.append(("flush", next(number for file, number in self.files.items() if Path(file.name) == path)))

    def flush_folder(self, path: Path) -> None:
        self.real.flush_folder(path)
        self.log.append(("flush_folder", self._parts(path)))

    def mkdir(self, path: Path) -> None:
        self.real.mkdir(path)
        self.log.append(("mkdir", self._parts(path)))

    def rename(self, old: Path, new: Path) -> None:
        self.real.rename(old, new)
        self.log.append(("rename", self._parts(old), self._parts(new)))

    def unlink(self, path: Path) -> None:
        self.real.unlink(path)
        self.log.append(("remove", self._parts(path)))

    def rmtree(self, path: Path) -> None:
        """Name by name: any part of a deletion may survive."""
        below = [Path(folder) / name for folder, folders, files in os.walk(path, topdown=False) for name in (*files, *folders)]
        whole = [*below, path] if path.exists() else []
        self.real.rmtree(path)
        self.log += [("remove", self._parts(entry)) for entry in whole]

    def _parts(self, path: Path) -> tuple[str, ...]:
        return Path(path).absolute().relative_to(self.root).parts


@dataclass(frozen=True)
class Change:
    """Names that change together: (folder, name, node that it means now or None)."""

    entries: tuple[tuple[str, str, str | None], ...]
    folder: str                       # whose flush makes it last


@dataclass
class Model:
    """Folders and files ("nodes") and what their names are to processes and on the disk."""

    names: dict[tuple[str, str], str] = field(default_factory=dict)       # as running processes see them
    lasting: dict[tuple[str, str], str] = field(default_factory=dict)     # as they are on the disk for certain
    pending: list[Change] = field(default_factory=list)                   # what may be on the disk or not
    content: dict[str, bytes] = field(default_factory=dict)
    flushed: dict[str, bytes] = field(default_factory=dict)
    made: int = 0

    def apply(self, kind: str, *facts: Any) -> None:
        """One recorded operation."""
        if kind == "create":
            node = f"file {facts[1]}"
            self.content[node] = self.flushed[node] = b""
            self._change(facts[0], node)
        elif kind == "mkdir":
            self.made += 1
            self._change(facts[0], f"folder {self.made}")
        elif kind == "write":
            self.content[f"file {facts[0]}"] += facts[1]
        elif kind == "flush":
            self.flushed[f"file {facts[0]}"] = self.content[f"file {facts[0]}"]
        elif kind == "remove":
            self._change(facts[0], None)
        elif kind == "rename":
            (*source, old), (*target, new) = facts
            self._enter(Change(((self._node(source), old, None), (self._node(target), new, self._node(facts[0]))), self._node(target)))
        elif kind == "flush_folder":
            self._flush_folder(self._node(facts[0]))
        else:
            raise ValueError(f"no operation {kind!r}")

    def states(self) -> Iterator[Tree]:
        """Every tree that a power cut at this moment may leave."""
        for kept in _subsets(len(self.pending)):
            names = dict(self.lasting)
            for change in itertools.compress(self.pending, kept):
                _apply(names, change)
            torn = sorted(node for node in set(names.values()) & set(self.content) if self.content[node] != self.flushed[node])
            for contents in itertools.product(*map(self._may_hold, torn)):
                yield _tree(names, "root", self.content | dict(zip(torn, contents, strict=True)))

    def _may_hold(self, node: str) -> set[bytes]:
        whole, sure = self.content[node], self.flushed[node]
        return {whole, sure, whole[: (len(sure) + len(whole)) // 2], bytes(len(whole))}

    def _change(self, path: tuple[str, ...], node: str | None) -> None:
        folder = self._node(path[:-1])
        self._enter(Change(((folder, path[-1], node),), folder))

    def _enter(self, change: Change) -> None:
        self.pending.append(change)
        _apply(self.names, change)

    def _flush_folder(self, folder: str) -> None:
        waiting = []
        for i, change in enumerate(self.pending):
            if change.folder == folder:
                _apply(self.lasting, change)
                continue
            newer = {entry[:2] for c in self.pending[i + 1:] if c.folder == folder for entry in c.entries}
            left = tuple(entry for entry in change.entries if entry[:2] not in newer)        # what lasts now cannot be undone by what was before
            waiting += [Change(left, change.folder)] if left else []
        self.pending = waiting

    def _node(self, path: tuple[str, ...] | list[str]) -> str:
        node = "root"
        for name in path:
            node = self.names[node, name]
        return node


def after_power_cuts(log: list[Operation]) -> Iterator[tuple[Tree, frozenset[str]]]:
    """(what may be on the disk, what had been said by then) for a cut at any moment of a log, each pair once."""
    model, said, seen = Model(), frozenset[str](), set()
    for operation in log:
        if operation[0] == "said":
            said |= {operation[1]}
        else:
            model.apply(*operation)
        for tree in model.states():
            if (key := (repr(tree), said)) not in seen:
                seen.add(key)
                yield tree, said


def violations(log: list[Operation], check: Callable[[Path, frozenset[str]], None], folder: Path, most: int | None = None) -> tuple[int, list[str]]:
    """(states made, what `check` found wrong in them, `most` at most); check gets the folder a state was made in and what had been said."""
    count, found = 0, []
    for tree, said in after_power_cuts(log):
        place = folder / f"state-{count}"
        materialise(tree, place)
        count += 1
        try:
            check(place, said)
        except AssertionError as error:
            found.append(str(error).partition("\n")[0])
        if len(found) == most:
            break
    return count, found


def materialise(tree: Tree, folder: Path) -> None:
    """Makes a tree on the real disk."""
    folder.mkdir(parents=True)
    for name, below in tree.items():
        if isinstance(below, bytes):
            (folder / name).write_bytes(below)
        else:
            materialise(below, folder / name)


def _subsets(count: int) -> Iterator[tuple[bool, ...]]:
    """Which of `count` changes survived; the last has them all."""
    if count <= MOST_PENDING:
        yield from itertools.product((False, True), repeat=count)
        return
    for rare in (True, False):
        for size in range(FEW, -1, -1):
            for some in itertools.combinations(range(count), size):
                yield tuple((i in some) == rare for i in range(count))


def _apply(names: dict[tuple[str, str], str], change: Change) -> None:
    for folder, name, node in change.entries:
        if node is None:
            names.pop((folder, name), None)
        else:
            names[folder, name] = node


def _tree(names: dict[tuple[str, str], str], node: str, content: dict[str, bytes]) -> Tree | bytes:
    if node in content:
        return content[node]
    return {name: _tree(names, below, content) for (folder, name), below in sorted(names.items()) if folder == node}
