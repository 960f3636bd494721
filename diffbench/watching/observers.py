"""Watcher that passes events to plug-ins without waiting for them: each has a thread and a queue of its own.

A tracker that sleeps, or whose network is down, delays neither the run nor another tracker. A hook that raises, or
takes longer than
`patience`, is told nothing more in this run, and a note says so. Of progress at most `QUEUED_PROGRESS` events wait;
rows, starts and ends are never dropped: at the end of a run they are waited for as long as each takes no longer than
`last_patience`, progress for as long altogether.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from diffbench.errors import BrokenComponent, DiffbenchError
from diffbench.registry.registry import PluginProblem, Registry
from diffbench.results.environment import without_secrets

if TYPE_CHECKING:
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage
    from diffbench.running.outcome import Outcome

PROGRESS = "diffbench_stage_progress"
HOOKS = ("diffbench_run_started", "diffbench_stage_started", PROGRESS, "diffbench_stage_finished",
         "diffbench_row_added",
         "diffbench_run_finished")
PATIENCE = 30.0                       # seconds for one call
LAST_PATIENCE = 10.0                  # seconds for one call when the run has ended
QUEUED_PROGRESS = 1000
POLL_SECONDS = 0.05                   # between looks, at the end of a run, at whether all is told


def refuse_unready(registry: Registry) -> None:
    """Raises DiffbenchError where a tracker says, by a function `why_not` of its own, that it cannot follow a run:
    before any work.
    """
    for plugin in registry.plugins():
        ask, name = getattr(plugin, "why_not", None), registry.hooks.get_name(plugin) or ""
        if ask is None or not name.startswith("tracker "):
            continue
        try:
            reason = ask()
        except Exception as error:
            raise BrokenComponent(f"{name} cannot be used: why_not raised {type(error).__name__}: "
                                  f"{without_secrets(str(error))}") from error
        if reason is not None:
            raise DiffbenchError(f"{name} cannot be used: {without_secrets(reason)}")


class Observers:
    """The watcher that passes what happens to the observing hooks of plug-ins. A context manager;
    `note` is told what became of a plug-in.
    """

    def __init__(self, registry: Registry, folder: Path, note: Callable[[str], None] = lambda text: None, *,
                 patience: float = PATIENCE,
                 last_patience: float = LAST_PATIENCE):
        self.registry, self.folder, self.say, self.patience, self.last_patience = (
            registry, folder, note, patience, last_patience)
        self.said: dict[str, int] = {}                    # units done that a running stage was last said to have
        observing = [(p, {c.name for c in registry.hooks.get_hookcallers(p) or ()} & set(HOOKS))
                     for p in registry.plugins()]
        self.mailboxes = [_Mailbox(registry, plugin, hooks) for plugin, hooks in observing if hooks]

    def run_started(self, plan: Plan) -> None:
        """A run begins."""
        self._tell("diffbench_run_started", plan=plan)

    def started(self, stage: Stage) -> None:
        """A worker has been given this stage."""
        self._tell("diffbench_stage_started", stage=stage)

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """A running stage says how far it is; what was said already is not passed on."""
        if self.said.get(stage.key) != done:
            self.said[stage.key] = done
            self._tell(PROGRESS, stage=stage, done=done, of=of, figures=figures)

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage ended or cannot be done; of stages found done nothing is told."""
        self.said.pop(stage.key, None)
        if not outcome.cached:
            self._tell("diffbench_stage_finished", stage=stage, status=outcome.status, seconds=outcome.seconds,
                       reason=outcome.reason)

    def note(self, text: str) -> None:
        """Sentences are for people."""

    def row_added(self, row: dict[str, Any]) -> None:
        """A cell has got its line of the result table."""
        self._tell("diffbench_row_added", row=row)

    def run_finished(self, counts: dict[str, int]) -> None:
        """A run has ended; counts: cells by status."""
        self._tell("diffbench_run_finished", counts=counts)

    def __enter__(self) -> Observers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for mailbox in self.mailboxes:
            mailbox.close()
        end = time.monotonic()
        while busy := [m for m in self.mailboxes if m.fault is None and m.thread.is_alive()]:
            is_late = time.monotonic() - end > self.last_patience
            for mailbox in busy if is_late else ():
                if error is not None or mailbox.seconds_busy() > self.last_patience:
                    mailbox.give_up(f"it was not done {self.last_patience:g} s after the end of the run; "
                                    f"{len(mailbox.queue)} events were not told")
                mailbox.drop_progress()
            busy[0].thread.join(POLL_SECONDS)
        for mailbox in self.mailboxes:
            if mailbox.dropped and mailbox.fault is None:
                self.say(f"plug-in {mailbox.name} was too slow: {mailbox.dropped} reports of progress were left out")
        self._look()

    def _tell(self, hook: str, **facts: Any) -> None:
        for mailbox in self.mailboxes:
            if mailbox.fault is None and mailbox.seconds_busy() > self.patience:
                mailbox.give_up(f"its hook {mailbox.busy_with} took longer than {self.patience:g} s")
            mailbox.put(hook, {**facts, "folder": self.folder})
        self._look()

    def _look(self) -> None:
        """Says, on the thread of the run, what went wrong on others."""
        for mailbox in [m for m in self.mailboxes if m.fault is not None]:
            self.mailboxes.remove(mailbox)
            problem = PluginProblem(mailbox.name, f"plug-in {mailbox.name} is told nothing more of this run: "
                                                  f"{mailbox.fault}")
            self.registry.problems.append(problem)
            self.say(problem.message)


class _Mailbox:
    """What is still to be told to one plug-in, and the thread that does it;
    the thread ends when the mailbox is closed and empty.
    """

    def __init__(self, registry: Registry, plugin: Any, hooks: set[str]):
        self.registry, self.plugin, self.hooks = registry, plugin, hooks
        self.name = registry.hooks.get_name(plugin) or repr(plugin)
        self.queue: deque[tuple[str, dict[str, Any]]] = deque()
        self.waiting_progress = self.dropped = 0
        self.changed, self.is_closed = threading.Condition(), False
        self.fault: str | None = None                     # why it is told nothing more
        self.busy_with, self.busy_since = "", None
        self.thread = threading.Thread(target=self._work, name=f"diffbench plug-in {self.name}", daemon=True)
        self.thread.start()

    def put(self, hook: str, facts: dict[str, Any]) -> None:
        """Adds a call, never waiting; of progress only as much as there is room for."""
        if hook not in self.hooks or self.fault is not None:
            return
        with self.changed:
            if hook == PROGRESS:
                if self.waiting_progress >= QUEUED_PROGRESS:
                    self.dropped += 1
                    return
                self.waiting_progress += 1
            self.queue.append((hook, facts))
            self.changed.notify()

    def close(self) -> None:
        """Nothing more will come."""
        with self.changed:
            self.is_closed = True
            self.changed.notify()

    def drop_progress(self) -> None:
        """Leaves out what still waits of progress."""
        with self.changed:
            others = [entry for entry in self.queue if entry[0] != PROGRESS]
            self.dropped += len(self.queue) - len(others)
            self.queue, self.waiting_progress = deque(others), 0

    def give_up(self, fault: str) -> None:
        """Leaves the plug-in alone, its thread included:
        a call that never returns cannot be ended, and ends with this process.
        """
        with self.changed:
            self.fault = fault
            self.queue.clear()

    def seconds_busy(self) -> float:
        """Time that the present call has taken."""
        since = self.busy_since
        return 0.0 if since is None else time.monotonic() - since

    def _work(self) -> None:
        while True:
            with self.changed:
                while not self.queue and not self.is_closed:
                    self.changed.wait()
                if self.fault is not None or not self.queue:
                    return
                hook, facts = self.queue.popleft()
                self.waiting_progress -= hook == PROGRESS
                self.busy_with, self.busy_since = hook, time.monotonic()
            try:
                self.registry.ask(self.plugin, hook, **facts)
            except BaseException as error:  # noqa: BLE001  on a thread of its own not even sys.exit means more than that this plug-in failed
                self.give_up(without_secrets(f"its hook {hook} raised {type(error).__name__}: {error}"))
            self.busy_since = None
