"""The frame of a run's rows: its columns in their order, each with the type its values had in the records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffbench.results import speed_columns
from diffbench.results.columns import LEFT_OUT, MORE_KINDS
from diffbench.stats.jackknife import INTERVAL, NO_INTERVAL

if TYPE_CHECKING:
    import pandas

COMPONENTS = ("dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing",
              "scheduler")
LEADING = ("cell_id", "status", "reason", *COMPONENTS, "steps", "guidance_scale", "seed", "noise_seed")
MEASURED = ("nfe", "parameters", "gmac_per_nfe", "train_steps", "train_loss", *speed_columns.COLUMNS)
PROVENANCE = ("train_key", "dataset_remark", "extractor", "extractor_key", "extractor_weights", "extractor_remark",
              "judge_key", "reference_count", "sample_count", "feature_count", "sample_batch_size",
              "sample_batch_size_asked", "clamped_share", "distinct_count", "flat_count", "train_compiled",
              "sample_compiled", *speed_columns.FLAGS, "speed_remark", "device", "dtype", "threads", "cores", "torch",
              "diffbench", "origins", "imported_from", "git_commit", "started_at")
COUNTS = ("noise_seed", "reference_count", "sample_count", "feature_count", "sample_batch_size",
          "sample_batch_size_asked", "distinct_count", "flat_count", "threads", "cores", "parameters", "train_steps",
          "throughput_batch_size")
BY_VALUE = ("steps", "seed", "train_compiled", "sample_compiled")             # typed as options are, by their values
# sentences: "" where there is nothing to say
FREE = ("reason", "dataset_remark", "extractor_remark", "speed_remark")
EXACT = 1 << 53                       # the largest integer up to which a float can be each
INT64 = range(-(1 << 63), 1 << 63)


def kind_of(name: str) -> str:
    """Kind of values of a column: "text", "count", "flag", "number", or "any" where each value shows its own kind."""
    if name in COUNTS:
        return "count"
    if name in speed_columns.FLAGS:
        return "flag"
    if "." in name or name in BY_VALUE:
        return "any"
    if name in MEASURED or name in ("guidance_scale", "clamped_share"):
        return "number"
    is_text = name in (*LEADING, *PROVENANCE, "run") or name.endswith(
        ("_key", "_id", "_weights", "_remark", NO_INTERVAL))
    return "text" if is_text else "number"


def frame(rows: Sequence[Mapping[str, Any]], order: Iterable[str] = ()) -> pandas.DataFrame:
    """Rows as a frame with the columns in their order; `order` is the order of cell ids.

    A number that may have an interval has the columns of one, also where no row has one: a notebook that reads them
    reads any run.
    """
    import pandas

    names = list(dict.fromkeys(each for row in rows for name in row
                               if name not in (LEFT_OUT, MORE_KINDS, *speed_columns.RAW)
                               for each in _with_interval(name)))
    more = list(dict.fromkeys(kind for row in rows for kind in row.get(MORE_KINDS, ())))
    leading = with_more(more)
    metrics = [n for n in names if n not in (*leading, *MEASURED, *PROVENANCE) and "." not in n]
    columns = [*leading, *(n for n in names if "." in n), *MEASURED, *metrics, *PROVENANCE]
    table = pandas.DataFrame({name: column(name, [row.get(name) for row in rows]) for name in columns}, columns=columns)
    place = {cell_id: i for i, cell_id in enumerate(order)}
    if place:
        table = table.sort_values("cell_id", key=lambda ids: ids.map(place), kind="stable").reset_index(drop=True)
    return table


def with_more(kinds: Iterable[str]) -> list[str]:
    """The leading columns, those of kinds that not every run names after the scheduler."""
    place = LEADING.index("steps")
    return [*LEADING[:place], *kinds, *LEADING[place:]]


def component_columns(names: Iterable[Any]) -> list[str]:
    """The columns that name components."""
    names = list(names)
    return [*(name for name in COMPONENTS if name in names), *more_kinds(names)]


def more_kinds(names: Iterable[Any]) -> list[str]:
    """Those that name components of kinds that not every run names: they stand between the scheduler and `steps`."""
    names = list(names)
    return names[names.index("scheduler") + 1:names.index("steps")] if {"scheduler", "steps"} <= {*names} else []


def _with_interval(name: str) -> Iterator[str]:
    main = name.removesuffix(NO_INTERVAL)
    yield from (main + end for end in INTERVAL if main != name)
    yield name


def counted(table: pandas.DataFrame, column: str | None = None) -> pandas.DataFrame:
    """The rows that are averaged, ranked and compared: those that are ok and have a value in the column, if one is
    named.

    A row that failed keeps what was measured before it failed; nothing is concluded from that.
    """
    ok = table[table["status"] == "ok"]
    return ok if column is None else ok[ok[column].notna()]


def is_trained(table: pandas.DataFrame) -> pandas.Series:
    """Whether the network of each row was trained; one whose weights were given counts, by steps that nobody knows."""
    return table["train_steps"].isna() | (table["train_steps"] > 0)


def column(name: str, values: Sequence[Any]) -> pandas.Series:
    """Values as a column of the frame, None where one is missing.

    A column of one type has that type; integers and truths with a missing value have pandas' Int64 and boolean. A
    column of several types, of lists, or of integers beyond 64 bits holds the values themselves, lists as tuples.
    """
    import pandas

    kind = kind_of(name)
    if name in FREE:
        values = ["" if value is None else value for value in values]
    types = {type(value) for value in values if value is not None}
    if kind == "number" and types <= {int, float}:        # of numbers also where nothing was measured
        return pandas.Series(values, dtype="float64")
    if kind == "count" and types <= {int}:
        return pandas.Series(values, dtype="Int64")
    if kind == "flag" and types <= {bool}:
        return pandas.Series(values, dtype="boolean")
    if types == {bool}:
        return pandas.Series(values, dtype="boolean" if None in values else "bool")
    if types == {int} and all(value is None or value in INT64 for value in values):
        return pandas.Series(values, dtype="Int64" if None in values else "int64")
    if types <= {int, float} and types and all(type(value) is not int or abs(value) <= EXACT for value in values):
        return pandas.Series(values, dtype="float64")
    if types == {str}:
        return pandas.Series(values)
    return pandas.Series([_hashable(value) for value in values], dtype="object")


def of_text(texts: Iterable[Any]) -> bool:
    """Whether values are all texts or missing."""
    return all(isinstance(value, str) or is_missing(value) for value in texts)


def is_missing(value: Any) -> bool:
    """Whether a value of a frame is none: None, NaN or pandas.NA."""
    import pandas

    return value is None or value is pandas.NA or (isinstance(value, float) and math.isnan(value))


def _hashable(value: Any) -> Any:
    """A list as a tuple: a frame groups by it."""
    return tuple(_hashable(inner) for inner in value) if isinstance(value, list | tuple) else value
