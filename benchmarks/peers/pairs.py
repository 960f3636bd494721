"""Pairs of ways to do one piece of work, timed in turns, and the table of their ratios. Used by `peers`."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

LAP_SECONDS = 0.02                    # the shortest lap; shorter work is repeated within it
LONG_SECONDS = 1.0                    # work that takes longer is called once a lap, and once to warm up
Work = Callable[[], float | None]     # does it once; gives its own seconds, or None to be read off the clock


class Missing(Exception):
    """Raised where a peer cannot do the work here; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One row: our way and a peer's way."""

    label: str                        # the work, and its size
    ours: str
    peer: str
    do_ours: Work
    do_peer: Work
    units: float = 1                  # of the work in one call
    unit: str = "step"
    goal: float | None = None         # the ratio that ours is to reach
    warms_up: bool = True             # whether either is done once before the laps


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A pair with its laps, in seconds of one unit."""

    pair: Pair
    ours: tuple[float, ...]
    peer: tuple[float, ...]

    @property
    def ratios(self) -> tuple[float, ...]:
        """The peer's seconds over ours, by lap."""
        return tuple(peer / ours for ours, peer in zip(self.ours, self.peer, strict=True))


def compare(pair: Pair, laps: int) -> Compared:
    """Laps of both, which of them goes first changing from lap to lap; one warm-up of each before."""
    runs = [_runs(work) if pair.warms_up else 1 for work in (pair.do_ours, pair.do_peer)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for lap in range(laps):
        for side in (0, 1) if lap % 2 == 0 else (1, 0):
            work = (pair.do_ours, pair.do_peer)[side]
            seconds[side].append(sum(_seconds(work) for _ in range(runs[side])) / runs[side] / pair.units)
    return Compared(pair=pair, ours=tuple(seconds[0]), peer=tuple(seconds[1]))


def table(rows: list[Compared]) -> str:
    """Markdown: medians with quartiles in brackets; the ratio is the median over laps of the peer's time over ours."""
    lines = ["| work | ours | peer | ours takes | the peer takes | peer / ours | asked |",
             "|:--|:--|:--|--:|--:|--:|--:|"]
    for row in rows:
        pair, middle = row.pair, statistics.median(row.ratios)
        scale, unit = ((1e6, "µs") if statistics.median(row.ours) < 1e-3
                       else (1e3, "ms") if statistics.median(row.ours) < 1 else (1, "s"))
        goal = "" if pair.goal is None else f"{pair.goal:g}" + ("" if middle >= pair.goal else ", **missed**")
        figures = [_spread([value * scale for value in side]) + f" {unit}" for side in (row.ours, row.peer)]
        lines.append(" | ".join([f"| {pair.label}, a {pair.unit}", pair.ours, pair.peer, *figures,
                                 f"**{_spread(row.ratios)}**", goal]) + " |")
    return "\n".join(lines)


def _spread(values: list[float] | tuple[float, ...]) -> str:
    if len(values) < 3:
        return f"{statistics.median(values):.3g}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def _runs(work: Work) -> int:
    """Calls that make a lap; the first of all is the warm-up, and enough of it where it is long."""
    first = _seconds(work)
    return 1 if first > LONG_SECONDS else max(1, math.ceil(LAP_SECONDS / max(_seconds(work), 1e-6)))


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    own = work()
    return time.perf_counter() - start if own is None else own
