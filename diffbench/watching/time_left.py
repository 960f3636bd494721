"""Time a run still takes, from how long its stages took so far, or took in earlier runs of the same folder. Used by the
screen and by `watch`.

Stages of one kind that do the same work per unit (`like`) go by each other. Before the first of them is done, what
evaluates a network goes by seconds per evaluation of that network, or else of any, in stages of whatever kind: the
first training tells how long samplers and timings will take.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from diffbench.store.event_fields import is_whole
from diffbench.store.stage_kinds import is_exclusive

if TYPE_CHECKING:
    from diffbench.watching.run_state import RunState, StageState, Work

ENOUGH = 0.05                         # share of a stage after which its own pace says more than that of others
# what a stage that evaluates no network is taken to last until one was done: start-up, reading, writing
SHORT_SECONDS = 2.0


def of_run(state: RunState) -> float | None:
    """The work left, divided among as many workers as were seen at once, but no less than the longest chain of stages
    that wait for each other; then the stages that have the device to themselves. Seconds; None while nothing is known
    of some kind of stage.
    """
    longest: dict[str, float] = {}                        # of one stage of a kind that is left
    work = {False: 0.0, True: 0.0}
    paces = Paces(state)
    of_waiting = ((kind_of_work, count, paces.seconds(kind_of_work))
                  for kind_of_work, count in state.waiting.items() if count)
    of_running = ((stage.work, 1, _left(state, stage, paces)) for stage in state.running.values())
    for what, count, seconds in (*of_waiting, *of_running):
        if seconds is None:
            return None
        work[is_exclusive(what.kind)] += count * seconds
        longest[what.kind] = max(seconds, longest.get(what.kind, 0.0))
    chains: dict[str, float] = {}

    def chain(kind: str) -> float:
        if kind not in chains:
            # before its children are asked: a plan from a stranger may go round in a circle
            chains[kind] = 0.0
            chains[kind] = longest.get(kind, 0.0) + max((chain(child) for child in state.leads_to.get(kind, ())),
                                                        default=0.0)
        return chains[kind]
    shared = max(work[False] / state.at_once[False], max((chain(kind) for kind in longest if not is_exclusive(kind)),
                                                         default=0.0))
    return shared + work[True] / state.at_once[True]


def of_stage(state: RunState, stage: StageState) -> float | None:
    """Seconds left of a running stage."""
    return _left(state, stage, Paces(state))


def _left(state: RunState, stage: StageState, paces: Paces) -> float | None:
    """Seconds left of a running stage: from its own pace once that says something, else from others."""
    elapsed = state.elapsed(stage)
    if stage.share >= ENOUGH:
        return elapsed * (1 - stage.share) / stage.share
    expected = paces.seconds(stage.work)
    return None if expected is None else max(0.0, expected - elapsed)


class Paces:
    """Seconds per unit of what has been done in a state, by what it was."""

    def __init__(self, state: RunState):
        self.earlier = state.earlier
        self.done: dict[tuple[str, ...], list[float]] = {}            # what -> [seconds, units]
        measured = [(work, seconds, float(count)) for work, (count, seconds) in state.took.items()]
        measured += [(stage.work, state.elapsed(stage), stage.share) for stage in state.running.values()
                     if stage.share >= ENOUGH]
        for work, seconds, count in measured:
            for what, units in self._by(work):
                total = self.done.setdefault(what, [0.0, 0.0])
                total[0] += seconds
                total[1] += units * count

    def seconds(self, work: Work) -> float | None:
        """Time that a whole stage takes; None where nothing says."""
        for what, units in self._by(work):
            # the same kind in another run says more than another kind in this one
            if what[0] != "like" and work.kind in self.earlier:
                break
            seconds, done = self.done.get(what, (0.0, 0.0))
            if done > 0:
                return seconds / done * units
        if work.kind in self.earlier or work.evaluations or not work.like or not self.done:
            return self.earlier.get(work.kind)
        return SHORT_SECONDS

    @staticmethod
    def _by(work: Work) -> Iterator[tuple[tuple[str, ...], float]]:
        """Measures of a stage, the nearest first, and how much of each it is."""
        yield ("like", work.kind, work.like), work.units
        if work.evaluations:
            yield ("network", work.network), work.evaluations
            yield ("evaluations",), work.evaluations
        else:
            # reading and starting take most of its time, whatever the units
            yield ("kind", work.kind), 1.0


def mean_seconds(state: RunState, kind: str) -> float | None:
    """Of the stages of a kind that are done, in this run or in earlier ones of its folder; None before the first."""
    done = [took for work, took in state.took.items() if work.kind == kind]
    return sum(seconds for _, seconds in done) / sum(count for count, _ in done) if done else state.earlier.get(kind)


def earlier(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds by kind of the stages that these events say were done."""
    by_kind: dict[str, list[float]] = {}
    for event in events:
        if is_whole(event) and event["event"] == "stage_finished" and event["status"] == "ok" and not event["cached"]:
            by_kind.setdefault(str(event.get("stage")), []).append(event["seconds"])
    return {kind: sum(seconds) / len(seconds) for kind, seconds in by_kind.items()}
