"""The comparison of two versions: every case measured, and what looks slower or faster measured again in fresh processes.

A difference is said only where it was found both times: what two processes have by chance, two others do not.
"""

from __future__ import annotations

from collections.abc import Callable

from diffbench.benching.gate import Verdict, judge
from diffbench.benching.pairs import Asked, Found, Start, Version, measure
from diffbench.errors import DiffbenchError


def compare(there: Version, here: Version, asked: Asked, pairs: int, threshold: float, say: Callable[[str], None] = lambda text: None,
            slowed: float = 1.0, start: Start | None = None) -> tuple[list[Verdict], Found]:
    """A verdict for each case, and all that was measured. slowed, start: see `pairs.measure`. Raises DiffbenchError where there is nothing to compare."""
    found = measure(there, here, asked, pairs, slowed=slowed, say=say, start=start)
    if not found.laps:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(found.left_out.items())[:3]) or f"no case fits -k {asked.expression!r}"
        raise DiffbenchError(f"nothing can be compared: {reasons}")
    verdicts = judge(found.laps, threshold)
    suspects = [v.name for v in verdicts if v.is_slower or v.is_faster]
    if not suspects:
        return verdicts, found
    say(f"{len(suspects)} of {len(verdicts)} cases differ and are measured again in fresh processes")
    again = measure(there, here, asked, pairs, only=suspects, slowed=slowed, say=say, start=start)
    second = {v.name: v for v in judge(again.laps, threshold)}
    # The second verdict stands for a suspect: it was chosen for its first, which is therefore biased.
    return [second.get(v.name, v) if v.name in suspects else v for v in verdicts], found
