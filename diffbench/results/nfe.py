"""Network evaluations (NFE) in words, beside the name of what was measured. Used by tables, figures and comparisons."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence


def spelt(values: Iterable[float]) -> str:
    """'NFE 19', 'NFE 19 to 38' where they differ, '' where none is known."""
    numbers = span(values)
    return f"NFE {numbers}" if numbers else ""


def span(values: Iterable[float]) -> str:
    """'19', or '19 to 38' where they differ; '' where none is known."""
    numbers = sorted(value for value in values if not math.isnan(value))
    ends = dict.fromkeys(f"{value:.6g}" for value in (numbers[:1] + numbers[-1:]))
    return " to ".join(ends)


def unequal(compared: Sequence[tuple[float, float]]) -> str:
    """'compares unequal NFE: 19 against 20', or '' where all pairs have equal ones.

    compared: pairs (of what is compared, of what it is compared with).
    """
    pairs = [(ours, theirs) for ours, theirs in compared if not (math.isnan(ours) or math.isnan(theirs))]
    if all(ours == theirs for ours, theirs in pairs):
        return ""
    return f"compares unequal NFE: {span(ours for ours, _ in pairs)} against {span(theirs for _, theirs in pairs)}"
