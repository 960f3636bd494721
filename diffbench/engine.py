"""Running a plan: which stages are left, which may start now, and what became of each."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from diffbench import interrupts
from diffbench.errors import DiffbenchError
from diffbench.launchers import Ended, Job, Launcher, Resources
from diffbench.machine import cores
from diffbench.planning import Plan, Stage
from diffbench.store import Store

# Long stages, and those many others wait for, first; measuring speed comes last, alone.
ORDER = ("train", "noisy_classifier", "extractor", "classifier", "sample", "reference", "features", "evaluate", "throughput")
POLL_SECONDS = 0.2
LOG_LINES = 5
CLASSIFIED_LINES = 50                 # of the log, that a plug-in may judge a failure by


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a stage."""

    status: str                       # "ok", "failed", "diverged" or "blocked" (a parent did not finish)
    reason: str = ""
    seconds: float = 0.0
    cached: bool = False


class Watcher(Protocol):
    """Is told what happens; the display and the results are watchers."""

    def started(self, stage: Stage) -> None:
        """A worker has been given this stage."""

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """A running stage says how far it is, with figures such as loss or images_per_second."""

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage ended, was found done or cannot be done."""

    def note(self, text: str) -> None:
        """A sentence people should read."""


class Engine:
    """One run of a plan over a store. `outcomes` holds what is known of each stage so far."""

    def __init__(self, plan: Plan, store: Store, make_launcher: Callable[[], Launcher], watchers: list[Watcher], *, jobs: int | None = None,
                 plugins: Iterable[str] = ()):
        self.plan, self.store, self.make_launcher, self.watchers, self.jobs, self.plugins = plan, store, make_launcher, watchers, jobs, list(plugins)
        self.stages = plan.needed()
        self.outcomes: dict[str, Outcome] = {}
        self.running: dict[str, _Try] = {}                # by key
        self.tries: Counter[str] = Counter()

    @property
    def device_kind(self) -> str:
        """"cpu" or "cuda"."""
        return self.plan.device.partition(":")[0]

    def find_done(self) -> int:
        """Looks up what the store has already; returns how many stages that is."""
        for key, stage in self.stages.items():
            if key not in self.outcomes and self.store.has(stage.name, key):
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
            self.capacity = launcher.capacity(self.device_kind, widest, self.jobs)
            while len(self.outcomes) < len(self.stages):
                interrupts.check()
                self._start_ready(launcher)
                for ended in launcher.poll(POLL_SECONDS):
                    self._ended(ended)
                self._report_progress()
        finally:
            launcher.close()

    def _start_ready(self, launcher: Launcher) -> None:
        waiting = sorted((s for k, s in self.stages.items() if k not in self.outcomes and k not in self.running), key=lambda s: ORDER.index(s.name))
        for stage in waiting:
            parents = [self.outcomes.get(key) for key in stage.parents.values()]
            broken = next((p for p in parents if p is not None and p.status != "ok"), None)
            if broken is not None:
                self._finish(stage, Outcome(status="diverged" if broken.status == "diverged" else "blocked", reason=broken.reason))
                return self._start_ready(launcher)
            if stage.is_exclusive and (self.running or any(not s.is_exclusive for s in waiting)):
                continue
            if len(self.running) < self.capacity.slots and all(p is not None for p in parents) and not any(t.stage.is_exclusive for t in self.running.values()):
                self._start(stage, launcher)

    def _start(self, stage: Stage, launcher: Launcher) -> None:
        threads = cores() if stage.is_exclusive else self.capacity.threads
        execution = {"device": self.device_kind, "threads": threads, "memory_share": 1.0, "checkpoint_seconds": 30.0, "is_deterministic": False,
                     "plugins": self.plugins}
        attempt = self.store.new_attempt(stage, execution)
        resources = Resources(device=self.device_kind, threads=threads, is_exclusive=stage.is_exclusive)
        self.tries[stage.key] += 1
        self.running[stage.key] = _Try(stage, attempt)
        launcher.submit(Job(id=stage.key, store=self.store.root, attempt=attempt, resources=resources))
        for watcher in self.watchers:
            watcher.started(stage)

    def _ended(self, ended: Ended) -> None:
        tried = self.running.pop(ended.id)
        stage, seconds = tried.stage, time.monotonic() - tried.since
        self._report(tried)
        if self.store.has(stage.name, stage.key):
            return self._finish(stage, Outcome(status="ok", seconds=seconds))
        status, reason = why_failed(tried.attempt, ended)
        reason = self._classified(stage, ended, reason, tried.attempt) if status == "failed" else reason
        if status == "failed" and self.tries[stage.key] <= self.plan.matrix.run.retries:
            return None
        return self._finish(stage, Outcome(status=status, reason=f"{stage.name}: {reason}", seconds=seconds))

    def _finish(self, stage: Stage, outcome: Outcome) -> None:
        self.outcomes[stage.key] = outcome
        for watcher in self.watchers:
            watcher.finished(stage, outcome)

    def _report_progress(self) -> None:
        for tried in self.running.values():
            self._report(tried)

    def _report(self, tried: _Try) -> None:
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((tried.attempt / "progress.json").read_bytes())
            for watcher in self.watchers:
                watcher.progress(tried.stage, said["done"], said["of"], said["figures"])

    def _classified(self, stage: Stage, ended: Ended, reason: str, attempt: Path) -> str:
        """The reason, with the better word of a plug-in before it."""
        better = self.plan.registry.first("diffbench_classify_failure", stage=stage, code=ended.code, reason=reason,
                                          log_tail="\n".join(last_lines(attempt, CLASSIFIED_LINES)))
        return f"{' '.join(better.split())}: {reason}" if isinstance(better, str) and better.strip() else reason


@dataclass
class _Try:
    """A worker that was asked for."""

    stage: Stage
    attempt: Path
    since: float = field(default_factory=time.monotonic)


def why_failed(attempt: Path, ended: Ended) -> tuple[str, str]:
    """(status, reason) of a try that published nothing: what the worker said, else how it ended and its last words."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        said = json.loads((attempt / "error.json").read_bytes())
        return said["status"], said["reason"]
    last = last_lines(attempt, LOG_LINES)
    code = ended.code
    how = f"the worker was ended by signal {-code}" if code < 0 else f"the worker ended with code {code} and no result"
    hint = " (out of memory, if nobody killed it)" if code == -9 else ""
    return "failed", f"{how}{hint}{'; its last words: ' + ' | '.join(last) if last else ''}"


def last_lines(attempt: Path, count: int) -> list[str]:
    """The end of the log of a try."""
    try:
        return (attempt / "log.txt").read_text(errors="replace").strip().splitlines()[-count:]
    except OSError:
        return []


def check_device(device: str) -> str:
    """The device's name, resolved; DiffbenchError where it is not there."""
    from diffbench.machine import resolve_device

    try:
        return resolve_device(device)
    except ValueError as error:
        raise DiffbenchError(f"--device: {error}") from None
