"""The metrics of a matrix: those it names, and wherever one of them prefers copies, the one that tells copies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffbench.specs import Names, Reader


def metrics_of(node: Any, extractor: Any, reader: Reader, default: Callable[[], Any]) -> list[Any]:
    """node: the value of `metrics`; extractor: None where the file's is at fault; default: gives the metric that joins.

    Mistakes go to the reader: what is no list, what is no metric, and two metrics of one column.
    """
    if not isinstance(node, list):
        reader.fault(("metrics",), f"metrics is a list of names, got {node!r}")
        return []
    placed = [(metric, i) for i, item in enumerate(node) for metric in reader.components("metric", item, ("metrics", i))]
    if extractor is not None:
        _one_to_a_column(placed, extractor, reader)
    metrics = [metric for metric, _ in placed]
    if any(getattr(m, "prefers_copies", False) for m in metrics):         # no such number without the one that tells copies
        metrics += [c for c in [default()] if c is not None and type(c) not in map(type, metrics)]
    return metrics


def _one_to_a_column(placed: list[tuple[Any, int]], extractor: Any, reader: Reader) -> None:
    """A row has one number of a name: of two metrics that would give it, one would be lost without a word."""
    columns: dict[str, Any] = {}
    label = Names(reader.registry).label
    for metric, i in placed:
        column = metric.column(extractor)
        first = columns.setdefault(column, metric)
        if first != metric:
            reader.fault(("metrics", i), f"{label(first)} and {label(metric)} would both be the column {column}: keep one; a second matrix with the "
                                         "other shares all work but the measuring")
