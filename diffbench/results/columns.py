"""Columns of a run: their names, and the meaning of those of metrics. Used by all that reads results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

from diffbench.errors import DiffbenchError
from diffbench.results import checked_json

FILE = "columns.json"
RECORDS = "cells"                     # folder of the records inside a run
# key of a record, no column: {column: its 20 values, each without one block of samples}
LEFT_OUT = "left_out"
MORE_KINDS = "more_kinds"             # key of a record, no column: its kinds that not every run has a column of
OF_SAMPLES = ("dataset", "extractor", "extractor_key", "extractor_weights", "reference_count", "sample_count")

# a row of the results by column, of which a matrix has those of its options and metrics
Record = dict[str, Any]


class Meaning(TypedDict):
    """The meaning of a column of a metric."""

    metric: str                       # its name with its options
    better: str | None                # "lower", "higher", or None for a flag that ranks nothing
    interval: bool                    # whether _low and _high are there in some row
    same: list[str]                   # columns that must agree between rows whose values are compared


Columns = dict[str, Meaning]


def columns_of(main: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a metric by column: "" and "_x" belong to the main one, other names are columns of their own."""
    return {main + name if name == "" or name.startswith("_") else name: value for name, value in values.items()}


def read(folder: Path) -> Columns:
    """Meaning of columns, from the file beside the results of a run; raises DiffbenchError where there is none."""
    if not (folder / FILE).exists():
        raise DiffbenchError(f"{folder} holds no {FILE}, which says what its columns mean: run its matrix again")
    return checked_json.read(folder / FILE, checked_json.COLUMNS,
                          lambda why: f"{folder / FILE} does not say what columns mean: {why}; run its matrix again")
