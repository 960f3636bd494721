"""Which of two rows is better, by how much, and whether these seeds can tell: paired differences with their intervals.

Cells share their noise by the index of the sample, so what a seed adds to both sides of a difference cancels. Needs results only, no registry.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.errors import DiffbenchError
from diffbench.results import COLUMNS, LEADING, PROVENANCE, RECORDS, load

if TYPE_CHECKING:
    import pandas

LEVEL = 0.05                          # of intervals and of what is called significant
POWER = 0.80                          # of the smallest difference that is said to be resolvable
IDENTITY = ("dataset", "extractor", "extractor_key", "reference_count", "sample_count")      # of a number: where these differ it is another metric
NAMING = (*(c for c in LEADING if c not in ("cell_id", "status", "reason")), "noise_seed")


@dataclass(frozen=True, kw_only=True)
class Difference:
    """B minus A in one column."""

    column: str
    higher_is_better: bool
    a: float                          # mean over pairs, never the best
    b: float
    pairs: int
    differences: tuple[float, ...]    # of each pair, in the order of their seeds
    mean: float                       # of the differences; of a single pair without the bias of its samples
    low: float                        # 95 % interval of `mean`, each column for itself
    high: float
    p: float                          # two-sided, of no difference; adjusted for the number of columns compared (Holm 1979)
    resolvable: float                 # smallest true difference that would be called significant in 80 % of such comparisons
    how: str                          # what the interval rests on

    @property
    def is_worse(self) -> bool:
        """Whether B is significantly worse than A."""
        return self.p < LEVEL and (self.mean < 0) == self.higher_is_better and self.mean != 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two sets of rows, pair by pair."""

    a: str
    b: str
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]            # what is not compared and why, and what the reader should know

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {"a": self.a, "b": self.b, "notes": list(self.notes),
                "differences": [asdict(d) | {"is_worse": d.is_worse} for d in self.differences]}


class Run:
    """The results of a run: its rows, and of each number the values without a block of samples."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.rows = load(self.folder)
        self.columns: dict[str, bool] = _json(self.folder / COLUMNS)             # column -> whether higher is better
        self.machine = _json(self.folder / "environment.json").get("machine", {})
        self.left_out: dict[str, dict[str, list[float]]] = {
            path.stem: _json(path).get("left_out", {}) for path in (self.folder / RECORDS).glob("*.json")}

    def select(self, what: str) -> pandas.DataFrame:
        """The rows that are ok and that a cell id, its beginning, or conditions such as 'scheduler=ddim,steps=50' name."""
        import pandas

        rows = self.rows
        if "=" not in what:
            found = rows[rows["cell_id"].str.startswith(what)]
            if found["cell_id"].nunique() > 1:
                raise DiffbenchError(f"{what!r} begins the ids of {len(found)} cells of {self.folder}: {', '.join(found['cell_id'].head(5))}; write more of it")
        else:
            found = rows
            for condition in what.split(","):
                name, _, value = (part.strip() for part in condition.partition("="))
                if name not in rows.columns:
                    raise DiffbenchError(f"{self.folder} has no column {name!r}; conditions are column=value, such as scheduler=ddim,steps=50")
                number = pandas.to_numeric(found[name], errors="coerce")
                is_equal = (number == _number(value)) if _number(value) is not None else found[name].astype(str) == value
                found = found[is_equal]
        if found.empty:
            raise DiffbenchError(f"no cell of {self.folder} is {what!r}; `diffbench.load({str(self.folder)!r})` lists them")
        ok = found[found["status"] == "ok"]
        if ok.empty:
            raise DiffbenchError(f"{what!r} names {len(found)} cells of {self.folder}, and none is ok: {found['reason'].iloc[0]}")
        return ok


def compare(run: Run, a: str, b: str, *, other: Run | None = None, columns: Sequence[str] = ()) -> Comparison:
    """B against A: both of one run, or A of `run` and B of `other`. columns: those to compare, by default all with a known direction."""
    other = other or run
    left, right = run.select(a), other.select(b)
    pairs, factors = _pairs(left, right, same_run=other is run)
    notes = [f"compared: {', '.join(factors)}"] if factors else []
    if "train_key" in left and all(x["train_key"] == y["train_key"] for x, y in pairs):
        notes.append("both sides share their trained networks: the difference is of sampling alone")
    known = {**run.columns, **other.columns}
    unknown = [c for c in columns if c not in known]
    if unknown:
        raise DiffbenchError(f"{', '.join(unknown)}: not a column with a known direction; known: {', '.join(sorted(known)) or 'none'}")
    found, foreign = [], _differing(pairs, IDENTITY)
    for column in columns or known:
        measured = [(x, y) for x, y in pairs if column in x and column in y and not (_is_empty(x[column]) or _is_empty(y[column]))]
        if not measured:
            if columns:
                raise DiffbenchError(f"{column} is not measured on both sides")
            continue
        is_speed = "per_second" in column or "seconds" in column
        if is_speed and run.machine != other.machine:
            notes.append(f"{column} is not compared: measured on different machines")
            continue
        if not is_speed and foreign:
            raise DiffbenchError(f"{column} cannot be compared: {', '.join(foreign)} differ between the two sides, so it is another number")
        found.append(_difference(column, known[column], measured, run, other))
    if _differing(pairs, ("threads",)):
        notes.append("not comparable to the bit: the numbers of threads differ")
    notes.append(f"{len(found)} columns compared; p is adjusted for that (Holm), intervals are of each column for itself")
    return Comparison(a=a, b=b, differences=tuple(_adjusted(found)), notes=tuple(notes))


def compare_runs(run: Run, other: Run, columns: Sequence[str] = ()) -> Comparison:
    """All cells that two runs have in common, B = `other` against A = `run`."""
    return compare(run, "dataset=" + str(run.rows["dataset"].iloc[0]), "dataset=" + str(other.rows["dataset"].iloc[0]), other=other, columns=columns)


def _pairs(left: pandas.DataFrame, right: pandas.DataFrame, *, same_run: bool) -> tuple[list[tuple[dict[str, Any], dict[str, Any]]], list[str]]:
    """(rows that belong together, what differs between the two sides)."""
    naming = [c for c in dict.fromkeys([*left.columns, *right.columns]) if (c in NAMING or "." in c) and c in left and c in right]
    factors = [c for c in naming if left[c].map(str).nunique() == 1 == right[c].map(str).nunique() and str(left[c].iloc[0]) != str(right[c].iloc[0])]
    keys = [c for c in naming if c not in factors]

    def by_key(rows: pandas.DataFrame) -> dict[tuple[str, ...], dict[str, Any]]:
        found: dict[tuple[str, ...], dict[str, Any]] = {}
        for row in rows.to_dict("records"):
            key = tuple(str(row[c]) for c in keys)
            if key in found:
                raise DiffbenchError(f"cells {found[key]['cell_id']} and {row['cell_id']} stand on the same side and differ in nothing that pairs them: "
                                     f"name one side more narrowly")
            found[key] = row
        return found
    a, b = by_key(left), by_key(right)
    if same_run and not factors:
        raise DiffbenchError("the two sides name the same cells, or differ in more than one value of an axis: give each side one value of what is compared")
    both = sorted(a.keys() & b.keys())
    if not both:
        raise DiffbenchError(f"no cell of one side has a partner on the other that agrees in {', '.join(keys)}")
    return [(a[key], b[key]) for key in both], [f"{c} {left[c].iloc[0]} (A) against {right[c].iloc[0]} (B)" for c in factors]


def _difference(column: str, higher_is_better: bool, pairs: list[tuple[dict[str, Any], dict[str, Any]]], run: Run, other: Run) -> Difference:
    from scipy.stats import t

    differences = [float(y[column] - x[column]) for x, y in pairs]
    if len(pairs) > 1:
        mean, freedom = sum(differences) / len(pairs), len(pairs) - 1
        error = math.sqrt(sum((d - mean) ** 2 for d in differences) / freedom / len(pairs))
        how = f"spread over {len(pairs)} pairs"
    else:
        ours, theirs = (some.left_out.get(row["cell_id"], {}).get(column) for some, row in ((run, pairs[0][0]), (other, pairs[0][1])))
        if not ours or not theirs:
            return Difference(column=column, higher_is_better=higher_is_better, a=float(pairs[0][0][column]), b=float(pairs[0][1][column]), pairs=1,
                              differences=tuple(differences), mean=differences[0], low=math.nan, high=math.nan, p=math.nan, resolvable=math.nan,
                              how="one pair and no jackknife: nothing is known of its error")
        blocks = [y - x for x, y in zip(ours, theirs, strict=True)]
        centre, freedom = sum(blocks) / len(blocks), len(blocks) - 1
        debiased = f"{column}_debiased"
        mean = float(pairs[0][1][debiased] - pairs[0][0][debiased]) if debiased in pairs[0][0] and debiased in pairs[0][1] else differences[0]
        error = math.sqrt(freedom / len(blocks) * sum((d - centre) ** 2 for d in blocks))
        how = "one pair: paired jackknife over the samples, which share their noise"
    half = float(t.ppf(1 - LEVEL / 2, freedom)) * error
    p = float(2 * t.sf(abs(mean) / error, freedom)) if error > 0 else float(mean == 0)
    return Difference(column=column, higher_is_better=higher_is_better, a=_mean([x[column] for x, _ in pairs]), b=_mean([y[column] for _, y in pairs]),
                      pairs=len(pairs), differences=tuple(differences), mean=mean, low=mean - half, high=mean + half, p=p,
                      resolvable=half + float(t.ppf(POWER, freedom)) * error, how=how)


def _adjusted(found: list[Difference]) -> list[Difference]:
    """Holm's step-down adjustment of p over the columns that have one."""
    from dataclasses import replace

    ranked = sorted((d for d in found if not math.isnan(d.p)), key=lambda d: d.p)
    adjusted, highest = {}, 0.0
    for rank, difference in enumerate(ranked):
        highest = max(highest, min(1.0, difference.p * (len(ranked) - rank)))
        adjusted[difference.column] = highest
    return [replace(d, p=adjusted.get(d.column, d.p)) for d in found]


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Standard deviations of a number, by where they come from; rows of training seeds crossed with sampling seeds."""

    training: float
    sampling: float
    rest: float


def spread(values: Sequence[Sequence[float]]) -> Spread:
    """Variance components of a crossed design, values[training seed][sampling seed], at least 2 x 2; components below 0 are 0.

    By mean squares of a two-way layout with random effects and one value a cell: E MS_training = rest² + s training², and so on.
    Source: Searle, Casella & McCulloch 1992, "Variance Components", chapter 4.
    """
    rows, columns = len(values), len(values[0])
    grand = _mean([v for row in values for v in row])
    of_row, of_column = [_mean(row) for row in values], [_mean(column) for column in zip(*values, strict=True)]
    ms_rows = columns * sum((m - grand) ** 2 for m in of_row) / (rows - 1)
    ms_columns = rows * sum((m - grand) ** 2 for m in of_column) / (columns - 1)
    rest = sum((values[i][j] - of_row[i] - of_column[j] + grand) ** 2 for i in range(rows) for j in range(columns)) / ((rows - 1) * (columns - 1))
    return Spread(training=math.sqrt(max(0.0, (ms_rows - rest) / columns)), sampling=math.sqrt(max(0.0, (ms_columns - rest) / rows)), rest=math.sqrt(rest))


def _differing(pairs: list[tuple[dict[str, Any], dict[str, Any]]], names: Sequence[str]) -> list[str]:
    assert set(names) <= {*LEADING, *PROVENANCE}
    return [name for name in names if any(str(x.get(name)) != str(y.get(name)) for x, y in pairs)]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DiffbenchError(f"{path} cannot be read: {error}; running the matrix again writes it anew") from None
    return content if isinstance(content, dict) else {}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_empty(value: Any) -> bool:
    return value is None or value != value


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
