"""Laps of two versions in turns, in pairs of processes. Used by `twice`.

A machine that slows down for a second slows both; a process that happens to lie badly in memory is one of several. Only
one of the two works at a time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.speed.gate import Laps
from diffbench.errors import DiffbenchError

LAP_SECONDS = 0.02                    # the shortest lap; shorter ones would time the operating system
LAPS = 20                             # of each version, in each pair of processes
LAPS_LONG = 5                         # of cases of which LAPS would take longer than CASE_SECONDS
CASE_SECONDS = 10.0
WARM = 2                              # laps that do not count
RUNS_MOST = 20_000                    # in one lap
CLOCKS = ("wall", "processor")        # the second says nothing of a GPU, and of threads only how much they spin

CHILD = Path(__file__).with_name("child.py")


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of the code and the interpreter that runs it."""

    name: str
    python: str = sys.executable
    path: tuple[str, ...] = ()        # folders that come before what the interpreter finds by itself


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to measure."""

    names: tuple[str, ...] = ()       # of components; all, and the harness, where none is named
    phrases: tuple[str, ...] = ()     # that the name of a case must have
    device: str = "cpu"
    threads: int = 1
    plugins: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Measurements:
    """The laps of each pair of processes by case and clock, and the reasons for cases that were left out."""

    laps: dict[tuple[str, str], list[Laps]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)


def measure(there: Version, here: Version, request: Request, pairs: int, *, only: Sequence[str] | None = None,
            slowed: float = 1.0,
            say: Callable[[str], None] = lambda text: None, start: Start | None = None) -> Measurements:
    """The laps of every case that both versions have.

    only: names of cases to be measured, all where None. slowed: how many times as much `here` does in each lap, to see
    what would be found.
    start: how a process of a version is had; a fresh one where None. Raises DiffbenchError where a version does not
    start, or the two do not run on the same torch and interpreter.
    """
    measurements, start = Measurements(), start or started
    for pair in range(pairs):
        with start(there, request) as other_child, start(here, request) as this_child:
            _same_machine(other_child, this_child)
            measurements.machine = this_child.facts["machine"]
            shared = [name for name in this_child.facts["cases"] if name in other_child.facts["cases"]]
            for name in this_child.facts["cases"]:
                if name not in shared:
                    measurements.left_out[name] = f"{there.name} has no such case"
            for name in other_child.facts["cases"]:
                if name not in this_child.facts["cases"]:
                    measurements.left_out[name] = f"{here.name} has no such case"
            for name in shared:
                if name in measurements.left_out or (only is not None and name not in only):
                    continue
                reason = _turns(name, other_child, this_child, measurements, pair, request, slowed)
                if reason:
                    measurements.left_out[name] = reason
        say(f"pair {pair + 1} of {pairs} measured")
    measurements.laps = {(name, clock): laps for (name, clock), laps in measurements.laps.items()
                         if name not in measurements.left_out}
    return measurements


def _turns(name: str, other_child: Child, this_child: Child, measurements: Measurements, pair: int, request: Request,
           slowed: float) -> str | None:
    """Measures one case in one pair of processes; returns the reason where it cannot, or None."""
    first = []
    for child in (other_child, this_child):
        answer = child.ask(do="prepare", case=name)
        if "why" in answer:
            return f"in {child.version.name}: {answer['why']}"
        first.append(answer["wall"])
    runs = _runs(min(first))
    long = runs == 1 and LAPS * max(first) > CASE_SECONDS
    seconds: dict[tuple[Child, str], list[float]] = {(child, clock): [] for child in (other_child, this_child)
                                                     for clock in CLOCKS}
    for lap in range((LAPS_LONG if long else LAPS) + WARM):
        # Who begins alternates, within a pair of processes and between pairs: what comes second finds other caches.
        for child in (other_child, this_child) if (lap + pair) % 2 == 0 else (this_child, other_child):
            answer = child.ask(do="lap", runs=max(1, round(runs * slowed)) if child is this_child else runs)
            if "why" in answer:
                return f"in {child.version.name}: {answer['why']}"
            for clock in CLOCKS:
                seconds[child, clock].append(answer[clock] / runs)
        if lap == 0 and not long:                         # the first runs are slow: by now it is known what a run takes
            runs = _runs(min(seconds[child, "wall"][0] for child in (other_child, this_child)))
    for clock in CLOCKS if request.device == "cpu" and request.threads == 1 else CLOCKS[:1]:
        laps = Laps(there=tuple(seconds[other_child, clock][WARM:]), here=tuple(seconds[this_child, clock][WARM:]))
        measurements.laps.setdefault((name, clock), []).append(laps)
    return None


def _runs(seconds: float) -> int:
    """The number of runs in a lap."""
    return min(RUNS_MOST, math.ceil(LAP_SECONDS / max(seconds, 1e-7)))


def _same_machine(first: Child, second: Child) -> None:
    from diffbench.testing.speed.figures import differences

    differ = differences(first.facts["machine"], second.facts["machine"])
    if differ:
        raise DiffbenchError(f"{first.version.name} and {second.version.name} cannot be compared, the difference would "
                             f"not be ours: {differ}")


@dataclass(eq=False)
class Child:
    """A process that measures a version."""

    version: Version
    process: subprocess.Popen[str]
    facts: dict[str, Any] = field(default_factory=dict)

    def ask(self, **message: Any) -> dict[str, Any]:
        """The answer to a message. Raises DiffbenchError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise DiffbenchError(f"the process that measures {self.version.name} ended with exit code "
                                 f"{self.process.wait()} at {message}")
        return json.loads(line)


Start = Callable[[Version, Request], AbstractContextManager[Child]]


@contextlib.contextmanager
def started(version: Version, request: Request) -> Iterator[Child]:
    """A process in a folder of its own, after its first message."""
    with tempfile.TemporaryDirectory(prefix="diffbench-bench-") as folder:
        path = os.pathsep.join((*version.path, *filter(None, [os.environ.get("PYTHONPATH")])))
        environment = os.environ | {"PYTHONPATH": path, "DIFFBENCH_HOME": f"{folder}/home",
                                    "OMP_NUM_THREADS": str(request.threads), "PYTHONHASHSEED": "0"}
        process = subprocess.Popen([version.python, str(CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   text=True, cwd=folder, env=environment)
        try:
            child = Child(version, process)
            child.facts = child.ask(do="begin", device=request.device, threads=request.threads,
                                    plugins=[str(Path(p).resolve()) for p in request.plugins],
                                    names=list(request.names), phrases=list(request.phrases))
            if "why" in child.facts:
                raise DiffbenchError(f"{version.name} cannot be measured: {child.facts['why']}")
            _is_the_version_meant(child)
            yield child
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):    # what it has not read does not matter any more
                    stream.close()


def _is_the_version_meant(child: Child) -> None:
    """An installation that overrides the path would be compared with itself."""
    imported = Path(child.facts["from"]).resolve()
    if child.version.path and not imported.is_relative_to(Path(child.version.path[0]).resolve()):
        raise DiffbenchError(f"{child.version.name} is in {child.version.path[0]}, and its process imported diffbench "
                             f"from {imported.parent}")
