"""Two sides of a comparison: rows of one run, or of two, paired where they agree in all but what is compared. Needs results only, no registry."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

from diffbench import columns, costs, selection
from diffbench.comparing import Estimate, Number, Seeds, averaged, differences, estimate, holm, number_of
from diffbench.errors import DiffbenchError
from diffbench.results import records
from diffbench.selection import SEEDS, Named

LEVEL = 0.05                          # p below this is called significant
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
    better: str | None                # "lower", "higher", or None for a flag, of which neither way is a loss
    a: float                          # means as printed, over the seeds that both sides have, never the best of them
    b: float
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
    """B over A in one column of cost: medians over pairs. It has no p: another start of the same program is not in its laps."""

    column: str
    a: float
    b: float
    ratio: float
    is_noisy: bool                    # a timing behind it is flagged


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
        found = [{"column": d.column, "better": d.better, "a": d.a, "b": d.b, "difference": d.estimate.debiased, "low": d.estimate.low, "high": d.estimate.high,
                  "p_holm": d.p, "resolvable_at_80": d.estimate.resolvable, "basis": d.estimate.basis, "verdict": d.verdict, "is_worse": d.is_worse,
                  "by_seed": [{"training": s.training, "sampling": s.sampling, "difference": v} for s, v in d.by_seed.items()]} for d in self.differences]
        ratios = [{"column": r.column, "a": r.a, "b": r.b, "ratio": r.ratio, "is_noisy": r.is_noisy} for r in self.ratios]
        return without_nan({"a": self.a, "b": self.b, "pairs": self.pairs, "notes": list(self.notes), "differences": found, "ratios": ratios})


class Run:
    """The rows of a run, what they are made of, and what its columns mean."""

    def __init__(self, folder: str | Path):
        """Raises DiffbenchError where the folder holds no results."""
        self.folder = Path(folder)
        if not (self.folder / columns.RECORDS).is_dir():
            raise DiffbenchError(f"{folder} holds no results of a run: there is no {columns.RECORDS}/ in it")
        self.columns = columns.read(self.folder)
        self.machine = _read(self.folder / "environment.json").get("machine")
        made_of = {cell["cell_id"]: selection.named(cell["cell"]) for cell in _read(self.folder / "plan.json")["cells"]}
        self.rows = [Row(cell_id, made_of[cell_id], record) for cell_id, record in records(self.folder).items() if cell_id in made_of]

    def chosen(self, text: str) -> list[Row]:
        """The rows that are ok among those a cell id, its beginning, or conditions such as 'scheduler=ddim,steps=50' name; raises DiffbenchError for none."""
        if "=" in text:
            found = [self.rows[i] for i in selection.chosen([row.made_of for row in self.rows], text)]
        else:
            found = [row for row in self.rows if row.cell_id.startswith(text)]
            if len(found) > 1:
                ids = ", ".join(row.cell_id for row in found[:5])
                raise DiffbenchError(f"{text!r} begins the ids of {len(found)} cells of {self.folder}: {ids}; write more of it")
            if not found:
                raise DiffbenchError(f"no cell of {self.folder} is {text!r}: write a cell_id of results.csv or its beginning, or conditions such as "
                                     f"scheduler=ddim,steps=50")
        return _ok(found, text, self)

    def all(self) -> list[Row]:
        """All rows that are ok."""
        return _ok(self.rows, "all", self)


def compare(run: Run, a: str, b: str, *, only: Sequence[str] = ()) -> Comparison:
    """Two sides of one run, each a cell id, its beginning, or conditions. only: the columns to compare, by default all."""
    return _compare(a, b, run, run, run.chosen(a), run.chosen(b), only)


def compare_runs(run: Run, other: Run, *, only: Sequence[str] = ()) -> Comparison:
    """All cells that two runs have in common: B is `other`, A is `run`."""
    return _compare(str(run.folder), str(other.folder), run, other, run.all(), other.all(), only)


def without_nan(value: Any) -> Any:
    """NaN and infinity are no JSON: null."""
    if isinstance(value, dict):
        return {key: without_nan(v) for key, v in value.items()}
    if isinstance(value, list):
        return [without_nan(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _compare(a: str, b: str, run: Run, other: Run, left: list[Row], right: list[Row], only: Sequence[str]) -> Comparison:
    pairs, factors = paired(left, right)
    if run is other and not factors:
        raise DiffbenchError(f"{a!r} and {b!r} name the same cells, or several values of what is compared: give each side one value of it")
    notes = [f"compared: {', '.join(factors)}"] if factors else []
    if all(x.record.get("train_key") == y.record.get("train_key") is not None for x, y in pairs):
        notes.append("both sides share their trained networks: what differs is sampling alone")
    alone = len(left) - len(pairs), len(right) - len(pairs)
    if any(alone):
        notes.append(f"without a partner, and left out: {alone[0]} rows of A, {alone[1]} of B")
    changed = _differing(pairs, ENVIRONMENT)
    if changed:
        notes.append(f"not comparable to the bit: {', '.join(changed)} differ between the sides")
    meaning = run.columns | other.columns
    unknown = [c for c in only if c not in meaning and c not in costs.BETTER]
    if unknown:
        raise DiffbenchError(f"{', '.join(unknown)}: no column to compare; there are {', '.join([*meaning, *costs.BETTER])}")
    found, refused = _qualities(pairs, {c: facts for c, facts in meaning.items() if not only or c in only})
    wanted = [c for c in costs.BETTER if not only or c in only]
    if run.machine == other.machine:
        ratios = _ratios(pairs, wanted)
    else:
        ratios, refused = (), [*refused, f"{', '.join(wanted)}: measured on different machines"] if wanted else refused
    if only and refused or not found and not ratios:
        raise DiffbenchError("these cannot be compared: " + ("; ".join(refused) or "no column has a value on both sides"))
    notes += [f"not compared: {said}" for said in refused]
    return Comparison(a=a, b=b, pairs=len(pairs), differences=found, ratios=ratios, notes=tuple(notes))


def paired(left: Sequence[Row], right: Sequence[Row]) -> tuple[list[Pair], list[str]]:
    """(rows that agree in all but the factors, what the factors are). A factor has one value on each side, and another one.

    Raises DiffbenchError where no row of one side has a partner.
    """
    names = list(dict.fromkeys(name for row in (*left, *right) for name in row.made_of))
    values = {name: tuple({_text(row, name) for row in side} for side in (left, right)) for name in names}
    factors = [name for name, (ours, theirs) in values.items() if len(ours) == len(theirs) == 1 and ours != theirs]
    shared = [name for name in names if name not in factors]
    by_key = [{tuple(_text(row, name) for name in shared): row for row in side} for side in (left, right)]
    both = [key for key in by_key[0] if key in by_key[1]]
    if not both:
        varying = [name for name in shared if values[name][0] != values[name][1]]
        raise DiffbenchError(f"no cell of one side has a partner on the other: the sides have different values of {', '.join(varying)}, and several of them")
    said = [f"{name} {_shown(left[0], name)} (A) against {_shown(right[0], name)} (B)" for name in factors if name != "scheduler.steps"]
    return [(by_key[0][key], by_key[1][key]) for key in both], said


def _qualities(pairs: list[Pair], meaning: columns.Columns) -> tuple[tuple[Difference, ...], list[str]]:
    """(differences, what cannot be compared and why)."""
    found: list[tuple[str, Any, dict[Seeds, Number], dict[Seeds, Number], dict[Seeds, Number]]] = []
    refused = []
    for column, facts in meaning.items():
        measured = [pair for pair in pairs if all(row.record.get(column) is not None for row in pair)]
        foreign = _differing(measured, facts["same"])
        if foreign:
            refused.append(f"{column}: {', '.join(foreign)} differ between the sides, so it is another number")
        elif measured:
            a, b = (_numbers(measured, side, column) for side in (0, 1))
            d = averaged([differences(a[key], b[key]) for key in a])
            if d:
                found.append((column, facts["better"], averaged(list(a.values())), averaged(list(b.values())), d))
            else:
                refused.append(f"{column}: no seed has a value in every pair of rows")
    estimates = [estimate(d) for *_, d in found]
    adjusted = holm([e.p for e in estimates])
    return tuple(Difference(column=column, better=better, a=fmean(a[s].value for s in e.seeds), b=fmean(b[s].value for s in e.seeds),
                            by_seed={s: d[s].debiased for s in e.seeds}, estimate=e, p=p)
                 for (column, better, a, b, d), e, p in zip(found, estimates, adjusted, strict=True)), refused


def _numbers(pairs: list[Pair], side: int, column: str) -> dict[str, dict[Seeds, Number]]:
    """By what side A is made of but its seeds: by A's seeds, the numbers of one side."""
    found: dict[str, dict[Seeds, Number]] = {}
    for pair in pairs:
        seeds = Seeds(*(pair[0].made_of[name] for name in SEEDS))
        found.setdefault(selection.without_seeds(pair[0].made_of), {})[seeds] = number_of(pair[side].record, column)
    return found


def _ratios(pairs: list[Pair], wanted: Iterable[str]) -> tuple[Ratio, ...]:
    found = []
    for column in wanted:
        measured = [pair for pair in pairs if all(row.record.get(column) for row in pair)]
        if measured:
            a, b = (median(pair[side].record[column] for pair in measured) for side in (0, 1))
            found.append(Ratio(column=column, a=a, b=b, ratio=median(y.record[column] / x.record[column] for x, y in measured),
                               is_noisy=any(row.record.get("noisy") for pair in measured for row in pair)))
    return tuple(found)


def _ok(rows: list[Row], text: str, run: Run) -> list[Row]:
    ok = [row for row in rows if row.record["status"] == "ok"]
    if not ok:
        reason = f", the first for: {rows[0].record.get('reason')}" if rows else ""
        raise DiffbenchError(f"{text!r} names {len(rows)} cells of {run.folder}, of which none is ok{reason}")
    return ok


def _differing(pairs: list[Pair], names: Iterable[str]) -> list[str]:
    return [name for name in names if any(x.record.get(name) != y.record.get(name) for x, y in pairs)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DiffbenchError(f"{path} cannot be read: {error}; running the matrix again writes it anew") from None


def _text(row: Row, name: str) -> str:
    return json.dumps(row.made_of.get(name), sort_keys=True)


def _shown(row: Row, name: str) -> str:
    return "-" if row.made_of.get(name) is None else str(row.made_of[name])
