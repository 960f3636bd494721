"""Display of a running run: a live picture on a terminal, plain lines otherwise. Used by `diffbench run` and `watch`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from diffbench.cli import output
from diffbench.cli.picture import clock, complaint, head, named, picture
from diffbench.watching import time_left
from diffbench.watching.event_log import Narrator
from diffbench.watching.run_state import RunState
from diffbench.wording import one_line

LINE_SECONDS = 5.0                    # between plain progress lines
# after which a plain line says that all is as it was: a long stage may report nothing
STILL_SECONDS = 30.0
LONG_SECONDS = 10.0                   # a stage that takes this long has plain lines of its own at its start and end


class Screen:
    """Shows a state that changes: feed it events between `begin` and `end`.
    Before `begin` events are taken in and nothing is shown.
    """

    def __init__(self, state: RunState, console: Console | None = None):
        self.state, self.console = state, console or output.console(err=True)
        self.live: Live | None = None
        self.is_showing, self.last_line = False, time.monotonic()
        # the live picture is drawn by a thread of its own, and so are lines when nothing happens
        self.lock = threading.RLock()
        self.has_ended = threading.Event()

    def begin(self) -> None:
        """Starts showing."""
        self.is_showing, self.last_line = True, time.monotonic()
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self.live = Live(get_renderable=self._picture, console=self.console, refresh_per_second=4, transient=True)
            self.live.start()
            self.console.show_cursor(True)                # hidden, it would stay so where the process is killed
        else:
            self.has_ended.clear()
            threading.Thread(target=self._keep_saying, daemon=True).start()

    def end(self) -> None:
        """Stops showing; a live picture vanishes."""
        self.is_showing = False
        self.has_ended.set()
        if self.live is not None:
            self.live.stop()
            self.live = None

    def apply(self, event: Mapping[str, Any]) -> None:
        """Takes in an event of this process."""
        with self.lock:
            self.state.apply(event)
        self.say(event)

    def say(self, event: Mapping[str, Any]) -> None:
        """Plain lines for an event, taken in already, that should not wait for the next progress line."""
        if not self.is_showing or self.live is not None:
            return
        name, stage, seconds = event["event"], self.state.stages.get(str(event.get("key"))), event.get("seconds")
        if name == "note" and isinstance(event.get("text"), str):
            self.line(event["text"])
        if stage is not None and stage.status in ("failed", "diverged") and name == "stage_finished":
            self.line(complaint(stage))
        if stage is not None and name == "stage_started" and self._is_long(stage.kind):
            self.line(f"started: {stage.kind} {stage.label}" + (f" (try {stage.tries})" if stage.tries > 1 else ""))
        if (stage is not None and name == "stage_finished" and stage.status == "ok" and isinstance(seconds, int | float)
            and seconds >= LONG_SECONDS):
            self.line(f"done: {stage.kind} {stage.label} in {clock(seconds)}")
        self.tick()

    def tick(self) -> None:
        """A plain progress line, if it is time for one."""
        now = time.monotonic()
        if not self.is_showing or self.live is not None or now - self.last_line < LINE_SECONDS:
            return
        self.last_line = now
        with self.lock:
            stages = list(self.state.running.values())
            names = "; ".join(map(named, stages[:2])) + (f"; and {len(stages) - 2} more" if len(stages) > 2 else "")
            self.line(f"{head(self.state)}: {names}" if names else head(self.state))

    def _keep_saying(self) -> None:
        while not self.has_ended.wait(STILL_SECONDS):
            self.tick()

    def _is_long(self, kind: str) -> bool:
        mean = time_left.mean_seconds(self.state, kind)
        return kind == "train" if mean is None else mean >= LONG_SECONDS

    def line(self, text: str, style: str = "") -> None:
        """One plain line."""
        self.console.print(Text(one_line(text), style=style), soft_wrap=True)

    def _picture(self) -> Any:
        with self.lock:
            return picture(self.state, self.console.width, self.console.height)


class Display(Narrator):
    """The watcher that shows the run of its own process. stages: those of the plan;
    earlier: mean seconds by kind, of earlier runs.
    """

    def __init__(self, stages: Mapping[str, Any], name: str = "", earlier: Mapping[str, float] | None = None,
                 console: Console | None = None):
        super().__init__()
        described = {key: s.described() for key, s in stages.items()}
        self.screen, self.start = Screen(RunState(described, earlier), console), time.monotonic()
        self.screen.state.name = name

    def begin(self) -> None:
        """Starts showing, where something is left to be done."""
        self.tell("alive")
        if self.screen.state.done < len(self.screen.state.stages):
            self.screen.begin()

    def end(self) -> None:
        """Stops showing; what a live picture said of warnings stays, as lines."""
        was_live = self.screen.live is not None
        self.screen.end()
        for note in self.screen.state.notes if was_live else ():
            self.screen.line(note, style="yellow")

    def tell(self, event: str, **fields: Any) -> None:
        self.screen.apply({"event": event, "t": time.monotonic() - self.start, **fields})

    def reasons(self) -> list[str]:
        """Reasons of the stages that failed, one line per stage."""
        return [complaint(stage) for stage in self.screen.state.bad()]
