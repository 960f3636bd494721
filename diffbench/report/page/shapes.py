"""Shapes of what the page shows, made by `data` and `pictures`. Used by the template, and as JSON by the page's script.

A configuration is named by its place among the lines of the page's tables. A number that is not known is None.
"""

from __future__ import annotations

from typing import Any, TypedDict


class Facts(TypedDict):
    """A configuration, besides its values."""

    nfe: float
    scale: float | None               # of guidance
    scheduler: str
    trained: bool                     # whether its network was
    cells: list[str]                  # their ids, of all seeds


class Difference(TypedDict):
    """The estimate of a difference with its 95 % interval."""

    difference: float | None
    low: float | None
    high: float | None
    p: float | None                   # Holm's


class Entry(TypedDict):
    """The value of a configuration in a column of quality."""

    value: float | None
    low: float | None
    high: float | None
    seeds: int
    basis: str                        # what the interval rests on
    best: bool
    may: bool                         # whether it cannot be told from the best
    why: str                          # it has no value; '' where it has one
    conventional: float | None
    versus: Difference | None         # to the reference


class Effect(Difference):
    """A level of an axis against the best level."""

    level: str
    nfe: str
    unequal: str                      # 'compares unequal NFE: 19 against 20', or ''
    configurations: int               # over which it is averaged
    may: bool
    sure: bool                        # whether the data can tell the two apart
    worse_by: float | None
    worse_low: float | None
    worse_high: float | None


class Axis(TypedDict):
    """An axis of the matrix in a column of quality."""

    name: str
    best: str
    nfe: str
    effects: list[Effect]             # of the other levels


class Sheet(TypedDict):
    """A column of quality, of rows that compare."""

    id: str
    column: str
    name: str                         # of its quantity
    better: str | None
    title: str
    conventional: str | None          # the name of the other value
    of: str                           # data set and number of samples
    metric: str
    entries: dict[int, Entry]         # by configuration
    best: int | None
    reference: int | None
    is_baseline: bool                 # whether the matrix named the reference
    are_equal: bool
    said: str                         # what the data can tell
    real: list[str]                   # what real images have
    floor: float | None
    axes: list[Axis]


class Column(TypedDict):
    """A column of the table of quality: sheets of one quantity of which no two have a value of one configuration."""

    name: str
    title: str
    better: str | None
    conventional: str | None
    entries: dict[int, Entry]


class Figure(TypedDict):
    """One figure of a timing."""

    value: float | None
    text: str
    noisy: bool


class Cost(TypedDict):
    """The timing of a configuration in a run."""

    c: int                            # the configuration
    run: str
    rate: float                       # images per second
    low: float | None
    high: float | None
    share: float | None               # of the fastest, by the anchor
    noisy: bool
    more: dict[str, Figure]           # by title
    best: bool                        # whether it is the fastest of its run


class Curve(TypedDict):
    """The loss of a training."""

    label: str
    key: str
    steps: list[int]
    loss: list[float]                 # means of the steps since the point before


class Film(TypedDict):
    """A trajectory, whose columns are its frames."""

    label: str
    cell: str
    frames: int
    width: int                        # pixels
    height: int
    uri: str


class Environment(TypedDict):
    """What the numbers of a run depend on."""

    label: str
    facts: dict[str, str]
    packages: dict[str, str]
    matrix: dict[str, Any]            # as its file says
    command: str
    folder: str
