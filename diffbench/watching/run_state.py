"""The state of a run as its events tell it: what `diffbench run` and `diffbench watch` show, and what programs read.

A `RunState` knows the stages of the plan and is fed events, of one run or of several that share a folder. It reads no
file and draws nothing. Durations come from clocks that are never set: those of the events, and the time since an event
was heard.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from diffbench.store.event_fields import is_number, is_whole
from diffbench.store.stage_kinds import is_exclusive
from diffbench.watching.event_log import KEY_LETTERS

NOTES = 200                           # sentences kept


class Work(NamedTuple):
    """How much a stage does, which is all that the time it takes is told by."""

    kind: str
    like: str = ""                    # stages of one kind and one `like` do the same work per unit
    units: float = 1.0
    network: str = ""
    evaluations: float = 0.0          # of that network, about; 0 where it evaluates none


@dataclass(slots=True)
class StageState:
    """What is known of a stage."""

    kind: str                         # "train", "sample", ...
    label: str
    status: str = "waiting"           # then "running", and "ok", "failed", "diverged" or "blocked"
    reason: str = ""
    tries: int = 0
    done: int = 0                     # units of its work, of how many
    of: int = 0
    figures: dict[str, float | None] = field(default_factory=dict)
    since: float = 0.0                # seconds of its writer's clock at which it started
    work: Work = Work("")
    writer: str = ""                  # who runs it

    @property
    def share(self) -> float:
        """Share of it that is done, in [0, 1]."""
        return min(1.0, max(0.0, self.done / self.of)) if self.of > 0 else 0.0


@dataclass(slots=True)
class WriterState:
    """A process that runs, or ran, stages of this plan."""

    status: str = "running"           # then "finished", "interrupted", "failed" or "gone" (ended without a word)
    host: str = ""
    pid: int = 0
    number: int = 0                   # of this run among those of the folder
    is_locked: bool = False
    reason: str = ""
    t: float = 0.0                    # seconds since it began, at its last event
    heard: float = 0.0                # our clock at that moment
    counts: dict[str, int] = field(default_factory=dict)      # cells by status, once it has finished


class RunState:
    """stages: key -> {"name", "label", "parents", "work"} as in plan.json;
    earlier: mean seconds by kind of stage, of runs before this one.
    """

    def __init__(self, stages: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, float] | None = None,
                 clock: Callable[[], float] = time.monotonic):
        self.clock, self.name = clock, ""
        self.stages = {key[:KEY_LETTERS]: StageState(str(s["name"]), str(s["label"]), work=_work(s))
                       for key, s in stages.items()}
        self.counts: dict[str, Counter[str]] = {}                     # kind -> how many stages have which status
        self.waiting: Counter[Work] = Counter()                       # how many stages of a work wait
        # of stages done in this run: how many, and their seconds
        self.took: dict[Work, tuple[int, float]] = {}
        self.leads_to: dict[str, set[str]] = {}                       # kind -> kinds that wait for it
        for s in stages.values():
            self.counts.setdefault(str(s["name"]), Counter())["waiting"] += 1
            self.waiting[_work(s)] += 1
            for parent in s["parents"].values():
                if parent in stages:
                    self.leads_to.setdefault(str(stages[parent]["name"]), set()).add(str(s["name"]))
        self.running: dict[str, StageState] = {}
        self.writers: dict[str, WriterState] = {}
        self.rows: dict[str, str] = {}                                # cell -> status
        self.notes: deque[str] = deque(maxlen=NOTES)
        self.earlier = dict(earlier or {})
        # most stages seen running together; by whether they want the device to themselves
        self.at_once: dict[bool, int] = {False: 1, True: 1}

    def apply(self, event: Mapping[str, Any], writer: str = "", age: float = 0.0) -> None:
        """Takes in an event that its writer wrote `age` seconds ago.
        One that is not known, or not whole, changes nothing.
        """
        who = self.writers.setdefault(writer, WriterState())
        if not is_whole(event):
            return
        who.t, who.heard = max(who.t, float(event["t"])), self.clock() - max(0.0, age)
        if who.status == "gone":
            who.status = "running"
        if event["event"] in _HANDLED:
            getattr(self, f"_{event['event']}")(event, writer, who)

    def lose(self, writer: str) -> None:
        """A writer is gone without a word: what it ran waits again."""
        self.writers[writer].status = "gone"
        self._release(writer)

    def now(self, writer: str) -> float:
        """Seconds since a writer began; of one that has ended, until its last event."""
        who = self.writers[writer]
        return who.t + (self.clock() - who.heard if who.status == "running" else 0.0)

    def silence(self, writer: str) -> float:
        """Seconds since a writer's last event."""
        return max(0.0, self.clock() - self.writers[writer].heard)

    @property
    def latest(self) -> str | None:
        """The writer to speak of: one that runs, else the last that ran."""
        return max(self.writers, key=lambda name: (self.writers[name].status == "running", self.writers[name].number),
                   default=None)

    @property
    def status(self) -> str:
        """"waiting" before any event, else the status of the latest writer."""
        return "waiting" if self.latest is None else self.writers[self.latest].status

    def elapsed(self, stage: StageState) -> float:
        """Seconds a running stage has taken so far."""
        return max(0.0, self.now(stage.writer) - stage.since)

    def total(self, status: str) -> int:
        """Stages with a status."""
        return sum(counts[status] for counts in self.counts.values())

    @property
    def done(self) -> int:
        """Stages of which nothing more is to come."""
        return len(self.stages) - self.total("waiting") - self.total("running")

    def bad(self) -> list[StageState]:
        """Stages that failed or diverged."""
        return ([s for s in self.stages.values() if s.status in ("failed", "diverged")]
                if self.total("failed") + self.total("diverged") else [])

    def _run_started(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        who.host, who.pid, who.number, who.is_locked = (str(event["host"]), int(event["pid"]), int(event["number"]),
                                                        bool(event["locked"]))
        self.name = str(event["name"])
        if not self.running:
            self.at_once = {False: 1, True: 1}
        # this run looks for itself what is done, and tries again what failed
        for key, stage in self.stages.items():
            if stage.status != "running":
                self._set(key, stage, "waiting")
                stage.tries, stage.reason = 0, ""
        self.rows.clear()

    def _stages_found(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        for key in event["keys"]:
            if key in self.stages:
                self._set(key, self.stages[key], "ok")

    def _stage_started(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        key, tries = event["key"], int(event["try"])
        if key in self.stages:
            stage = self.stages[key]
            self._set(key, stage, "running")
            stage.writer, stage.since, stage.tries, stage.done, stage.of, stage.figures = writer, float(
                event["t"]), tries, 0, 0, {}
            for kind in (False, True):
                self.at_once[kind] = max(self.at_once[kind],
                                         sum(is_exclusive(s.kind) == kind for s in self.running.values()))

    def _stage_progress(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        stage = self.running.get(event["key"])
        if stage is not None and stage.writer == writer:
            figures = {str(name): None if value is None else float(value) for name, value in event["figures"].items()}
            stage.done, stage.of, stage.figures = int(event["done"]), int(event["of"]), figures

    def _stage_finished(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        stage, status = self.stages.get(event["key"]), event["status"]
        if stage is None or (stage.status == "ok" and status != "ok"):
            return
        self._set(event["key"], stage, status)
        stage.reason = str(event["reason"])
        if status == "ok" and not event["cached"]:
            count, seconds = self.took.get(stage.work, (0, 0.0))
            self.took[stage.work] = count + 1, seconds + float(event["seconds"])

    def _row_added(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        self.rows[str(event["cell_id"])] = str(event["status"])

    def _note(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        self.notes.append(str(event["text"]))

    def _run_finished(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        who.counts = {str(status): int(n) for status, n in event["counts"].items()}
        self._end(writer, "finished", "")

    def _run_interrupted(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        self._end(writer, "interrupted", str(event["reason"]))

    def _run_failed(self, event: Mapping[str, Any], writer: str, who: WriterState) -> None:
        self._end(writer, "failed", str(event["reason"]))

    def _end(self, writer: str, status: str, reason: str) -> None:
        self.writers[writer].status, self.writers[writer].reason = status, reason
        self._release(writer)

    def _release(self, writer: str) -> None:
        for key, stage in list(self.running.items()):
            if stage.writer == writer:
                self._set(key, stage, "waiting")

    def _set(self, key: str, stage: StageState, status: str) -> None:
        self.waiting[stage.work] += (status == "waiting") - (stage.status == "waiting")
        self.counts[stage.kind][stage.status] -= 1
        self.counts[stage.kind][status] += 1
        stage.status = status
        if status == "running":
            self.running[key] = stage
        else:
            self.running.pop(key, None)


_HANDLED = {name.removeprefix("_") for name in vars(RunState) if name.startswith(("_run_", "_stage", "_row_", "_note"))}


def _work(stage: Mapping[str, Any]) -> Work:
    """The work of a stage of a plan; by its kind alone where the plan says no more."""
    kind, work = str(stage["name"]), stage.get("work")
    if not isinstance(work, Mapping) or not isinstance(work.get("like"), str):
        return Work(kind)
    network = {"network": work["network"]} if isinstance(work.get("network"), str) else {}
    return Work(kind, work["like"], **network, **{name: work[name] for name in ("units", "evaluations")
                                                  if is_number(work.get(name)) and work[name] > 0})
