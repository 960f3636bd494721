"""Which columns a run has beside those every run has, and what those of metrics mean: which way is better, what must agree to compare."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from diffbench.engine import Outcome
from diffbench.errors import DiffbenchError
from diffbench.options import Options
from diffbench.planning import Plan
from diffbench.store import Store

FILE = "columns.json"
RECORDS = "cells"                     # folder of the records inside a run
LEFT_OUT = "left_out"                 # key of a record, no column: {column: its 20 values, each without one block of samples}
INTERVAL = ("_debiased", "_low", "_high")
OF_SAMPLES = ("dataset", "extractor", "extractor_key", "extractor_weights", "reference_count", "sample_count")

Columns = dict[str, dict[str, Any]]   # by column: metric, better ("lower", "higher" or None), interval, same


def columns_of(main: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a metric by column: "" and "_x" belong to the main one, other names are columns of their own."""
    return {main + name if name == "" or name.startswith("_") else name: value for name, value in values.items()}


def describe(plan: Plan, store: Store, outcomes: Mapping[str, Outcome]) -> Columns:
    """The columns that the metrics of a plan gave, as far as stages have ended: each metric's main one, and those of its others that have an interval.

    `metric`: its name with its options. `better`: "lower", "higher", or None for a flag that ranks nothing. `interval`: whether _low and _high are
    there. `same`: columns of the results that must agree between rows whose values are compared.
    """
    found: Columns = {}
    seen: set[tuple[str, int]] = set()
    metrics = {metric.column(plan.matrix.extractor): metric for metric in plan.matrix.metrics}
    for planned in plan.cells:
        for role, key in planned.stages.items():
            main, which = role.partition(":")[2], (role, planned.cell.sample.count)         # with too few samples there are no intervals
            if not role.startswith("evaluate:") or which in seen or key not in outcomes or outcomes[key].status != "ok":
                continue
            seen.add(which)
            metric, names = metrics[main], store.read_json("evaluate", key, "values.json")["values"]
            for name, column in zip(names, columns_of(main, names), strict=True):
                has_interval = f"{name}_low" in names
                if (name == "" or has_interval) and column not in found:
                    same = OF_SAMPLES if metric.looks_at == "samples" else ("dataset",)
                    found[column] = {"metric": plan.names.label(metric), "better": _better(metric, name), "interval": has_interval,
                                     "same": [*same, *(["judge_key"] if getattr(metric, "needs_judge", False) else [])]}
    return found


def varying_options(plan: Plan) -> list[str]:
    """'<kind>.<option>' for each option that differs between cells that have it, and 'train.lr' and the like."""
    distinct = {(owner, id(options)): options for planned in plan.cells for owner, options in _option_owners(planned.cell).items()}
    seen: dict[str, set[Any]] = {}
    for (owner, _), options in distinct.items():
        for f in fields(options):
            if (owner, f.name) == ("sample", "seed"):     # has a column of its own, as a number
                continue
            seen.setdefault(f"{owner}.{f.name}", set()).add((type(options).__name__, getattr(options, f.name)))
    # An option varies where components of one class differ in it; two classes having different options is the axis itself.
    return [name for name, values in seen.items() if any(n > 1 for n in _per_class(values).values())]


def option_value(cell: Any, name: str, plan: Plan) -> Any:
    """The value of '<kind>.<option>' in a cell, or None where its component has no such option."""
    owner, _, option = name.partition(".")
    options = _option_owners(cell)[owner]
    value = getattr(options, option) if option in {f.name for f in fields(options)} else None
    if isinstance(value, Options):
        return plan.names.label(value)
    return list(value) if isinstance(value, tuple) else value


def read(folder: Path) -> Columns:
    """What lies beside the results of a run; raises DiffbenchError where it does not."""
    try:
        found = json.loads((folder / FILE).read_bytes())
    except OSError:
        raise DiffbenchError(f"{folder} holds no {FILE}, which says what its columns mean: run its matrix again") from None
    except ValueError as error:
        raise DiffbenchError(f"{folder / FILE}: {error}; run its matrix again") from None
    if not isinstance(found, dict) or not all(isinstance(facts, dict) and {"metric", "better", "interval", "same"} <= set(facts) for facts in found.values()):
        raise DiffbenchError(f"{folder / FILE} does not say what columns mean: run its matrix again")
    return found


def _better(metric: Any, name: str) -> str | None:
    higher = metric.higher_is_better if name == "" else metric.directions.get(name)
    return None if higher is None else "higher" if higher else "lower"


def _option_owners(cell: Any) -> dict[str, Options]:
    return {**cell.components(), "train": cell.train, "sample": cell.sample}


def _per_class(values: set[tuple[str, Any]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name, _ in values:
        counts[name] = counts.get(name, 0) + 1
    return counts
