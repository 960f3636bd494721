"""Running a plan: which stages are left, which may start now, and what became of each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from diffbench import interrupts
from diffbench.claims import Claims, Holder, sweep
from diffbench.errors import Damaged, DiffbenchError, DiskFull
from diffbench.frontier import Frontier
from diffbench.launchers import Capacity, Ended, Job, Launcher, Resources
from diffbench.planning import CellPlan, Plan, Stage
from diffbench.store import Store
from diffbench.tries import Failure, Try

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0                    # between looks at what other runs work on
CLASSIFIED_LINES = 50                 # of the log, that a plug-in may judge a failure by
REBUILDS = 3                          # of one artefact in one run: a disk that damages what is written is not fought forever


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage."""

    status: str                       # "ok", "failed", "diverged" or "blocked" (a parent did not finish)
    reason: str = ""
    seconds: float = 0.0
    cached: bool = False
    tries: int = 0


class Watcher(Protocol):
    """Is told what happens; the display and the results are watchers."""

    def started(self, stage: Stage) -> None:
        """A worker has been given this stage."""

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """A running stage says how far it is, with figures such as loss or images_per_second."""

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage ended, was found done or cannot be done."""

    def note(self, text: str) -> None:
        """Something people should know: an artefact is damaged and rebuilt, a stage is tried again."""


class Engine:
    """One run of a plan over a store. `outcomes` holds what is known of each stage so far."""

    def __init__(self, plan: Plan, store: Store, make_launcher: Callable[[], Launcher], watchers: list[Watcher], *, jobs: int | None = None,
                 threads: int | None = None, plugins: Iterable[str] = (), check: Callable[[], None] = lambda: None):
        self.plan, self.store, self.make_launcher, self.watchers, self.jobs, self.threads = plan, store, make_launcher, watchers, jobs, threads
        self.plugins = [str(Path(file).resolve()) for file in plugins]          # a worker may have another working folder
        self.stages = plan.needed()
        self.check = check                                # called now and then; what it raises ends the run
        self.frontier = Frontier(self.stages)
        self.claims = Claims()
        self.capacity = Capacity(slots=1, threads=1, machines=1)
        self.outcomes: dict[str, Outcome] = {}
        self.running: dict[str, Try] = {}                 # by key
        self.elsewhere: dict[str, Holder] = {}            # key -> who works on it
        self.looked = 0.0
        self.tries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()           # those that count against `run.retries`
        self.rebuilds: Counter[str] = Counter()
        self.batches: dict[str, int] = {}                 # sampling batches halved after out of memory
        self.measured_for: dict[str, list[CellPlan]] = {} # stage that measures speed -> the cells it does so for
        for planned in plan.cells:
            for key in planned.stages.values():
                if self.stages[key].is_exclusive:
                    self.measured_for.setdefault(key, []).append(planned)

    @property
    def device_kind(self) -> str:
        """"cpu" or "cuda"."""
        return self.plan.device.partition(":")[0]

    def find_done(self) -> int:
        """Looks up what the store has already; returns how many stages that is."""
        unknown = [stage for key, stage in self.stages.items() if key not in self.outcomes]
        found = self.store.find((stage.name, stage.key) for stage in unknown)
        for stage in unknown:
            if stage.key in found.damaged:
                self._note_damage(stage)
            elif stage.key in found.done:
                self._finish(stage, Outcome(status="ok", cached=True))
        return sum(o.cached for o in self.outcomes.values())

    def run(self) -> None:
        """Does everything that can be done. An interruption kills the workers and is passed on; what was published stays."""
        self.find_done()
        if len(self.outcomes) == len(self.stages):
            return
        launcher = self.make_launcher()
        try:
            widest = max(Counter(s.name for s in self.stages.values() if not s.is_exclusive).values(), default=1)
            sweep(self.store.root / "claims")
            self.capacity = launcher.capacity(self.device_kind, widest, self.jobs)
            if self.threads is not None:
                self.capacity = self.capacity.with_threads(self.threads, keeps_slots=self.jobs is not None)
            while len(self.outcomes) < len(self.stages):
                interrupts.check()
                self._start_ready(launcher)
                for ended in launcher.poll(POLL_SECONDS if self.running else LOOK_SECONDS / 4):
                    self._ended(ended)
                self._look_at_running(launcher)
                self._look_around()
        finally:
            launcher.close()
            self.claims.close()

    def _start_ready(self, launcher: Launcher) -> None:
        measuring = any(t.stage.is_exclusive for t in self.running.values())
        while not measuring and len(self.running) < self.capacity.slots:
            stage = self.frontier.take(exclusive=False)
            if stage is None:
                break
            self._start(stage, launcher)
        # Speed is measured when nothing else is left to run, or it would be measured against it.
        while len(self.running) < self.capacity.machines and all(t.stage.is_exclusive for t in self.running.values()) and not self.elsewhere:
            stage = self.frontier.take(exclusive=True)
            if stage is None:
                break
            reason = self._not_worth_measuring(stage)
            if reason is not None:
                self._finish(stage, Outcome(status="blocked", reason=reason))
                continue
            self._start(stage, launcher)

    def _not_worth_measuring(self, stage: Stage) -> str | None:
        """Why the speed of what could not even be sampled is not measured; None where some cell has use for it."""
        reasons = []
        for planned in self.measured_for[stage.key]:
            bad = next((o for key in planned.stages.values() if (o := self.outcomes.get(key)) is not None and o.status != "ok"), None)
            if bad is None:
                return None
            reasons.append(bad.reason)
        return reasons[0]

    def _start(self, stage: Stage, launcher: Launcher) -> None:
        claim = self.store.claim(stage.key)
        holder = self.claims.take(claim)
        if holder is not None:
            if stage.key not in self.elsewhere:
                self._note(f"{stage.name} {stage.label}: {holder} works on it; its result is waited for")
            self.elsewhere[stage.key] = holder
            return
        if self._has(stage):                              # another run was faster
            self.claims.release(claim)
            self._finish(stage, Outcome(status="ok", cached=True))
            return
        run = self.plan.matrix.run
        threads = self.capacity.machine_threads if stage.is_exclusive else min(self.capacity.threads * stage.gpus, self.capacity.machine_threads)
        gpus = 0.0 if self.device_kind == "cpu" else float(stage.gpus) if stage.is_exclusive or stage.gpus > 1 else self.capacity.gpus
        execution = {"device": self.device_kind, "threads": threads, "memory_share": min(1.0, gpus or 1.0), "checkpoint_seconds": run.checkpoint,
                     "is_deterministic": run.deterministic, "compile": run.compile, "plugins": self.plugins,
                     "claim": self.claims.token(claim), "exclusive": stage.is_exclusive}
        if stage.key in self.batches:
            execution["batch_size"] = self.batches[stage.key]
        limit = run.limit(stage.name)
        tried = Try(stage, self.store.new_attempt(stage, execution), limit=limit, stall=run.stall)
        self.tries[stage.key] += 1
        self.running[stage.key] = tried
        for watcher in self.watchers:
            watcher.started(stage)
        launcher.submit(Job(id=stage.key, store=self.store.root, attempt=tried.attempt,
                            resources=Resources(device=self.device_kind, threads=threads, gpus=gpus, is_exclusive=stage.is_exclusive, seconds=limit)))

    def _ended(self, ended: Ended) -> None:
        tried = self.running.pop(ended.id)
        stage, seconds = tried.stage, time.monotonic() - tried.since
        self._report(tried, tried.look(at_once=True))
        has = self._has(stage)
        self.claims.release(self.store.claim(stage.key))
        if has:
            return self._finish(stage, Outcome(status="ok", seconds=seconds, tries=self.tries[stage.key]))
        failure = self._classified(stage, ended, tried)
        if self._goes_on(stage, failure):
            return self.frontier.put_back(stage.key)
        self._finish(stage, Outcome(status=failure.status, reason=f"{stage.name}: {failure.reason}", seconds=seconds, tries=self.tries[stage.key]))
        if failure.kind == "disk":                        # whatever is started next would fail too
            raise DiskFull(f"{failure.reason}. Nothing new is started; make room, and the same line again goes on")
        return None

    def _classified(self, stage: Stage, ended: Ended, tried: Try) -> Failure:
        """Why a try failed, with the better word of a plug-in before it."""
        failure = tried.failure(ended)
        if failure.status != "failed":
            return failure
        better = self.plan.registry.first("diffbench_classify_failure", stage=stage, code=ended.code, reason=failure.reason,
                                          log_tail="\n".join(tried.last_lines(CLASSIFIED_LINES)))
        return replace(failure, reason=f"{' '.join(better.split())}: {failure.reason}") if isinstance(better, str) and better.strip() else failure

    def _goes_on(self, stage: Stage, failure: Failure) -> bool:
        """Whether a stage that failed is run again; what it needs for that is arranged."""
        if failure.kind == "superseded":                  # its claim was taken over; who has it will be asked
            return True
        if failure.kind == "damaged" and failure.artefact in self.stages:
            return failure.artefact not in self.outcomes or self._rebuild(failure.artefact)
        batch = self.batches.get(stage.key) or stage.sampling_batch
        if failure.kind == "memory" and batch is not None and batch > 1:
            self.batches[stage.key] = batch // 2
            self._note(f"{stage.name} {stage.label}: out of memory with batches of {batch}, tried again with {batch // 2}")
            return True
        self.failures[stage.key] += 1
        if failure.status == "failed" and failure.kind != "request" and self.failures[stage.key] <= self.plan.matrix.run.retries:
            self._note(f"{stage.name} {stage.label}: {failure.reason}; tried again ({self.failures[stage.key]} of {self.plan.matrix.run.retries})")
            return True
        return False

    def _finish(self, stage: Stage, outcome: Outcome) -> None:
        self._tell(stage, outcome)
        if outcome.status == "ok":
            self.frontier.done(stage.key)
            return
        status = "diverged" if outcome.status == "diverged" else "blocked"
        for key in self.frontier.depend_on(stage.key):
            self._tell(self.stages[key], Outcome(status=status, reason=outcome.reason))

    def _tell(self, stage: Stage, outcome: Outcome) -> None:
        self.outcomes[stage.key] = outcome
        for watcher in self.watchers:
            while True:
                try:
                    watcher.finished(stage, outcome)
                except Damaged as damaged:                # a row is made of files, and one of them is not what it was
                    if not self._rebuild(damaged.key):
                        raise DiffbenchError(f"{damaged}, though it was built {REBUILDS} times in this run: the disk is not to be trusted") from None
                    if damaged.key in self.outcomes:      # another run has built it meanwhile
                        continue
                break

    def _has(self, stage: Stage) -> bool:
        """Whether an artefact is there and whole; a damaged one is set aside and said to be."""
        try:
            return self.store.check(stage.name, stage.key)
        except Damaged:
            self._note_damage(stage)
            return False

    def _note_damage(self, stage: Stage) -> None:
        self._note(f"{stage.name} {stage.label}: the artefact {stage.key[:12]} is damaged and set aside; it is built again")

    def _rebuild(self, key: str) -> bool:
        """Has a lost or damaged artefact built again; False where that was done too often."""
        stage = self.stages[key]
        if self._has(stage):
            return True
        self.rebuilds[key] += 1
        if self.rebuilds[key] > REBUILDS:
            return False
        if self.outcomes.pop(key, None) is not None:
            self.frontier.lost(key)
        return True

    def _look_at_running(self, launcher: Launcher) -> None:
        for tried in self.running.values():
            self._report(tried, tried.look())
            if tried.must_stop():
                launcher.cancel(tried.stage.key)

    def _report(self, tried: Try, news: tuple[int, int, dict[str, float]] | None) -> None:
        if news is not None:
            for watcher in self.watchers:
                watcher.progress(tried.stage, *news)

    def _look_around(self) -> None:
        """Whether this run may go on, and what has become of stages that other runs work on: done by now, or free to be taken."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS:
            return
        self.looked = now
        self.check()
        for key in list(self.elsewhere):
            stage = self.stages[key]
            if self._has(stage):
                del self.elsewhere[key]
                self._finish(stage, Outcome(status="ok", cached=True))
            elif self.claims.take(self.store.claim(key)) is None:
                del self.elsewhere[key]
                self.frontier.put_back(key)

    def _note(self, text: str) -> None:
        for watcher in self.watchers:
            watcher.note(text)
