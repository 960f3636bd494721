"""Effects of the levels of each axis, all else and the seeds being equal, with intervals. Used by the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas

from diffbench.report.layout import in_words
from diffbench.report.notebook_files import module
from diffbench.results import nfe
from diffbench.results.quantity import Quantity, known
from diffbench.stats.numbers_of_rows import Number, Seeds, averaged, differences
from diffbench.stats.over_seeds import Estimate, estimate, holm, may_be_best

Level = str                           # 'ddim, steps 20'
Rest = tuple[str, ...]                # levels of all other axes


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One level against the best of its axis."""

    level: Level
    configurations: int          # in which both were measured, by which the difference is averaged
    difference: Estimate | None  # level minus best; None where they have no configuration or no seed in common
    nfe: tuple[float, ...]       # network evaluations of the level, in all its configurations
    unequal_nfe: str             # 'compares unequal NFE: 19 against 20'; '' where it and the best have equal ones,
                                 # configuration by configuration
    p: float                     # Holm's, over all comparisons of all axes; NaN where nothing is known of the error
    may_be_best: bool            # whether the data cannot tell it from the best; False where there is no difference


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis of a matrix in one column of quality."""

    name: str                         # 'scheduler', 'train', ...
    best: Level
    nfe: tuple[float, ...]            # network evaluations of the best level
    effects: tuple[Effect, ...]       # of the others, the best of them first


def axes(
    rows: pandas.DataFrame, quantity: Quantity, better: str, records: Mapping[str, Mapping[str, Any]]
) -> list[Axis]:
    """Every axis in which rows that compare differ.

    rows: of trained networks, all with the quantity; better: "lower" or "higher"; records: by cell id, for their
    left-out values. Differences are averaged over configurations for each seed first, for these share its noise. The
    best level is the best by its mean difference to the level that most rows have.
    """
    words = module("paired").levels(in_words(rows))
    if words.columns.empty:
        return []
    numbers: dict[tuple[str, Level], dict[Rest, dict[Seeds, Number]]] = {}
    evaluations: dict[tuple[str, Level], dict[Rest, float]] = {}
    for cell_id, seed, noise, row in zip(rows["cell_id"], rows["seed"], rows["noise_seed"].fillna(rows["seed"]),
                                         words.to_dict("records"), strict=True):
        number = quantity.number(records[cell_id])
        for axis, level in row.items() if number is not None else ():
            rest = tuple(value for other, value in row.items() if other != axis)
            evaluations.setdefault((axis, level), {})[rest] = known(records[cell_id], "nfe")
            numbers.setdefault((axis, level), {}).setdefault(rest, {})[Seeds(int(seed), int(noise))] = number
    compared = [_compared(axis, [str(level) for level in words[axis].value_counts(sort=True).index], numbers, better)
                for axis in words]
    of_all = {(name, level): d for name, _, differing in compared for level, (_, d) in differing.items()
              if d is not None}
    adjusted = dict(zip(of_all, holm([d.p for d in of_all.values()]), strict=True))
    return [_axis(name, best, differing, adjusted, better, evaluations) for name, best, differing in compared]


def _compared(axis: str, levels: list[Level], numbers: Mapping[tuple[str, Level],
                                                               Mapping[Rest, Mapping[Seeds, Number]]],
              better: str) -> tuple[str, Level, dict[Level, tuple[int, Estimate | None]]]:
    """(axis, its best level, the others' differences to it)."""
    def against(reference: Level) -> dict[Level, tuple[int, Estimate | None]]:
        return {level: _difference(numbers[axis, reference], numbers[axis, level]) for level in levels
                if level != reference}

    to_common = against(levels[0])
    sign = 1 if better == "lower" else -1
    best = min(levels, key=lambda level: 0.0 if level == levels[0]
               else sign * d.debiased if (d := to_common[level][1]) is not None else float("inf"))
    return axis, best, to_common if best == levels[0] else against(best)


def _difference(a: Mapping[Rest, Mapping[Seeds, Number]], b: Mapping[Rest, Mapping[Seeds, Number]]) -> tuple[
        int, Estimate | None]:
    """(configurations that both have, the mean of b - a over them)."""
    paired = [by_seed for rest in a if rest in b and (by_seed := differences(a[rest], b[rest]))]
    mean = averaged(paired)
    return len(paired), estimate(mean) if mean else None


def _axis(
    name: str,
    best: Level,
    differing: Mapping[Level, tuple[int, Estimate | None]],
    adjusted: Mapping[tuple[str, Level], float],
    better: str,
    evaluations: Mapping[tuple[str, Level], Mapping[Rest, float]],
) -> Axis:
    compared = [level for level, (_, d) in differing.items() if d is not None]
    may = dict(
        zip(compared, may_be_best([d for _, d in differing.values() if d is not None], better == "higher"), strict=True)
    )
    sign, of_best = 1 if better == "lower" else -1, evaluations[name, best]
    effects = [
        Effect(
            level=level,
            configurations=count,
            difference=d,
            nfe=tuple(evaluations[name, level].values()),
            p=adjusted.get((name, level), float("nan")),
            unequal_nfe=nfe.unequal(
                [(own, of_best[rest]) for rest, own in evaluations[name, level].items() if rest in of_best]
            ),
            may_be_best=may.get(level, False),
        )
        for level, (count, d) in differing.items()
    ]
    return Axis(
        name=name,
        best=best,
        nfe=tuple(of_best.values()),
        effects=tuple(sorted(effects, key=lambda e: sign * e.difference.debiased if e.difference else float("inf"))),
    )
