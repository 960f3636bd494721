"""Reader of YAML files that keeps the place of every key and item. Used by `loading` and `selection`.

YAML 1.2 by ruamel.yaml: `1e-4` is a number, duplicate keys are refused, merge keys work. Tags are refused; size, depth
and the number of nodes and letters after aliases are limited before anything is expanded.
"""

from __future__ import annotations

import copy
import errno
import os
import re
import select
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path as FilePath
from typing import Any

from diffbench.errors import MatrixError, Problem
from diffbench.matrix.yaml_tree import MAX_DEPTH, MAX_NODES, Node, Place, Refused, Tree
from diffbench.store.paths import user_path
from diffbench.wording import brief, printable

MAX_BYTES = 256 * 1024
MOST_MISTAKES = 100                   # told at once
MAX_LETTERS = 4 * MAX_BYTES           # of all texts, after aliases
PIPE_SECONDS = 10.0                   # without a word, after which a named pipe is given up
WIDEST = 160                          # letters of a line of the file that a message shows
FOREIGN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")       # no character of YAML
NEWLINE = re.compile("\r\n|[\n\r\x85\u2028\u2029]")       # what the reader of ruamel.yaml counts as the end of a line
SURROGATE = re.compile("[\ud800-\udfff]")
BOMS = {b"\xff\xfe\0\0": "UTF-32", b"\0\0\xfe\xff": "UTF-32", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
ODD_SPACES = {"\xa0": "a no-break space", "\u3000": "an ideographic space", "\u200b": "a zero-width space",
              "\ufeff": "a zero-width no-break space",
              "\u202f": "a narrow no-break space", **dict.fromkeys(map(chr, range(0x2000, 0x200B)),
                                                                   "a typographic space")}

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """The content of a file as plain Python, with the place of every key and item."""

    name: str                                                # as shown in messages
    data: Any
    lines: tuple[str, ...] = ()
    places: dict[Path, Place] = field(default_factory=dict)  # path -> (line, column) from 0, of values
    keys: dict[Path, Place] = field(default_factory=dict)    # the same for keys
    changes: dict[Path, str] = field(default_factory=dict)   # path -> the change of the command line that made what is
                                                             # there

    def render(self, problem: Problem) -> str:
        """A mistake as text: 'matrix.yaml:12:5: axes.scheduler[2]: ...', the line, and a caret below the place."""
        where = dotted(problem.path)
        text = f"{where}: {problem.message}" if where else problem.message
        change = self._change(problem.path)
        if change is not None:
            return f"{change}: {text}"
        below = [name for path, name in self.changes.items() if where and path[:len(problem.path)] == problem.path]
        if below:                                         # a rule between options, one of which was changed
            text += f" (with {', '.join(dict.fromkeys(below))})"
        return located(self.name, self.lines, self._place(problem), text)

    def render_all(self, problems: list[Problem]) -> list[str]:
        """Every mistake once, in the order of the file; mistakes in changes of the command line come last."""
        ordered = sorted(problems, key=lambda p: (self._change(p.path) is not None, self._place(p) or (0, 0)))
        return list(dict.fromkeys(self.render(p) for p in ordered))

    def changed(self, path: Path, value: Any, change: str) -> Document:
        """The document with another value at a path; missing mappings are made. change: as typed, for messages."""
        if not isinstance(self.data, dict):
            return self                                   # its mistake is that it is none
        data = mapping = dict(self.data)
        new_path = None                                       # the first of the path's mappings that was not there
        for depth, part in enumerate(path[:-1], 1):
            below = mapping.get(part)
            if not isinstance(below, dict) and new_path is None:
                new_path = path[:depth]
            mapping[part] = mapping = dict(below) if isinstance(below, dict) else {}
        mapping[path[-1]] = value
        new_path = new_path or path
        other_changes = {old: text for old, text in self.changes.items() if old[:len(new_path)] != new_path}
        return replace(self, data=data, changes={**other_changes, new_path: change})

    def _change(self, path: Path) -> str | None:
        """The change of the command line that set what is at a path, or None."""
        return (next((self.changes[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.changes), None)
                if self.changes else None)

    def _place(self, problem: Problem) -> Place | None:
        """The deepest known place on the path to a problem."""
        for end in range(len(problem.path), 0, -1):
            path = problem.path[:end]
            table = self.keys if problem.on_key and end == len(problem.path) else self.places
            if path in table:
                return table[path]
        return (0, 0) if self.lines else None


def located(name: str, lines: tuple[str, ...], place: Place | None, text: str) -> str:
    """'NAME:LINE:COLUMN: text', the line and a caret. A character in it that only looks like a space is named."""
    if place is None:
        return f"{name}: {text}"
    line, column = place
    full = lines[line] if line < len(lines) else ""
    odd = next((i for i, letter in enumerate(full) if letter in ODD_SPACES), None)
    if odd is not None:
        text += (f"; column {odd + 1} of this line holds {ODD_SPACES[full[odd]]} (U+{ord(full[odd]):04X}), which is no "
                 "space to YAML")
    start = max(0, column - WIDEST // 2) if len(full) > WIDEST else 0
    excerpt, before = full[start:start + WIDEST], full[start:column]
    dots = "..." if start else ""
    caret = " " * len(dots + printable(before))
    more = "..." if start + WIDEST < len(full) else ""
    return f"{name}:{line + 1}:{column + 1}: {text}\n    {dots}{printable(excerpt)}{more}\n    {caret}^"


def read(path: str | FilePath) -> Document:
    """The document in a file; raises MatrixError with the reason and the place where it cannot be read."""
    if str(path) == "-":
        raise MatrixError(["-: a matrix is read from a file; where it comes from another program, name /dev/stdin"])
    try:
        raw = _head(user_path(path))
    except (OSError, ValueError) as error:                # ValueError: a path with a NUL
        raise MatrixError([f"{path}: the file cannot be read: {getattr(error, 'strerror', None) or error}"]) from None
    if len(raw) > MAX_BYTES:
        raise MatrixError([f"{path}: the file has more than {MAX_BYTES} bytes, which is what a matrix may have"])
    encoding = next((name for mark, name in BOMS.items() if raw.startswith(mark)),
                    "UTF-16" if raw[1:2] == b"\0" or raw[:1] == b"\0" != raw[1:2] else None)
    if encoding is not None:
        raise MatrixError([f"{path}: the file is not UTF-8 text but seems to be {encoding}, as some editors and shells "
                           "of Windows write it; save it as UTF-8"])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MatrixError([f"{path}: the file is not UTF-8 text (byte {error.start})"]) from None
    return parse(text, str(path))


def parse(text: str, name: str = "matrix.yaml") -> Document:
    """The document in a text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    lines = tuple(NEWLINE.split(text))
    foreign = FOREIGN.search(text)
    if foreign is not None:
        before = NEWLINE.split(text[:foreign.start()])
        message = (f"the character U+{ord(foreign[0]):04X} may not stand in YAML; in double quotes it is written as an "
                   "escape")
        raise MatrixError([located(name, lines, (len(before) - 1, len(before[-1])), message)])
    tree = Tree()
    try:
        root = tree.root(YAML(typ="safe", pure=True).parse(text))
    except Refused as error:
        raise MatrixError([located(name, lines, error.place, error.message)]) from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(error.problem or error.context or error).split())
        place = None if mark is None else (mark.line, mark.column)
        raise MatrixError([located(name, lines, place, f"this is not YAML: {message}")]) from None
    except (YAMLError, ValueError, OverflowError, RecursionError) as error:
        raise MatrixError([f"{name}: this cannot be read as YAML: {type(error).__name__}: "
                           f"{' '.join(str(error).split())[:200]}"]) from None
    if tree.mistakes:
        raise MatrixError([located(name, lines, place, message)
                           for place, message in sorted(tree.mistakes)[:MOST_MISTAKES]])
    try:
        expansion = _Expansion()
        data = None if root is None else expansion.plain(root, (), 0)
    except Refused as error:
        raise MatrixError([located(name, lines, error.place, error.message)]) from None
    return Document(name, data, lines, expansion.places, expansion.keys)


def copied(data: Any, name: str = "matrix") -> Document:
    """The document of a mapping made in Python: within the same limits, values of other types unchanged."""
    try:
        return Document(name, _Expansion().copy(data, (), 0))
    except Refused as error:
        raise MatrixError([f"{name}: {error.message}"]) from None


class _Expansion:
    """Conversion of a tree to plain Python, with aliases expanded, within limits; notes the places."""

    def __init__(self) -> None:
        self.places: dict[Path, Place] = {}
        self.keys: dict[Path, Place] = {}
        self.nodes = self.letters = 0

    def plain(self, node: Node, path: Path, depth: int) -> Any:
        """The content of a node."""
        self._count(node.value, path, depth, node.place)
        if node.sort == "mapping":
            result = {}
            for key, value in node.pairs:
                below = (*path, key.value)
                self.keys[below], self.places[below] = key.place, key.place if value.is_empty else value.place
                result[key.value] = self.plain(value, below, depth + 1)
            return result
        if node.sort == "list":
            for index, item in enumerate(node.items):
                self.places[(*path, index)] = item.place
            return [self.plain(item, (*path, index), depth + 1) for index, item in enumerate(node.items)]
        return node.value

    def copy(self, value: Any, path: Path, depth: int) -> Any:
        """A copy of a value made in Python, within the same limits."""
        self._count(value, path, depth, None)
        if isinstance(value, Mapping):
            strange = next((key for key in value if not isinstance(key, str)), None)
            if strange is not None:
                raise Refused(f"{dotted(path)}: a key must be text, got {brief(strange)}", None)
            return {key: self.copy(below, (*path, key), depth + 1) for key, below in value.items()}
        if isinstance(value, list | tuple):
            items = [self.copy(item, (*path, index), depth + 1) for index, item in enumerate(value)]
            return items if isinstance(value, list) else tuple(items)
        if isinstance(value, int) and not -2**63 <= value < 2**63:
            raise Refused(f"{dotted(path)}: the number {brief(value)} is no integer of at most 64 bits", None)
        return copy.deepcopy(value)

    def _count(self, value: Any, path: Path, depth: int, place: Place | None) -> None:
        self.nodes, self.letters = self.nodes + 1, self.letters + (len(value) if isinstance(value, str) else 0)
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} nodes after aliases are expanded; write the file without them", place)
        if self.letters > MAX_LETTERS:
            raise Refused(f"more than {MAX_LETTERS} letters after aliases are expanded; write the file without them",
                          place)
        if isinstance(value, str) and not value.isascii() and SURROGATE.search(value):
            raise Refused(f"{dotted(path)}: the text {brief(value)} holds half of a character (a lone surrogate)",
                          place)
        if depth > MAX_DEPTH:
            raise Refused(f"nested more than {MAX_DEPTH} levels deep at {dotted(path)}", place)


def dotted(path: Path) -> str:
    """A path as text, such as axes.scheduler[2].ddim.steps; cut in the middle where it is long."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text if len(text) <= WIDEST else f"{text[:WIDEST // 2]}...{text[-WIDEST // 2:]}"


def _head(path: FilePath) -> bytes:
    """The first bytes of a file, one more than a matrix may have. A pipe is given up after PIPE_SECONDS of silence."""
    # without it, opening such a pipe would never end
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with open(descriptor, "rb", buffering=0) as file:
        if file.isatty():
            raise OSError(errno.EINVAL, "it is a terminal; write the matrix into a file")
        is_pipe, content = stat.S_ISFIFO(os.fstat(descriptor).st_mode), b""
        while len(content) <= MAX_BYTES:
            poll = select.poll() if is_pipe else None
            if poll is not None:
                poll.register(file, select.POLLIN)
                if not poll.poll(PIPE_SECONDS * 1000):
                    raise OSError(errno.ETIMEDOUT, "it is a pipe, and nothing was written into it for "
                                                   f"{PIPE_SECONDS:g} s")
            part = file.read(MAX_BYTES + 1 - len(content))
            if part == b"":
                break
            content += part or b""
    return content
