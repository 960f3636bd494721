"""Two sides of a comparison: rows of one run, or of two, paired where they agree in all but what is compared.
Needs results only, no registry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from diffbench.errors import DiffbenchError
from diffbench.matrix import selection
from diffbench.matrix.selection import SEEDS, Named
from diffbench.results import columns, nfe, speed_columns
from diffbench.results.folder import RunFolder
from diffbench.results.quantity import Quantity, known, quantity_of, reason_of
from diffbench.results.records import without_nan
from diffbench.stats.numbers_of_rows import Number, Seeds, averaged, differences
from diffbench.stats.over_seeds import Estimate, estimate, holm

LEVEL = 0.05                          # p below this is called significant
LABELS = "sample.labels"              # the classes that samples are asked for
ENVIRONMENT = ("device", "dtype", "threads", "torch", "diffbench")            # columns that may change bits

Pair = tuple["Row", "Row"]


class Row(NamedTuple):
    """One cell of a run that is ok."""

    cell_id: str
    made_of: Named                    # all its components, options and seeds
    record: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """B minus A in one column of quality."""

    column: str
    quantity: Quantity                # which of a column's two values `a`, `b` and the estimate are of
    better: str | None                # "lower", "higher", or None for a flag, of which neither way is a loss
    a: float                          # means over the seeds that both sides have, never the best of them
    b: float
    conventional: tuple[float, float] | None              # these means of the other value; None where there is none
    by_seed: Mapping[Seeds, float]
    estimate: Estimate                # of the mean difference: interval, p and what could be resolved
    p: float                          # Holm's, over the columns compared; NaN where nothing is known of the error

    @property
    def is_worse(self) -> bool:
        """Whether B is significantly worse than A."""
        return self.p < LEVEL and self.better is not None and (self.estimate.debiased < 0) == (self.better == "higher")

    @property
    def verdict(self) -> str:
        """In words."""
        if math.isnan(self.p):
            return "no interval"
        if self.p >= LEVEL:
            return "cannot tell"
        return "differs" if self.better is None else "B is worse" if self.is_worse else "B is better"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """B over A in one column of cost: medians over pairs.
    It has no p: another start of the same program is not in its laps.
    """

    column: str
    a: float
    b: float
    ratio: float
    is_noisy: bool                    # a timing behind it is flagged; never of memory, which no load changes


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sides, column by column."""

    a: str
    b: str
    pairs: int
    differences: tuple[Difference, ...]
    ratios: tuple[Ratio, ...]
    notes: tuple[str, ...]            # what differs between the sides, what is not compared and why

    def as_json(self) -> dict[str, Any]:
        """For programs; a number that is not known is null."""
        qualities = [{"column": d.column, "quantity": d.quantity.name, "better": d.better, "a": d.a, "b": d.b,
                  "conventional": None if d.conventional is None else list(d.conventional),
                  "difference": d.estimate.debiased, "low": d.estimate.low, "high": d.estimate.high,
                  "p_holm": d.p, "resolvable_at_80": d.estimate.resolvable, "basis": d.estimate.basis,
                  "verdict": d.verdict, "is_worse": d.is_worse,
                  "by_seed": [{"training": s.training, "sampling": s.sampling, "difference": v}
                              for s, v in d.by_seed.items()]} for d in self.differences]
        ratios = [{"column": r.column, "a": r.a, "b": r.b, "ratio": r.ratio, "is_noisy": r.is_noisy}
                  for r in self.ratios]
        return without_nan({"a": self.a, "b": self.b, "pairs": self.pairs, "notes": list(self.notes),
                            "differences": qualities, "ratios": ratios})


class ComparedRun(RunFolder):
    """A folder of results and the rows that can be named in it.
    Raises DiffbenchError where the folder holds no results.
    """

    def __init__(self, folder: str | Path):
        super().__init__(folder)
        if not (self.folder / columns.RECORDS).is_dir():
            raise DiffbenchError(f"{folder} holds no results of a run: there is no {columns.RECORDS}/ in it")
        _ = self.columns                                  # refused here, not when they are asked for
        self.machine, made_of = self.environment.get("machine"), self.made_of()
        self.named = [Row(cell_id, made_of[cell_id], record) for cell_id, record in self.records.items()
                      if cell_id in made_of]

    def chosen(self, text: str) -> list[Row]:
        """The rows that are ok among those a cell id, its beginning,
        or conditions such as 'scheduler=ddim,steps=50' name; raises DiffbenchError for none.
        """
        if "=" in text:
            rows = [self.named[i] for i in selection.select([row.made_of for row in self.named], text)]
        else:
            rows = [row for row in self.named if row.cell_id.startswith(text)]
            if len(rows) > 1:
                ids = ", ".join(row.cell_id for row in rows[:5])
                raise DiffbenchError(f"{text!r} begins the ids of {len(rows)} cells of {self.folder}: {ids}; write "
                                     "more of it")
            if not rows:
                raise DiffbenchError(f"no cell of {self.folder} is {text!r}: write a cell_id of results.csv or its "
                                     f"beginning, or conditions such as scheduler=ddim,steps=50")
        return _ok(rows, text, self)

    def all(self) -> list[Row]:
        """All rows that are ok."""
        return _ok(self.named, "all", self)


def compare(run: ComparedRun, a: str, b: str, *, only: Sequence[str] = ()) -> Comparison:
    """Two sides of one run, each a cell id, its beginning, or conditions. only: the columns to compare, by default all.
    """
    return _compare(a, b, run, run, run.chosen(a), run.chosen(b), only)


def compare_runs(run: ComparedRun, other: ComparedRun, *, only: Sequence[str] = ()) -> Comparison:
    """All cells that two runs have in common: B is `other`, A is `run`."""
    return _compare(str(run.folder), str(other.folder), run, other, run.all(), other.all(), only)


def _compare(a: str, b: str, run: ComparedRun, other: ComparedRun, rows_a: list[Row], rows_b: list[Row],
             only: Sequence[str]) -> Comparison:
    pairs, factors = paired(rows_a, rows_b)
    if run is other and not factors:
        raise DiffbenchError(f"{a!r} and {b!r} name the same cells, or several values of what is compared: give each "
                             "side one value of it")
    notes = [f"compared: {', '.join(factors)}"] if factors else []
    if all(x.record.get("train_key") == y.record.get("train_key") is not None for x, y in pairs):
        notes.append("both sides share their trained networks: what differs is sampling alone")
    alone = len(rows_a) - len(pairs), len(rows_b) - len(pairs)
    if any(alone):
        notes.append(f"without a partner, and left out: {alone[0]} rows of A, {alone[1]} of B")
    notes += _unequal(pairs)
    changed = _differing(pairs, ENVIRONMENT)
    if changed:
        notes.append(f"not comparable to the bit: {', '.join(changed)} differ between the sides")
    meaning = run.columns | other.columns
    unknown = [c for c in only if c not in meaning and c not in speed_columns.BETTER]
    if unknown:
        raise DiffbenchError(f"{', '.join(unknown)}: no column to compare; there are "
                             f"{', '.join([*meaning, *speed_columns.BETTER])}")
    qualities, refused = _qualities(pairs, {c: facts for c, facts in meaning.items() if not only or c in only})
    notes += filter(None, (_without_interval(pairs, d.quantity) for d in qualities))
    costs = [c for c in speed_columns.BETTER if not only or c in only]
    if run.machine == other.machine:
        ratios = _ratios(pairs, costs)
    else:
        ratios, refused = (), [*refused, f"{', '.join(costs)}: measured on different machines"] if costs else refused
    if only and refused or not qualities and not ratios:
        raise DiffbenchError("these cannot be compared: " + ("; ".join(refused)
                                                             or "no column has a value on both sides"))
    notes += [f"not compared: {reason}" for reason in refused]
    return Comparison(a=a, b=b, pairs=len(pairs), differences=qualities, ratios=ratios, notes=tuple(notes))


def paired(rows_a: Sequence[Row], rows_b: Sequence[Row]) -> tuple[list[Pair], list[str]]:
    """(rows that agree in all but the factors, what the factors are). A factor has one value on each side, and another
    one.

    Raises DiffbenchError where no row of one side has a partner.
    """
    names = list(dict.fromkeys(name for row in (*rows_a, *rows_b) for name in row.made_of))
    values = {name: tuple({_text(row, name) for row in side} for side in (rows_a, rows_b)) for name in names}
    factors = [name for name, (ours, theirs) in values.items() if len(ours) == len(theirs) == 1 and ours != theirs]
    shared = [name for name in names if name not in factors]
    by_key = [{tuple(_text(row, name) for name in shared): row for row in side} for side in (rows_a, rows_b)]
    both = [key for key in by_key[0] if key in by_key[1]]
    if not both:
        varying = [name for name in shared if values[name][0] != values[name][1]]
        raise DiffbenchError("no cell of one side has a partner on the other: the sides have different values of "
                             f"{', '.join(varying)}, and several of them")
    words = [f"{name} {_shown(rows_a[0], name)} (A) against {_shown(rows_b[0], name)} (B)" for name in factors
             if name != "scheduler.steps"]
    return [(by_key[0][key], by_key[1][key]) for key in both], words


def _qualities(pairs: list[Pair], meaning: columns.Columns) -> tuple[tuple[Difference, ...], list[str]]:
    """(differences, what cannot be compared and why)."""
    compared: list[tuple[Quantity, str | None, dict[Seeds, Number], dict[Seeds, Number], dict[Seeds, Number]]] = []
    refused = []
    for column, facts in meaning.items():
        measured = [pair for pair in pairs if all(row.record.get(column) is not None for row in pair)]
        foreign = _differing(measured, facts["same"])
        if foreign:
            refused.append(f"{column}: {', '.join(foreign)} differ between the sides, so it is another number")
        elif measured:
            quantity = quantity_of(column, [row.record for pair in measured for row in pair], must_all_have_it=True)
            a, b = (_numbers(measured, side, quantity) for side in (0, 1))
            d = averaged([differences(a[key], b[key]) for key in a])
            if d:
                compared.append((quantity, facts["better"], averaged(list(a.values())), averaged(list(b.values())), d))
            else:
                refused.append(f"{column}: no seed has a value in every pair of rows")
    estimates = [estimate(d) for *_, d in compared]
    adjusted = holm([e.p for e in estimates])
    return tuple(
        Difference(column=quantity.column, quantity=quantity, better=better, estimate=e, p=p,
                   a=fmean(a[s].debiased for s in e.seeds), b=fmean(b[s].debiased for s in e.seeds),
                   by_seed={s: d[s].debiased for s in e.seeds},
                   conventional=(fmean(a[s].value for s in e.seeds), fmean(b[s].value for s in e.seeds))
                   if quantity.is_debiased else None)
        for (quantity, better, a, b, d), e, p in zip(compared, estimates, adjusted, strict=True)), refused


def _numbers(pairs: list[Pair], side: int, quantity: Quantity) -> dict[str, dict[Seeds, Number]]:
    """By what side A is made of but its seeds: by A's seeds, the numbers of one side."""
    numbers: dict[str, dict[Seeds, Number]] = {}
    for pair in pairs:
        seeds = Seeds(*(pair[0].made_of[name] for name in SEEDS))
        number = quantity.number(pair[side].record)
        if number is not None:
            numbers.setdefault(selection.without_seeds(pair[0].made_of), {})[seeds] = number
    return numbers


def _unequal(pairs: list[Pair]) -> list[str]:
    """Notes on what the sides do not have in common although a comparison of quality needs it: evaluations, labels."""
    evaluations = nfe.unequal([(known(y.record, "nfe"), known(x.record, "nfe")) for x, y in pairs])
    notes = ["B " + evaluations] if evaluations else []
    if any(_text(x, LABELS) != _text(y, LABELS) for x, y in pairs):
        notes.append(f"the sides were asked for labels in different shares ({LABELS}): what that changes is in their "
                     "differences")
    return notes


def _without_interval(pairs: list[Pair], quantity: Quantity) -> str:
    """Why a column is compared by its conventional value, or rows of it have no interval; "" where neither is so."""
    rows = [row.record for pair in pairs for row in pair if not quantity.has_debiased(row.record)]
    reasons = "; ".join(dict.fromkeys(filter(None, (reason_of(record, quantity.column) for record in rows))))
    is_biased = quantity.is_biased and not quantity.is_debiased
    if not rows or not reasons and not (is_biased and len(rows) < 2 * len(pairs)):
        return ""                                         # where none has one, the name of the column says so
    what = "no debiased value, so that both sides are compared by the biased one" if is_biased else "no interval"
    return f"{quantity.column}: {len(rows)} of {2 * len(pairs)} rows have {what}" + (f": {reasons}" if reasons else "")


def _ratios(pairs: list[Pair], names: Iterable[str]) -> tuple[Ratio, ...]:
    ratios = []
    for column in names:
        measured = [pair for pair in pairs if all(row.record.get(column) for row in pair)]
        if measured:
            a, b = (median(pair[side].record[column] for pair in measured) for side in (0, 1))
            ratios.append(
                Ratio(column=column, a=a, b=b, ratio=median(y.record[column] / x.record[column] for x, y in measured),
                     is_noisy=any(speed_columns.is_noisy(row.record, column) for pair in measured for row in pair)))
    return tuple(ratios)


def _ok(rows: list[Row], text: str, run: ComparedRun) -> list[Row]:
    ok = [row for row in rows if row.record["status"] == "ok"]
    if not ok:
        reason = f", the first for: {rows[0].record.get('reason')}" if rows else ""
        raise DiffbenchError(f"{text!r} names {len(rows)} cells of {run.folder}, of which none is ok{reason}")
    return ok


def _differing(pairs: list[Pair], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(x.record.get(name) != y.record.get(name) for x, y in pairs)]


def _text(row: Row, name: str) -> str:
    return json.dumps(row.made_of.get(name), sort_keys=True)


def _shown(row: Row, name: str) -> str:
    return "-" if row.made_of.get(name) is None else str(row.made_of[name])
