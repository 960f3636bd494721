"""The engine: runs the stages of a plan that are not done, in order, on a launcher. Used by `api.running`."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from diffbench.errors import Damaged, DiffbenchError, DiskFull
from diffbench.launchers import Capacity, Ended, Job, Launcher, Resources
from diffbench.planning.plan import CellPlan, Plan
from diffbench.planning.stage import Stage
from diffbench.process import interrupts
from diffbench.running import gpu_sharing
from diffbench.running.attempt import Attempt, Failure
from diffbench.running.order import places
from diffbench.running.outcome import Outcome, Watcher
from diffbench.running.ready_stages import Frontier
from diffbench.stages.stage_imports import StageImports
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims, Holder, sweep
from diffbench.wording import as_reason

POLL_SECONDS = 0.2
LOOK_SECONDS = 1.0                    # between looks at what other runs work on
CLASSIFIED_LINES = 50                 # of the log, that a plug-in may judge a failure by
# of one stage with the process it was forked from, after which it is tried again apart
LOSSES = 2
# of one artefact in one run: a disk that damages what is written is not fought forever
REBUILDS = 3


class Engine:
    """One run of a plan over a store. `outcomes` holds the outcome of each stage so far."""

    def __init__(self, plan: Plan, store: Store, make_launcher: Callable[[], Launcher], watchers: list[Watcher], *,
                 jobs: int | None = None,
                 threads: int | None = None,
                 imports: Callable[[Stage], dict[str, list[str]]] | None = None,
                 check: Callable[[], None] = lambda: None, budget: float | None = None):
        self.plan, self.store, self.make_launcher, self.watchers, self.jobs, self.threads = (
            plan, store, make_launcher, watchers, jobs, threads)
        needs = None if imports else StageImports(plan.registry)
        self.imports = imports or (lambda stage: needs.of(stage))         # plug-ins for the worker of a stage
        self.stages = plan.needed()
        self.check = check                                # called now and then; what it raises ends the run
        self.frontier = Frontier(self.stages, places(plan))
        self.claims = Claims()
        self.capacity = Capacity(slots=1, threads=1, machines=1)
        self.outcomes: dict[str, Outcome] = {}
        self.running: dict[str, Attempt] = {}             # by key
        self.elsewhere: dict[str, Holder] = {}            # key -> who works on it
        self.budget = budget                              # seconds after which it ends, as if interrupted; None: never
        self.looked = 0.0
        self.tries: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()           # those that count against `run.retries`
        self.rebuilds: Counter[str] = Counter()
        self.losses: Counter[str] = Counter()             # with a process that stages shared
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
        """Looks up what the store has already; returns the number of these stages."""
        unknown = [stage for key, stage in self.stages.items() if key not in self.outcomes]
        stored = self.store.find((stage.name, stage.key) for stage in unknown)
        for stage in unknown:
            if stage.key in stored.damaged:
                self._note_damage(stage)
            elif stage.key in stored.done:
                self._finish(stage, Outcome(status="ok", cached=True))
        return sum(o.cached for o in self.outcomes.values())

    def run(self) -> None:
        """Runs everything that can be run within the budget. An interruption kills the workers and is raised again;
        artefacts and checkpoints stay.
        """
        ends_at = math.inf if self.budget is None else time.monotonic() + self.budget
        self.find_done()
        if self.is_done:
            return
        launcher = self.make_launcher()
        try:
            widest = max(Counter(s.name for s in self.stages.values() if not s.is_exclusive).values(), default=1)
            sweep(self.store.root / "claims")
            self.capacity = gpu_sharing.capacity(launcher, self.plan, widest, self.jobs)
            if self.threads is not None:
                self.capacity = self.capacity.with_threads(self.threads, keeps_slots=self.jobs is not None)
            while not self.is_done and time.monotonic() < ends_at:
                interrupts.check()
                self._start_ready(launcher)
                for end in launcher.poll(POLL_SECONDS if self.running else LOOK_SECONDS / 4):
                    self._take_end(end)
                self._look_at_running(launcher)
                self._look_around()
        finally:
            launcher.close()
            self.claims.close()

    @property
    def is_done(self) -> bool:
        """Whether every stage has its outcome."""
        return len(self.outcomes) == len(self.stages)

    @property
    def is_measuring(self) -> bool:
        """Whether a stage runs that has its device to itself."""
        return any(attempt.stage.is_exclusive for attempt in self.running.values())

    def _start_ready(self, launcher: Launcher) -> None:
        while not self.is_measuring and len(self.running) < self.capacity.slots:
            stage = self.frontier.take(exclusive=False)
            if stage is None:
                break
            self._start(stage, launcher)
        # Speed is measured when nothing else is left to run, or it would be measured against it.
        while (len(self.running) < self.capacity.machines and all(t.stage.is_exclusive for t in self.running.values())
               and not self.elsewhere):
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
            bad = next((o for key in planned.stages.values() if (o := self.outcomes.get(key)) is not None
                        and o.status != "ok"), None)
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
        threads = (self.capacity.machine_threads if stage.is_exclusive
                   else min(self.capacity.threads * stage.gpus, self.capacity.machine_threads))
        gpus = (0.0 if self.device_kind == "cpu" else float(stage.gpus) if stage.is_exclusive or stage.gpus > 1
                else self.capacity.gpus)
        execution = {"device": self.device_kind, "threads": threads, "memory_share": min(1.0, gpus or 1.0),
                     "checkpoint_seconds": run.checkpoint,
                     "is_deterministic": run.deterministic, "compile": run.compile, **self.imports(stage),
                     "claim": self.claims.token(claim), "exclusive": stage.is_exclusive, "run": self.plan.matrix.name}
        if stage.key in self.batches:
            execution["batch_size"] = self.batches[stage.key]
        limit = run.limit(stage.name)
        attempt = Attempt(stage, self.store.new_attempt(stage.content(), execution), limit=limit, stall=run.stall)
        self.tries[stage.key] += 1
        self.running[stage.key] = attempt
        launcher.submit(Job(id=stage.key, store=self.store.root, attempt=attempt.folder,
                            resources=Resources(device=self.device_kind, threads=threads, gpus=gpus,
                                                is_exclusive=stage.is_exclusive, seconds=limit),
                            is_apart=stage.key in self.losses))

    def _take_end(self, end: Ended) -> None:
        attempt = self.running.pop(end.id)
        self._report(attempt, attempt.look(at_once=True), has_ended=True)
        stage, seconds = attempt.stage, attempt.seconds
        has = self._has(stage)
        self.claims.release(self.store.claim(stage.key))
        if has:
            return self._finish(stage, Outcome(status="ok", seconds=seconds, tries=self.tries[stage.key]))
        failure = self._classified(stage, end, attempt)
        if self._goes_on(stage, failure):
            return self.frontier.put_back(stage.key)
        self._finish(stage, Outcome(status=failure.status, reason=f"{stage.name}: {failure.reason}", seconds=seconds,
                                    tries=self.tries[stage.key]))
        if failure.kind == "disk":                        # whatever is started next would fail too
            raise DiskFull(
                f"{failure.reason}. Nothing new is started; once that is mended, the same line again goes on")
        return None

    def _classified(self, stage: Stage, end: Ended, attempt: Attempt) -> Failure:
        """The failure of an attempt, with the reason of a plug-in in front where one knows better."""
        failure = attempt.failure(end)
        if failure.status != "failed":
            return failure
        better = self.plan.registry.first("diffbench_classify_failure", stage=stage, code=end.code,
                                          reason=failure.reason,
                                          log_tail="\n".join(attempt.last_lines(CLASSIFIED_LINES)))
        return (replace(failure, reason=f"{as_reason(better)}: {failure.reason}")
                if isinstance(better, str) and better.strip() else failure)

    def _goes_on(self, stage: Stage, failure: Failure) -> bool:
        """Whether a failed stage is run again; all that this needs is prepared."""
        if failure.kind == "superseded":                  # its claim was taken over; who has it will be asked
            return True
        if failure.kind in ("damaged", "content") and failure.artefact in self.stages:
            is_content = failure.kind == "content"
            if failure.artefact not in self.outcomes or self._rebuild(failure.artefact, is_content=is_content):
                return True
        if failure.kind == "lost" and self.losses[stage.key] < LOSSES:           # by which stage, nobody knows
            self.losses[stage.key] += 1
            self._note(f"{stage.name} {stage.label}: {failure.reason}; tried again apart from others")
            return True
        batch = self.batches.get(stage.key) or stage.batch
        if failure.kind == "memory" and batch is not None and batch > 1:
            self.batches[stage.key] = batch // 2
            self._note(f"{stage.name} {stage.label}: out of memory with batches of {batch}, tried again with "
                       f"{batch // 2}")
            return True
        self.failures[stage.key] += 1
        if (failure.status == "failed" and failure.kind != "request"
            and self.failures[stage.key] <= self.plan.matrix.run.retries):
            self._note(f"{stage.name} {stage.label}: {failure.reason}; tried again ({self.failures[stage.key]} of "
                       f"{self.plan.matrix.run.retries})")
            return True
        return False

    def _finish(self, stage: Stage, outcome: Outcome) -> None:
        self._tell(stage, outcome)
        if stage.key not in self.outcomes:                # whoever was told found it damaged: it is built again
            return
        if outcome.status == "ok":
            self.frontier.done(stage.key)
            return
        status = "diverged" if outcome.status == "diverged" else "blocked"
        for key in self.frontier.depend_on(stage.key):
            self._tell(self.stages[key], Outcome(status=status, reason=outcome.reason))

    def _tell(self, stage: Stage, outcome: Outcome) -> None:
        self.outcomes[stage.key] = outcome
        for watcher in self.watchers:
            try:
                watcher.finished(stage, outcome)
            except Damaged as damaged:                    # a row is made of files, and one of them is not what it was
                if not self._rebuild(damaged.key, is_content=damaged.is_content):
                    raise DiffbenchError(f"{damaged}, though it was built {REBUILDS} times in this run: the disk is "
                                         "not to be trusted") from None
                if damaged.key in self.outcomes:          # another run has built it meanwhile
                    self._tell(self.stages[damaged.key], self.outcomes[damaged.key])

    def _has(self, stage: Stage) -> bool:
        """Whether an artefact is there and whole; a damaged one is set aside and noted."""
        try:
            return self.store.check(stage.name, stage.key)
        except Damaged:
            self._note_damage(stage)
            return False

    def _note_damage(self, stage: Stage) -> None:
        self._note(f"{stage.name} {stage.label}: the artefact {stage.key[:12]} is damaged and set aside; it is built "
                   "again")

    def _rebuild(self, key: str, *, is_content: bool) -> bool:
        """Has a lost or damaged artefact built again, or finds it built; False where it was rebuilt too often.

        is_content: its files match their hashes, and whoever read them says that they are not what the stage writes.
        """
        stage = self.stages[key]
        if is_content:
            if self.tries[key]:                           # built in this run, and would be built so again
                return False
            self.store.set_aside(stage.name, key)
            self._note_damage(stage)
        elif self._has(stage):
            return True
        self.rebuilds[key] += 1
        if self.rebuilds[key] > REBUILDS:
            return False
        if self.outcomes.pop(key, None) is not None:
            self.frontier.lost(key)
        return True

    def _look_at_running(self, launcher: Launcher) -> None:
        for attempt in self.running.values():
            waited_for = attempt.waits_for
            self._report(attempt, attempt.look())
            if attempt.waits_for not in ("", waited_for):
                self._note(f"{attempt.stage.name} {attempt.stage.label} waits for the device: {attempt.waits_for}")
            if attempt.must_stop():
                launcher.cancel(attempt.stage.key)

    def _report(self, attempt: Attempt, news: tuple[int, int, dict[str, float]] | None, *,
                has_ended: bool = False) -> None:
        if not attempt.is_announced and (attempt.began_at is not None or has_ended):
            attempt.is_announced = True
            for watcher in self.watchers:
                watcher.started(attempt.stage)
        if news is not None:
            for watcher in self.watchers:
                watcher.progress(attempt.stage, *news)

    def _look_around(self) -> None:
        """Checks that the run may go on, and takes over stages of other runs that are done or free."""
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
