"""Reading a YAML file safely, and remembering where everything stands in it.

YAML 1.2 by ruamel.yaml: `1e-4` is a number, duplicate keys are refused. Tags are refused; size, depth and the number of
nodes after aliases are limited before anything is expanded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench.errors import MatrixError, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32
MAX_NODES = 100_000
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null")}


@dataclass(frozen=True)
class Document:
    """The content as plain Python, with the place of every key and item."""

    name: str                                             # as shown in messages
    data: Any
    lines: tuple[str, ...] = ()
    places: dict[tuple[str | int, ...], tuple[int, int]] | None = None     # path -> (line, column) from 0, of values
    keys: dict[tuple[str | int, ...], tuple[int, int]] | None = None       # the same for keys

    def render(self, problem: Problem) -> str:
        """'matrix.yaml:12:5: axes.scheduler[2]: ...', the line, and a caret under the place."""
        where = dotted(problem.path)
        text = f"{where}: {problem.message}" if where else problem.message
        place = self._place(problem)
        if place is None:
            return f"{self.name}: {text}"
        line, column = place
        shown = self.lines[line] if line < len(self.lines) else ""
        return f"{self.name}:{line + 1}:{column + 1}: {text}\n    {shown}\n    {' ' * column}^"

    def render_all(self, problems: list[Problem]) -> list[str]:
        """Every problem once, in the order of the file."""
        ordered = sorted(problems, key=lambda p: self._place(p) or (0, 0))
        return list(dict.fromkeys(self.render(p) for p in ordered))

    def _place(self, problem: Problem) -> tuple[int, int] | None:
        """The deepest known place on the path to a problem."""
        for end in range(len(problem.path), 0, -1):
            path = problem.path[:end]
            table = self.keys if problem.on_key and end == len(problem.path) else self.places
            if table and path in table:
                return table[path]
        return (0, 0) if self.lines else None


def read(path: str | Path) -> Document:
    """The document in a file; every reason it cannot be read is a MatrixError that says where."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MatrixError([f"{path}: the file cannot be read: {error.strerror or error}"]) from None
    if len(raw) > MAX_BYTES:
        raise MatrixError([f"{path}: the file has {len(raw)} bytes; a matrix may have {MAX_BYTES}"])
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise MatrixError([f"{path}: the file is not UTF-8 text (byte {error.start})"]) from None
    return parse(text, str(path))


def parse(text: str, name: str = "matrix.yaml") -> Document:
    """The document in a text."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    lines = tuple(text.splitlines())
    try:
        tree = YAML(typ="rt", pure=True).load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = " ".join(str(error.problem or error.context or error).split())
        if mark is None:
            raise MatrixError([f"{name}: this is not YAML: {message}"]) from None
        shown = lines[mark.line] if mark.line < len(lines) else ""
        raise MatrixError([f"{name}:{mark.line + 1}:{mark.column + 1}: this is not YAML: {message}\n    {shown}\n    {' ' * mark.column}^"]) from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise MatrixError([f"{name}: this cannot be read as YAML: {type(error).__name__}: {' '.join(str(error).split())[:200]}"]) from None
    walker = _Walker(name, lines)
    data = walker.plain(tree, (), 0)
    document = Document(name, data, lines, walker.places, walker.keys)
    if walker.problems:
        raise MatrixError(document.render_all(walker.problems))
    return document


class _Walker:
    """Copies ruamel's tree into plain Python within limits, noting places and refusing tags."""

    def __init__(self, name: str, lines: tuple[str, ...]):
        self.name, self.lines = name, lines
        self.places: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.keys: dict[tuple[str | int, ...], tuple[int, int]] = {}
        self.problems: list[Problem] = []
        self.nodes = 0

    def plain(self, node: Any, path: tuple[str | int, ...], depth: int) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise MatrixError([f"{self.name}: more than {MAX_NODES} nodes after aliases are expanded; write the file without them"])
        if depth > MAX_DEPTH:
            raise MatrixError([f"{self.name}: nested more than {MAX_DEPTH} levels deep at {dotted(path)}"])
        tag = getattr(getattr(node, "tag", None), "value", None)
        if tag is not None and str(tag) not in PLAIN_TAGS:
            self.problems.append(Problem(path, f"the tag {tag!r} is refused: a matrix holds plain values only"))
            return None
        if isinstance(node, dict):
            result = {}
            for key, value in node.items():
                name = str(key)
                below = (*path, name)
                self.keys[below] = tuple(node.lc.key(key))
                self.places[below] = tuple(node.lc.value(key))
                if not isinstance(key, str):
                    self.problems.append(Problem(below, f"a key must be text, got {key!r}", on_key=True))
                result[name] = self.plain(value, below, depth + 1)
            return result
        if isinstance(node, list):
            for index in range(len(node)):
                self.places[(*path, index)] = tuple(node.lc.item(index))
            return [self.plain(value, (*path, index), depth + 1) for index, value in enumerate(node)]
        return _scalar(node)


def dotted(path: tuple[str | int, ...]) -> str:
    """axes.scheduler[2].ddim.steps"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _scalar(node: Any) -> Any:
    """ruamel's numbers and texts as Python's own."""
    for kind in (bool, int, str):
        if isinstance(node, kind):
            return kind(node)
    if isinstance(node, float):
        return float(node) if not math.isnan(node) else math.nan
    return node
