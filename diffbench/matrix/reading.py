"""Reader of specs of components: `ddim` or `ddim: {steps: [10, 50]}` become components. Used by `expansion`.

Every mistake is collected with its path, none stops the search for the next.
"""

from __future__ import annotations

import math
from dataclasses import MISSING, fields
from typing import Any

from diffbench.contracts.options import (
    Options,
    as_many,
    check_value,
    grid,
    hint,
    is_many,
    is_of,
    plain,
    sentence,
    unknown_option,
    with_preset,
)
from diffbench.errors import DiffbenchError, OptionError, Problem
from diffbench.registry.registry import Registry
from diffbench.wording import brief

MAX_PROBLEMS = 100                    # reported at once
MAX_CELLS = 10_000                    # of a matrix, unless told otherwise
COMPONENTS_PER_CELL = 5               # that the lists and grids of a matrix may name
Path = tuple[str | int, ...]


class TooManyProblems(Exception):
    """Raised where a matrix has so many mistakes that no more are looked for."""


class Reader:
    """Reader of plain data that makes components and settings and collects mistakes.

    max_cells: the most that a matrix may have.
    """

    def __init__(self, registry: Registry, max_cells: int = MAX_CELLS):
        self.registry = registry
        self.max_points = max(max_cells, MAX_CELLS)       # points of one grid of options
        self.problems: list[Problem] = []
        self.component_count = 0                          # components made, those inside of others included

    def fault(self, path: Path, message: str, *, on_key: bool = False) -> None:
        """Notes a mistake; raises TooManyProblems where it is the last one that is reported."""
        self.problems.append(Problem(path, message, on_key))
        if len(self.problems) >= MAX_PROBLEMS:
            raise TooManyProblems

    def components(self, kind: str, node: Any, path: Path) -> list[Any]:
        """The components of one spec: one, or one for each point of its grid; none where the spec is wrong."""
        from diffbench.contracts.component import Component

        if isinstance(node, Component):                   # from Python, already built
            return [node]
        spaced = kind.replace("_", " ")
        if isinstance(node, str):
            name, options, below = node, {}, path
        elif isinstance(node, dict) and len(node) == 1:
            (name, options), = node.items()
            below = (*path, name)
        else:
            got = "nothing" if node is None else brief(node)
            if isinstance(node, dict) and node:
                got = f"{len(node)} names at once ({', '.join([*node][:8])}); write each as its own list item"
            self.fault(path, f"a {spaced} is written as a name or as 'name: {{option: value}}', got {got}")
            return []
        try:
            ref = self.registry.find(kind, name)
            cls = self.registry.load(ref)
        except DiffbenchError as error:
            self.fault(below, str(error), on_key=below != path)
            return []
        if options is None:
            options = {}
        if not isinstance(options, dict):
            self.fault(below, f"the options of {ref.full_name} are written as {{option: value}}, got {brief(options)}")
            return []
        return self._configured(ref.full_name, cls, options, below)

    def settings(self, cls: type[Options], name: str, node: Any, path: Path, instead: str = "") -> Options:
        """One block of settings, such as `train`; defaults where it is wrong. instead: other values, for messages."""
        if node is None:
            return cls()
        if not isinstance(node, dict):
            self.fault(path, f"'{name}' is written as {{option: value}}{instead}, got {brief(node)}")
            return cls()
        good = {}
        for option, value in node.items():
            if self._option_exists(f"'{name}'", cls, option, (*path, option)):
                good.update(self.value(cls, option, value, (*path, option)))
        try:
            return cls(**good)
        except OptionError as error:                      # a rule between options
            self.fault(path, f"'{name}': {error}")
            return cls()

    def value(self, cls: type[Options], option: str, value: Any, path: Path) -> dict[str, Any]:
        """{option: value} where the value is accepted; else an empty mapping, and a mistake is noted."""
        plain_value = as_many(cls, option, plain(value))
        if check_value(cls, option, plain_value) is not None:
            self.fault(path, sentence(cls, option, plain(value)))
            return {}
        return {option: plain_value}

    def _configured(self, owner: str, cls: type, options: dict[str, Any], path: Path) -> list[Any]:
        if isinstance(options.get("preset"), list):       # a grid of presets
            if not options["preset"]:
                self.fault((*path, "preset"), "'preset' has an empty list: name at least one value")
            return [component for name in options["preset"]
                    for component in self._configured(owner, cls, {**options, "preset": name}, path)]
        try:
            options = with_preset(owner, cls, options)
        except OptionError as error:
            self.fault((*path, "preset"), str(error))
            return []
        before = len(self.problems)
        choices: dict[str, list[Any]] = {}
        for option, node in options.items():
            if self._option_exists(owner, cls, option, (*path, option)):
                choices[option] = self._choices(cls, option, node, (*path, option))
        for f in fields(cls):
            if f.default is MISSING and f.name not in options:
                self.fault(path, f"{owner} needs the option '{f.name}'")
        if len(self.problems) > before:
            return []
        if not self._has_room(owner, choices, path):
            return []
        components = []
        for options_of_point in grid(choices):
            try:
                components.append(cls(**options_of_point))
            except OptionError as error:                  # a rule between options
                self.fault(path, f"{owner}: {error}")
        return components

    def _choices(self, cls: type, option: str, node: Any, path: Path) -> list[Any]:
        """The values of an option.

        A list is a grid; the grid of an option that itself holds a list is a list of lists.
        """
        from diffbench.contracts.component import Component

        type_hint = hint(cls, option)
        nested = type_hint.kind if is_of(type_hint, Component) else None
        is_grid = isinstance(node, list) and (not is_many(cls, option) or any(isinstance(v, list) for v in node))
        items = [(value, (*path, i)) for i, value in enumerate(node)] if is_grid else [(node, path)]
        if not items:
            self.fault(path, f"'{option}' has an empty list: name at least one value")
        values: list[Any] = []
        for value, item_path in items:
            if nested:
                values += self.components(nested, value, item_path)
            else:
                values += self.value(cls, option, value, item_path).values()
        return values

    def _has_room(self, owner: str, choices: dict[str, list[Any]], path: Path) -> bool:
        """Whether a grid is within the limits.

        It is counted before it is made, with the earlier ones of this matrix.
        """
        size = math.prod(map(len, choices.values()))
        if size > self.max_points:
            lengths = " x ".join(f"{len(values)} {option}" for option, values in choices.items() if len(values) > 1)
            self.fault(path, f"the grid of the options of {owner} has {size} points ({lengths}), and {self.max_points} "
                             "are allowed; --max-cells raises the limit")
            return False
        self.component_count += size
        if self.component_count > COMPONENTS_PER_CELL * self.max_points:
            self.fault(path, f"the lists and grids up to here name more than {COMPONENTS_PER_CELL * self.max_points} "
                             "components; name fewer, or raise the limit with --max-cells")
            raise TooManyProblems
        return True

    def _option_exists(self, owner: str, cls: type[Options], option: str, path: Path) -> bool:
        exists = any(f.name == option for f in fields(cls))
        if not exists:
            self.fault(path, unknown_option(owner, cls, option), on_key=True)
        return exists
