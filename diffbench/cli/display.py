"""What a run shows while it goes: a live table on a terminal, plain lines otherwise."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from diffbench.engine import Engine, Outcome
from diffbench.frontier import ORDER
from diffbench.planning import Plan, Stage

LINE_SECONDS = 5.0                    # between plain progress lines


class Display:
    """A watcher. The time left comes from the mean time of finished stages of the same kind."""

    def __init__(self, plan: Plan, console: Console | None = None):
        self.plan, self.console = plan, console or Console(stderr=True)
        self.engine: Engine | None = None
        self.running: dict[str, tuple[Stage, float]] = {}
        self.shares: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {}
        self.bad: list[tuple[Stage, Outcome]] = []
        self.live: Live | None = None
        self.start = self.last_line = time.monotonic()

    def begin(self, engine: Engine) -> None:
        """Starts showing."""
        self.engine = engine
        if self.console.is_terminal and len(engine.outcomes) < len(engine.stages):
            self.live = Live(get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True)
            self.live.start()

    def end(self) -> None:
        """Stops showing."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def started(self, stage: Stage) -> None:
        """A stage runs."""
        self.running[stage.key] = (stage, time.monotonic())

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """A stage says how far it is."""
        self.shares[stage.key] = done / max(1, of)
        self._line()

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """A stage ended."""
        self.running.pop(stage.key, None)
        self.shares.pop(stage.key, None)
        if outcome.status == "ok" and not outcome.cached:
            self.seconds.setdefault(stage.name, []).append(outcome.seconds)
        if outcome.status in ("failed", "diverged") and stage.key not in {s.key for s, _ in self.bad}:
            self.bad.append((stage, outcome))
            if self.engine is not None:
                self.console.print(Text(f"{outcome.status}: {stage.label}: {outcome.reason}", style="red"))
        self._line()

    def note(self, text: str) -> None:
        """Something to know."""
        if self.engine is not None:
            self.console.print(Text(text, style="yellow"))

    def reasons(self) -> list[str]:
        """What went wrong, one line per stage."""
        return [f"{outcome.status}: {stage.name} {stage.label}: {outcome.reason}" for stage, outcome in self.bad]

    def seconds_left(self) -> float | None:
        """Estimate from the stages done so far; None before there is anything to go by."""
        if self.engine is None or not self.seconds:
            return None
        mean = {name: sum(t) / len(t) for name, t in self.seconds.items()}
        unknown = min(mean.values())                      # of a kind not seen yet: no better guess than the shortest
        left = 0.0
        for key, stage in self.engine.stages.items():
            if key not in self.engine.outcomes:
                expected = mean.get(stage.name, unknown) * (1 - self.shares.get(key, 0.0))
                left += expected if stage.is_exclusive else expected / self.engine.capacity.slots
        return left

    def _line(self) -> None:
        """A plain line now and then, where there is no terminal."""
        now = time.monotonic()
        if self.engine is None or self.live is not None or self.console.is_terminal or now - self.last_line < LINE_SECONDS:
            return
        self.last_line = now
        named = [self._named(stage) for stage, _ in self.running.values()]
        stages = "; ".join(named[:2]) + (f"; and {len(named) - 2} more" if len(named) > 2 else "")
        self.console.print(f"{self._head()}: {stages}", markup=False, highlight=False, soft_wrap=True)

    def _head(self) -> str:
        left = self.seconds_left()
        return (f"[{_clock(time.monotonic() - self.start)}] {len(self.engine.outcomes)}/{len(self.engine.stages)} stages"
                + (f", about {_clock(left)} left" if left is not None else ""))

    def _named(self, stage: Stage) -> str:
        share = self.shares.get(stage.key)
        return f"{stage.name} {stage.label}" + (f" {100 * share:.0f} %" if share else "")

    def _picture(self) -> Any:
        done = Counter(self.engine.stages[key].name for key in self.engine.outcomes)
        of = Counter(stage.name for stage in self.engine.stages.values())
        table = Table.grid(padding=(0, 1))
        whole = ProgressBar(total=len(self.engine.stages), completed=len(self.engine.outcomes), width=30)
        table.add_row(Text("all stages", style="bold"), whole, Text(self._head()))
        for name in ORDER:
            if of[name]:
                table.add_row(name, ProgressBar(total=of[name], completed=done[name], width=30), f"{done[name]}/{of[name]}")
        running = Table.grid(padding=(0, 1))
        for stage, since in self.running.values():
            running.add_row(Text(f"  {_clock(time.monotonic() - since)}"), Text(self._named(stage), overflow="ellipsis", no_wrap=True))
        return Group(table, running)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
