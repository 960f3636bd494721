"""Timing: laps until warm, then repeated laps between laps of an anchor. Used by throughput stages and benchmarks.

A *run* is the work done once. A *lap* is as many runs in a row as last LAP_SECONDS or longer, between two readings of
the host's clock with the device synchronised at each; all seconds are those of one run. The lap is the shortest thing
that is timed: shorter ones would time the operating system.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

LAP_SECONDS = 0.02                    # the shortest lap
RUN_SECONDS = 1e-6                    # what a run is taken to last at least, so that no lap holds more than 20 000
WARMUP_LAPS = 3                       # warm-up ends when this many laps in a row
WARMUP_AGREE = 0.05                   # differ by no more than this share of their fastest,
WARMUP_MOST = 10                      # or after this many laps,
WARMUP_SECONDS = 20.0                 # or after the lap in which this time is over: long laps warm up within themselves
# standard error, as a share, at which a median lap in units of the anchor is known well enough
KNOWN = 0.015
MOST_LAPS = 5                         # times the laps that were asked for: where that is not reached, timing ends
ANCHOR_SHARE = 0.25                   # length of an anchor's lap, as a share of the lap it stands beside
ANCHOR_MOST = 1.0                     # and its longest, in seconds


@dataclass(frozen=True, kw_only=True)
class Warm:
    """Warm work: seconds of each warm-up lap, and the runs that a lap holds from now on."""

    seconds: tuple[float, ...]
    runs: int

    @property
    def is_settled(self) -> bool:
        """Whether the last WARMUP_LAPS laps agreed."""
        last = self.seconds[-WARMUP_LAPS:]
        return len(last) == WARMUP_LAPS and max(last) - min(last) <= WARMUP_AGREE * min(last)


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Wall seconds of repeated laps of work, each of one run."""

    seconds: tuple[float, ...]      # by lap, in order
    inside: tuple[float, ...] = ()  # of them, those spent inside the part that was watched; empty where none was
    anchor: tuple[float, ...] = ()  # of the anchor: before the first lap, between laps, after the last; empty without
                                    # one

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def median_inside(self) -> float:
        """The seconds inside, of the lap with the median time (the mean of two where two have it)."""
        order = sorted(range(len(self.seconds)), key=self.seconds.__getitem__)
        middle = order[(len(order) - 1) // 2 : len(order) // 2 + 1]
        return statistics.fmean(self.inside[lap] for lap in middle)

    @property
    def quartiles(self) -> tuple[float, float]:
        """(first, third)."""
        return quartiles(self.seconds)

    @property
    def spread(self) -> float:
        """Interquartile range as a share of the median."""
        low, high = self.quartiles
        return (high - low) / self.median

    @property
    def error_in_anchors(self) -> float:
        """Relative standard error of the median lap in units of the anchor, from the quartiles.

        For normal laps: sqrt(pi/2) standard deviations over sqrt(n), a standard deviation being the interquartile range
        over 1.349.
        """
        low, high = quartiles(self.in_anchors)
        return math.sqrt(math.pi / 2 / len(self.in_anchors)) * (high - low) / 1.349 / statistics.median(self.in_anchors)

    @property
    def in_anchors(self) -> tuple[float, ...]:
        """Each lap in units of the mean of the anchor's laps just before and after it."""
        return tuple(2 * lap / (before + after) for lap, before, after in zip(
            self.seconds, self.anchor, self.anchor[1:], strict=False))


class Stopwatch:
    """Seconds spent inside watched calls; on CUDA by events in the stream, which are read when taken.

    On CUDA these are seconds of the device's time line, waiting for a slow host included, so that inside and outside
    add up to the whole.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self.spans: list[tuple[Any, Any]] = []

    def watch(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same callable, watched."""
        def watched(*arguments: Any) -> Any:
            begin = self._mark()
            result = call(*arguments)
            self.spans.append((begin, self._mark()))
            return result
        return watched

    def take(self) -> float:
        """Seconds since the last call; the device must be synchronised."""
        spans, self.spans = self.spans, []
        if self.device.type == "cuda":
            return sum(begin.elapsed_time(end) for begin, end in spans) / 1e3
        return sum(end - begin for begin, end in spans)

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event


def warm_up(work: Callable[[], object], device: torch.device) -> Warm:
    """Runs `work` until it is warm (see WARMUP_...)."""
    laps, runs, seconds_spent = [], 1, 0.0
    while True:
        laps.append(lap(work, runs, device))
        seconds_spent += laps[-1] * runs
        runs = max(runs, math.ceil(LAP_SECONDS / max(laps[-1], RUN_SECONDS)))
        warm = Warm(seconds=tuple(laps), runs=runs)
        if warm.is_settled or len(laps) == WARMUP_MOST or seconds_spent >= WARMUP_SECONDS:
            return warm


def timed(work: Callable[[], object], warm: Warm, repeats: int, device: torch.device, *,
          take: Callable[[], float] | None = None,
          anchor: Callable[[], object] | None = None) -> Timing:
    """`repeats` laps of warm work; with an anchor up to MOST_LAPS times as many, until the median is KNOWN.

    take: seconds spent inside the watched part since it was last asked, such as a stopwatch's.
    anchor: work that is always the same, of which a lap stands before, between and after the others.
    """
    seconds, inside, anchors, runs = [], [], [], 0
    if take is not None:
        take()                                            # what the warm-up left
    if anchor is not None:
        length = min(max(LAP_SECONDS, ANCHOR_SHARE * warm.seconds[-1] * warm.runs), ANCHOR_MOST)
        runs = math.ceil(length / max(min(lap(anchor, 1, device) for _ in range(WARMUP_LAPS)), RUN_SECONDS))
        anchors.append(lap(anchor, runs, device))
    while True:
        seconds.append(lap(work, warm.runs, device))
        if take is not None:
            inside.append(take() / warm.runs)
        if anchor is not None:
            anchors.append(lap(anchor, runs, device))
        timing = Timing(seconds=tuple(seconds), inside=tuple(inside), anchor=tuple(anchors))
        if len(seconds) >= repeats and (anchor is None or len(seconds) == MOST_LAPS * repeats
                                        or timing.error_in_anchors <= KNOWN):
            return timing


def lap(work: Callable[[], object], runs: int, device: torch.device) -> float:
    """Seconds of one run, over this many in a row."""
    synchronise(device)
    start = time.perf_counter()
    for _ in range(runs):
        work()
    synchronise(device)
    return (time.perf_counter() - start) / runs


def quartiles(values: tuple[float, ...]) -> tuple[float, float]:
    """(first, third) quartile, interpolated as numpy does."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, high


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished all work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
