"""What each level of an axis changes, everything else and the seeds being equal: which component wins, by how much, and whether the data can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas

from diffbench.comparing import Estimate, Number, Seeds, averaged, differences, estimate, holm, may_be_best, number_of
from diffbench.report.notebook_files import module

Level = str                           # 'ddim, steps 20'
Rest = tuple[str, ...]                # levels of all other axes


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One level against the best of its axis."""

    level: Level
    configurations: int               # in which both were measured, by which the difference is averaged
    difference: Estimate | None       # level minus best; None where they have no configuration or no seed in common
    p: float                          # Holm's, over all comparisons of all axes; NaN where nothing is known of the error
    may_be_best: bool                 # whether the data cannot tell it from the best; False where there is no difference


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a matrix in one column of quality."""

    name: str                         # 'scheduler', 'train', ...
    best: Level
    effects: tuple[Effect, ...]       # of the others, the best of them first


def axes(rows: pandas.DataFrame, column: str, better: str, records: Mapping[str, Mapping[str, Any]]) -> list[Axis]:
    """Every axis in which rows that compare differ.

    rows: of trained networks, all with a value of the column; better: "lower" or "higher"; records: by cell id, for their left-out values.
    Differences are averaged over configurations for each seed first, for these share its noise. The best level is the best by its mean difference
    to the level that most rows have.
    """
    words = module("paired").levels(rows)
    numbers: dict[tuple[str, Level], dict[Rest, dict[Seeds, Number]]] = {}
    for cell_id, seed, noise, row in zip(rows["cell_id"], rows["seed"], rows["noise_seed"].fillna(rows["seed"]), words.to_dict("records"), strict=True):
        number = number_of(records[cell_id], column)
        for axis, level in row.items():
            rest = tuple(value for other, value in row.items() if other != axis)
            numbers.setdefault((axis, level), {}).setdefault(rest, {})[Seeds(int(seed), int(noise))] = number
    found = [_compared(axis, [str(level) for level in words[axis].value_counts(sort=True).index], numbers, better) for axis in words]
    known = [(axis, level) for axis, _, differing in found for level, (_, d) in differing.items() if d is not None]
    of_all = {(name, level): d for name, _, differing in found for level, (_, d) in differing.items() if d is not None}
    adjusted = dict(zip(known, holm([of_all[which].p for which in known]), strict=True))
    return [_axis(name, best, differing, adjusted, better) for name, best, differing in found]


def _compared(axis: str, levels: list[Level], numbers: Mapping[tuple[str, Level], Mapping[Rest, Mapping[Seeds, Number]]],
              better: str) -> tuple[str, Level, dict[Level, tuple[int, Estimate | None]]]:
    """(axis, its best level, the others' differences to it)."""
    def against(reference: Level) -> dict[Level, tuple[int, Estimate | None]]:
        return {level: _difference(numbers[axis, reference], numbers[axis, level]) for level in levels if level != reference}

    to_common = against(levels[0])
    sign = 1 if better == "lower" else -1
    best = min(levels, key=lambda level: 0.0 if level == levels[0] else sign * d.debiased if (d := to_common[level][1]) is not None else float("inf"))
    return axis, best, to_common if best == levels[0] else against(best)


def _difference(a: Mapping[Rest, Mapping[Seeds, Number]], b: Mapping[Rest, Mapping[Seeds, Number]]) -> tuple[int, Estimate | None]:
    """(configurations that both have, the mean of b - a over them)."""
    paired = [found for rest in a if rest in b and (found := differences(a[rest], b[rest]))]
    mean = averaged(paired)
    return len(paired), estimate(mean) if mean else None


def _axis(name: str, best: Level, differing: Mapping[Level, tuple[int, Estimate | None]], adjusted: Mapping[tuple[str, Level], float], better: str) -> Axis:
    known = [level for level, (_, d) in differing.items() if d is not None]
    told = dict(zip(known, may_be_best([d for _, d in differing.values() if d is not None], better == "higher"), strict=True))
    sign = 1 if better == "lower" else -1
    effects = [Effect(level=level, configurations=count, difference=d, p=adjusted.get((name, level), float("nan")), may_be_best=told.get(level, False))
               for level, (count, d) in differing.items()]
    return Axis(name=name, best=best, effects=tuple(sorted(effects, key=lambda e: sign * e.difference.debiased if e.difference else float("inf"))))
