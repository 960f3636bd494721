"""Comparison of two versions; cases that look slower or faster are measured again in fresh processes. Used by `speed`.

A difference is said only where it was found both times: what two processes have by chance, two others do not.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.speed.gate import Verdict, judge
from benchmarks.speed.pairs import Measurements, Request, Start, Version, measure
from diffbench.errors import DiffbenchError


def compare(there: Version, here: Version, request: Request, pairs: int, threshold: float,
            say: Callable[[str], None] = lambda text: None,
            slowed: float = 1.0, start: Start | None = None) -> tuple[list[Verdict], Measurements]:
    """A verdict for each case, and all that was measured. slowed, start: see `pairs.measure`.
    Raises DiffbenchError where there is nothing to compare.
    """
    measurements = measure(there, here, request, pairs, slowed=slowed, say=say, start=start)
    if not measurements.laps:
        reasons = "; ".join(f"{name}: {reason}" for name,
                            reason in list(measurements.left_out.items())[:3]) or "no case fits"
        raise DiffbenchError(f"nothing can be compared: {reasons}")
    verdicts = judge(measurements.laps, threshold)
    suspects = [v.name for v in verdicts if v.is_slower or v.is_faster]
    if not suspects:
        return verdicts, measurements
    say(f"{len(suspects)} of {len(verdicts)} cases differ and are measured again in fresh processes")
    again = measure(there, here, request, pairs, only=suspects, slowed=slowed, say=say, start=start)
    second = {v.name: v for v in judge(again.laps, threshold)}
    # The second verdict stands for a suspect: it was chosen for its first, which is therefore biased.
    return [second.get(v.name, v) if v.name in suspects else v for v in verdicts], measurements
