"""The metrics of a matrix: those that the file names, and the count of copies where one needs it.

Used by `expansion`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diffbench.matrix.reading import Path, Reader
from diffbench.registry.describing import Names

MOST = 100                            # metrics of a matrix: each is a stage of every cell


def metrics_of(node: Any, extractor: Any, reader: Reader, default: Callable[[], Any]) -> list[Any]:
    """The metrics of a matrix, those that the file names and those that they need.

    node: the value of `metrics`; extractor: None where the file's is at fault; default: gives the metric that counts
    copies.

    The reader notes what is no metric, and two metrics of one column.
    """
    items = ([(item, ("metrics", i)) for i, item in enumerate(node)] if isinstance(node, list)
             else [(node, ("metrics",))])
    metrics_with_paths = [(metric, path) for item, path in items for metric in reader.components("metric", item, path)]
    if len(metrics_with_paths) > MOST:
        reader.fault(("metrics",), f"a matrix measures at most {MOST} metrics, got {len(metrics_with_paths)}")
        return []
    if extractor is not None:
        _check_columns(metrics_with_paths, extractor, reader)
    metrics = [metric for metric, _ in metrics_with_paths]
    # no such number without the one that tells copies
    if any(getattr(m, "prefers_copies", False) for m in metrics):
        metrics += [c for c in [default()] if c is not None and type(c) not in map(type, metrics)]
    return metrics


def _check_columns(metrics_with_paths: list[tuple[Any, Path]], extractor: Any, reader: Reader) -> None:
    """Notes metrics that would fill the same column of the results: one of the two numbers would be lost."""
    columns: dict[str, Any] = {}
    label = Names(reader.registry).label
    for metric, path in metrics_with_paths:
        column = metric.column(extractor)
        first = columns.setdefault(column, metric)
        if first != metric:
            reader.fault(path, f"{label(first)} and {label(metric)} would both be the column {column}: keep one; a "
                               "second matrix with the "
                                         "other shares all work but the measuring")
