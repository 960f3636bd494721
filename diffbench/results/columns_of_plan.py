"""The meaning of the columns of a run, told from its plan. Written beside the results, read back by `columns`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from diffbench.contracts.cell import optional_kinds
from diffbench.contracts.options import Options
from diffbench.errors import DiffbenchError
from diffbench.planning.plan import Plan
from diffbench.results.columns import OF_SAMPLES, Columns, columns_of
from diffbench.results.frame import LEADING, MEASURED, PROVENANCE
from diffbench.running.outcome import Outcome
from diffbench.store.artefacts import Store


def describe(plan: Plan, store: Store, outcomes: Mapping[str, Outcome]) -> Columns:
    """The columns that the metrics of a plan gave, as far as stages have ended: each metric's main one, and those of
    its others that have an interval, or a reason to have none.
    """
    columns: Columns = {}
    seen: set[str] = set()
    metrics = {metric.column(plan.matrix.extractor): metric for metric in plan.matrix.metrics}
    for planned in plan.cells:
        for role, key in planned.stages.items():
            if not role.startswith("evaluate:") or key in seen or key not in outcomes or outcomes[key].status != "ok":
                continue
            seen.add(key)
            main, measured = role.partition(":")[2], store.read_json("evaluate", key, "values.json")
            metric, names = metrics[main], measured["values"]
            for name, column in zip(names, columns_of(main, names), strict=True):
                has_interval = f"{name}_low" in names
                if column in columns:
                    columns[column]["interval"] |= has_interval          # one row may have one where another has none
                elif name == "" or has_interval or name in measured["no_interval"]:
                    same = OF_SAMPLES if metric.looks_at == "samples" else ("dataset",)
                    columns[column] = {"metric": plan.names.label(metric), "better": _better(metric, name),
                                     "interval": has_interval,
                                     "same": [*same, *(["judge_key"] if getattr(metric, "needs_judge", False) else [])]}
    return columns


def kinds_beside(plan: Plan) -> list[str]:
    """The kinds that not every run has a column of: optional ones that are not at their default, and plug-ins'."""
    cells = [planned.cell for planned in plan.cells]
    components = {id(c): (kind, c) for cell in cells for kind in optional_kinds() for c in (cell.component(kind),)}
    others = {kind for kind, component in components.values() if not plan.names.is_default(component)}
    extra = dict.fromkeys(kind for cell in cells for kind in (*cell.extra, *cell.sampling_extra))
    return [*(kind for kind in optional_kinds() if kind in others), *extra]


def check_names(plan: Plan) -> None:
    """Raises DiffbenchError where a kind of a plug-in has the name of another column."""
    taken = {*LEADING, *MEASURED, *PROVENANCE, *(metric.column(plan.matrix.extractor)
                                                 for metric in plan.matrix.metrics)}
    kinds = {kind for planned in plan.cells for kind in (*planned.cell.extra, *planned.cell.sampling_extra)}
    for kind in sorted(kinds & taken):
        raise DiffbenchError(f"the kind {kind!r} of a plug-in has the name of another column of the results: its "
                             "package must rename it")


def varying_options(plan: Plan) -> list[str]:
    """'<kind>.<option>' for each option that differs between cells that have it, and 'train.lr' and the like."""
    distinct = {(owner, id(options)): options for planned in plan.cells
                for owner, options in _option_owners(planned.cell).items()}
    seen: dict[str, set[Any]] = {}
    for (owner, _), options in distinct.items():
        for f in fields(options):
            if (owner, f.name) == ("sample", "seed"):     # has a column of its own, as a number
                continue
            seen.setdefault(f"{owner}.{f.name}", set()).add((type(options).__name__, getattr(options, f.name)))
    # An option varies where components of one class differ in it; two classes having different options is the axis
    # itself.
    return [name for name, values in seen.items() if max(Counter(cls for cls, _ in values).values()) > 1]


def option_value(cell: Any, name: str, plan: Plan) -> Any:
    """The value of '<kind>.<option>' in a cell, or None where its component has no such option."""
    owner, _, option = name.partition(".")
    options = _option_owners(cell).get(owner)
    value = getattr(options, option) if options and option in {f.name for f in fields(options)} else None
    return _in_record(value, plan)


def _in_record(value: Any, plan: Plan) -> Any:
    """A value of an option as a record holds it: a component by its label, several values as a list."""
    if isinstance(value, Options):
        return plan.names.label(value)
    return [_in_record(inner, plan) for inner in value] if isinstance(value, tuple) else value


def _better(metric: Any, name: str) -> str | None:
    higher = metric.higher_is_better if name == "" else metric.directions.get(name)
    return None if higher is None else "higher" if higher else "lower"


def _option_owners(cell: Any) -> dict[str, Options]:
    return {**cell.components(), "train": cell.train, "sample": cell.sample}
