"""How long a run still takes, from how long its stages took so far, or took in earlier runs of the same folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffbench.watching import RunState, StageState

ENOUGH = 0.05                         # share of a stage after which its own pace says more than that of others


def of_run(state: RunState) -> float | None:
    """The work left, divided among as many workers as were seen at once, but no less than the longest chain of stages that wait for
    each other; then the stages that have the device to themselves. Seconds; None before there is anything to go by.
    """
    longest: dict[str, float] = {}                        # of one stage of a kind that is left
    work = {False: 0.0, True: 0.0}
    for kind, counts in state.counts.items():
        if counts["waiting"]:
            mean = mean_seconds(state, kind)
            if mean is None:
                return None
            work[is_exclusive(kind)] += mean * counts["waiting"]
            longest[kind] = mean
    for stage in state.running.values():
        left = of_stage(state, stage)
        if left is None:
            return None
        work[is_exclusive(stage.kind)] += left
        longest[stage.kind] = max(left, longest.get(stage.kind, 0.0))
    chains: dict[str, float] = {}

    def chain(kind: str) -> float:
        if kind not in chains:
            chains[kind] = 0.0                            # before its children are asked: a plan from a stranger may go round in a circle
            chains[kind] = longest.get(kind, 0.0) + max((chain(child) for child in state.leads_to.get(kind, ())), default=0.0)
        return chains[kind]
    shared = max(work[False] / state.at_once[False], max((chain(kind) for kind in longest if not is_exclusive(kind)), default=0.0))
    return shared + work[True] / state.at_once[True]


def of_stage(state: RunState, stage: StageState) -> float | None:
    """Seconds left of a running stage: from its own pace once that says something, else from others of its kind."""
    if stage.share >= ENOUGH:
        return state.elapsed(stage) * (1 - stage.share) / stage.share
    mean = mean_seconds(state, stage.kind)
    return None if mean is None else max(0.0, mean - state.elapsed(stage))


def mean_seconds(state: RunState, kind: str) -> float | None:
    """Of the stages of a kind that are done; before the first, from the pace of those that run; else the least of other kinds: there is no better guess."""
    if kind in state.spent:
        count, seconds = state.spent[kind]
        return seconds / count
    paces = [state.elapsed(s) / s.share for s in state.running.values() if s.kind == kind and s.share >= ENOUGH]
    if paces:
        return sum(paces) / len(paces)
    return min((seconds / count for count, seconds in state.spent.values()), default=None)


def earlier(events: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean seconds by kind of the stages that these events say were done."""
    found: dict[str, list[float]] = {}
    for event in events:
        if event["event"] == "stage_finished" and event.get("status") == "ok" and isinstance(event.get("seconds"), int | float):
            found.setdefault(str(event.get("stage")), []).append(max(0.0, event["seconds"]))
    return {kind: sum(seconds) / len(seconds) for kind, seconds in found.items()}


def is_exclusive(kind: str) -> bool:
    """Whether stages of a kind have the device to themselves and come last: what `planning.Stage.is_exclusive` says, without a plan."""
    return kind == "throughput"
