"""How long a plan will take, by what earlier stages took on this machine.
It never invents a number: what is unknown is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from diffbench.machine.fingerprint import cores, machine_digest
from diffbench.planning.history import Expected, History
from diffbench.planning.plan import Plan
from diffbench.planning.stage import Stage
from diffbench.store.artefacts import Store
from diffbench.wording import spoken


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Wall time of the stages that are left; each figure as (median, low, high), low and high from quartiles."""

    seconds: tuple[float, float, float]                       # of the stages that can be estimated
    workers: int
    earlier: int                                              # earlier stages it goes by
    unknown: dict[str, int] = field(default_factory=dict)     # stages by kind that no earlier run says anything about
    stages: dict[str, Expected] = field(default_factory=dict) # by key
    left: int = 0                                             # stages to run

    def line(self) -> str:
        """'time: about 41 min (33 to 52) with 4 workers, by 57 earlier stages on this machine;
        not known: 3 throughput'.
        """
        if not self.left:
            return "time: nothing is left to run"
        unknown = ", ".join(f"{count} {name}" for name, count in self.unknown.items())
        if not self.stages:
            return ("time: not known before the first stages are done: none of this size was done on this machine "
                    f"earlier ({unknown})")
        middle, low, high = self.seconds
        workers = f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        return (f"time: about {spoken(middle)} ({spoken(low)} to {spoken(high)}) with {workers}, by {self.earlier:,} "
                f"earlier stage{'s' if self.earlier != 1 else ''} on this machine"
                + (f"; not known and not counted: {unknown}" if unknown else ""))


def history_of(plan: Plan, store: Store, threads: int) -> History:
    """History of this machine that the store holds, for a plan run with so many CPU threads for each worker."""
    return History(store, machine_digest(plan.device), threads, cores())


def estimate(plan: Plan, done: Collection[str], history: History, workers: int) -> Estimate:
    """The time of the stages that are not done: those that share the machine divided by the workers, but never less
    than the longest chain of them; those that need it to themselves one after another."""
    expected: dict[str, Expected] = {}
    unknown: Counter[str] = Counter()
    left = [stage for key, stage in plan.needed().items() if key not in done]
    for stage in left:
        stage_time = history.expected_seconds(stage)
        if stage_time is None:
            unknown[stage.name] += 1
        else:
            expected[stage.key] = stage_time
    going_by = {(s.name, *_work(s)): expected[s.key].stages for s in left if s.key in expected}
    low, middle, high = (_wall([(s, getattr(expected[s.key], figure) if s.key in expected else 0.0) for s in left],
                               workers)
                         for figure in ("low", "seconds", "high")) if expected else (0.0, 0.0, 0.0)
    return Estimate(seconds=(middle, low, high), workers=workers, earlier=sum(going_by.values()), unknown=dict(unknown),
                    stages=expected, left=len(left))


def _work(stage: Stage) -> tuple[str, float]:
    work = stage.task.get("work", {"like": "", "units": 1.0})
    return work["like"], work["units"]


def _wall(left: list[tuple[Stage, float]], workers: int) -> float:
    """Seconds of stages, parents first."""
    shared = sum(seconds for stage, seconds in left if not stage.is_exclusive)
    ends: dict[str, float] = {}
    for stage, seconds in left:
        if not stage.is_exclusive:
            ends[stage.key] = seconds + max((ends.get(parent, 0.0) for parent in stage.parents.values()), default=0.0)
    alone = sum(seconds for stage, seconds in left if stage.is_exclusive)
    return max(shared / workers, max(ends.values(), default=0.0)) + alone
