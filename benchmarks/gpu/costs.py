"""Costs of work on a device: seconds, launches, waits, arithmetic, and the measured peak. Used by all of `gpu`."""

from __future__ import annotations

import math
import signal
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.flop_counter import FlopCounterMode

from diffbench.machine import laps as timing

Work = Callable[[], object]           # does it once
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")       # beginnings of the profiler's names
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
SPAN = "the work that is counted"


@dataclass(frozen=True)
class Prepared:
    """A variant that has been run once."""

    work: Work
    set_up_seconds: float             # making it and its first run


def prepared(make: Callable[[], Work], device: torch.device) -> Prepared:
    """Makes a variant and runs it once."""
    timing.synchronise(device)
    since = time.perf_counter()
    work = make()
    work()
    timing.synchronise(device)
    return Prepared(work, time.perf_counter() - since)


def in_turns(works: Mapping[str, Work], device: torch.device, laps: int) -> dict[str, float]:
    """Seconds of one run of each piece of work: medians over laps in turns, another one first each time, all warm.

    A single lap, as in a dry run, is one run without a warm-up.
    """
    names = list(works)
    runs = {name: timing.warm_up(work, device).runs if laps > 1 else 1 for name, work in works.items()}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for lap in range(laps):
        for name in names[lap % len(names):] + names[: lap % len(names)]:
            seconds[name].append(timing.lap(works[name], runs[name], device))
    return {name: statistics.median(durations) for name, durations in seconds.items()}


@dataclass(frozen=True)
class Counts:
    """Counts of one run on the device."""

    launches: int                     # kernels and graphs launched; on a CPU calls of operators
    host_waits: int                   # times the host waits for the device
    busy_seconds: float               # sum over kernels and copies; 0 on a CPU


def counts(work: Work, device: torch.device) -> Counts:
    """Counts by the profiler over one run of work that is warm."""
    is_cuda = device.type == "cuda"
    timing.synchronise(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as profiler:
        with record_function(SPAN):
            work()
        timing.synchronise(device)
    # As they come: profiler.events() would make a tree of them, which takes a second a step.
    events = profiler.profiler.kineto_results.events()
    span = next(event for event in events if event.name() == SPAN and event.device_type() == DeviceType.CPU)
    begins, ends = span.start_ns(), span.start_ns() + span.duration_ns()
    names = [event.name() for event in events
             if event.device_type() == DeviceType.CPU and begins <= event.start_ns() <= ends]  # of every thread
    busy = sum(
        event.duration_ns() for event in events if event.device_type() == DeviceType.CUDA and event.name() != SPAN
    )
    beginnings = LAUNCHES if is_cuda else ("aten::",)
    return Counts(
        launches=sum(name.startswith(beginnings) for name in names),
        host_waits=sum(name.startswith(WAITS) or name == "cudaMemcpy" for name in names),
        busy_seconds=busy / 1e9,
    )


def flops_of(work: Work) -> int:
    """Floating-point operations of the products and convolutions of one run, an addition and a multiplication each."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@dataclass
class Peak:
    """FLOP/s of a bfloat16 product of two square random matrices, measured at this moment."""

    device: torch.device
    size: int                         # rows and columns
    flops_per_second: float = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator(self.device).manual_seed(0)
        a, b = (torch.randn(self.size, self.size, generator=generator, device=self.device).bfloat16() for _ in range(2))
        seconds = in_turns({"product": lambda: a @ b}, self.device, 3)["product"]
        self.flops_per_second = 2 * self.size**3 / seconds


class TooLong(BaseException):
    """Raised in work that exceeds its time; no Exception, since compilers catch those."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Context that raises TooLong in the main thread when its time is over."""
    def stop(number: int, frame: object) -> None:
        raise TooLong
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def parameters(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in network.parameters())


def percent(share: float) -> str:
    """A share as text, such as '41 %', with two digits where it is small."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def rounded(value: float, digits: int = 3) -> str:
    """A number as text with so many digits, such as '12,300' or '0.0123'."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    places = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{round(value, places):,.{max(0, places)}f}"
