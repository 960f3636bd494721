"""The tree of a YAML text: nodes with their places, merge keys resolved, within limits. Used by `yaml_file`.

Events come from ruamel.yaml; what a plain scalar means is decided here, by YAML 1.2: `1e-4` is a number, `no`, `12:30`
and `2024-01-15` are texts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from diffbench.wording import brief

MAX_DEPTH = 32
MAX_NODES = 50_000
MAX_MERGES = 1_000
INT = re.compile(r"[-+]?(?:0o[0-7_]+|0x[0-9a-fA-F_]+|0b[01_]+|[0-9][0-9_]*)")
FLOAT = re.compile(
    r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+")
INFINITE = re.compile(r"([-+]?)\.(?:inf|Inf|INF)")
WORDS: dict[str, Any] = {**dict.fromkeys(("", "~", "null", "Null", "NULL")),
                         **dict.fromkeys(("true", "True", "TRUE"), True),
                         **dict.fromkeys(("false", "False", "FALSE"), False),
                         **dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)}

Place = tuple[int, int]               # (line, column) from 0


class Refused(Exception):
    """Raised for a text that is no tree within the limits; holds a sentence and the place, where one is known."""

    def __init__(self, message: str, place: Place | None):
        super().__init__(message)
        self.message, self.place = message, place


@dataclass(eq=False)
class Node:
    """One node of the tree. An alias is the same object as the node of its anchor."""

    sort: Literal["scalar", "list", "mapping"]
    place: Place
    value: Any = None                                     # of a scalar
    items: list[Node] = field(default_factory=list)       # of a list
    pairs: list[tuple[Node, Node]] = field(default_factory=list)      # of a mapping, merged ones last
    is_merge: bool = False                                # the scalar <<, not quoted
    is_empty: bool = False                                # a scalar of no letters: nothing stands there
    is_open: bool = True                                  # its end has not been read yet

    def in_words(self) -> str:
        """The sort of the node in words, such as 'a list'."""
        return "a scalar" if self.sort == "scalar" else f"a {self.sort}"


class Tree:
    """Builder of nodes from the events of one document.

    Mistakes that allow reading on are collected with their places.
    """

    def __init__(self) -> None:
        self.mistakes: list[tuple[Place, str]] = []
        self.anchors: dict[str, Node] = {}
        self.nodes = self.merges = 0

    def root(self, events: Iterator[Any]) -> Node | None:
        """The node of the document, or None for an empty text. Raises Refused."""
        from ruamel.yaml import events as yaml_events

        roots: list[Node] = []
        unfinished: list[tuple[Node, list[Node]]] = []    # open lists and mappings, each with its children so far
        for event in events:
            place = (event.start_mark.line, event.start_mark.column) if event.start_mark is not None else (0, 0)
            if isinstance(event, yaml_events.DocumentStartEvent):
                if roots:
                    raise Refused("a second document begins here; a matrix is one document", place)
                if event.version not in (None, (1, 2)):
                    raise Refused(f"a matrix is YAML 1.2: remove '%YAML {'.'.join(map(str, event.version))}'", (0, 0))
            elif isinstance(event, yaml_events.CollectionEndEvent):
                node, children = unfinished.pop()
                self._close(node, children)
            elif isinstance(event, yaml_events.NodeEvent):
                node = self._alias(event.anchor,
                                   place) if isinstance(event, yaml_events.AliasEvent) else self._node(event, place)
                (unfinished[-1][1] if unfinished else roots).append(node)
                if isinstance(event, yaml_events.CollectionStartEvent):
                    unfinished.append((node, []))
                    if len(unfinished) > MAX_DEPTH:
                        raise Refused(f"nested more than {MAX_DEPTH} levels deep", place)
        return roots[0] if roots else None

    def _node(self, event: Any, place: Place) -> Node:
        """The node that an event begins, kept under its anchor; a tag is noted as a mistake."""
        from ruamel.yaml import events

        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} nodes; write fewer", place)
        if event.tag is not None:
            self.mistakes.append(
                (place, f"the tag {brief(str(event.tag))} is refused: a matrix holds plain values only"))
        if isinstance(event, events.ScalarEvent):
            is_plain = not event.style and event.tag is None
            node = Node("scalar", place, self._scalar(event.value, place) if is_plain else event.value,
                        is_merge=is_plain and event.value == "<<",
                        is_empty=is_plain and not event.value, is_open=False)
        else:
            node = Node("list" if isinstance(event, events.SequenceStartEvent) else "mapping", place)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def _alias(self, name: str, place: Place) -> Node:
        if name not in self.anchors:
            raise Refused(f"there is no anchor {brief('&' + name)} before its alias", place)
        if self.anchors[name].is_open:
            raise Refused(f"the alias {brief('*' + name)} stands inside of its own anchor, and so never ends", place)
        return self.anchors[name]

    def _close(self, node: Node, children: list[Node]) -> None:
        """Sets the children of a list or mapping, those of merge keys included."""
        node.is_open = False
        if node.sort == "list":
            node.items = children
            return
        own: dict[str, Node] = {}
        merged: list[Node] = []
        for key, value in zip(children[::2], children[1::2], strict=True):
            if key.sort != "scalar" or not isinstance(key.value, str):
                self.mistakes.append((key.place,
                                      f"a key must be text, got "
                                      f"{brief(key.value) if key.sort == 'scalar' else key.in_words()}"))
            elif key.value in own:
                self.mistakes.append(
                    (key.place, f"duplicate key {brief(key.value)}: it stands in line {own[key.value].place[0] + 1} "
                                "already"))
            else:
                own[key.value] = key
                if key.is_merge:
                    merged = self._merged(value, key.place)
                else:
                    node.pairs.append((key, value))
        names = set(own)
        # the first that has a key wins, and the mapping's own before all
        for source in merged:
            for key, value in source.pairs:
                if key.value not in names:
                    names.add(key.value)
                    node.pairs.append((key, value))

    def _merged(self, node: Node, place: Place) -> list[Node]:
        """The mappings that a merge key adds."""
        sources = node.items if node.sort == "list" else [node]
        self.merges += len(sources)
        if self.merges > MAX_MERGES:
            raise Refused(f"more than {MAX_MERGES} mappings are merged by '<<'; write fewer", place)
        strange = next((source for source in sources if source.sort != "mapping"), None)
        if strange is not None:
            self.mistakes.append((strange.place,
                                  f"'<<' merges a mapping or a list of mappings, got {strange.in_words()}"))
            return []
        self.nodes += sum(len(source.pairs) for source in sources)
        if self.nodes > MAX_NODES:
            raise Refused(f"more than {MAX_NODES} nodes once mappings are merged; write fewer", place)
        return sources

    def _scalar(self, text: str, place: Place) -> Any:
        """The value of a plain scalar."""
        if text in WORDS:
            return WORDS[text]
        if INT.fullmatch(text):
            digits = text.replace("_", "")
            sign, unsigned = (digits[0], digits[1:]) if digits[0] in "+-" else ("", digits)
            base = {"0o": 8, "0x": 16, "0b": 2}.get(unsigned[:2], 10)
            if len(unsigned) > 70 or not unsigned[2 if base != 10 else 0:]:
                return self._odd_number(text, place)
            number = int(sign + (unsigned[2:] if base != 10 else unsigned), base)
            return number if -2**63 <= number < 2**63 else self._odd_number(text, place)
        if FLOAT.fullmatch(text):
            return float(text.replace("_", ""))
        infinite = INFINITE.fullmatch(text)
        return text if infinite is None else -math.inf if infinite[1] == "-" else math.inf

    def _odd_number(self, text: str, place: Place) -> None:
        self.mistakes.append((place, f"the number {brief(text, 40)} is no integer of at most 64 bits"))
