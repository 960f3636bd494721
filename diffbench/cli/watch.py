"""diffbench watch"""

from __future__ import annotations

import socket
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from diffbench.cli.common import JSON, UserPath
from diffbench.cli.output import console, is_read, say, say_data
from diffbench.errors import DiffbenchError

LOOK_SECONDS = 0.5                    # between looks at the logs
JSON_SECONDS = 2.0                    # between states for programs
FIRST_SECONDS = 10.0                  # how long a log may be empty at its beginning


@click.command()
@click.argument("run", type=UserPath())
@click.option("--once", is_flag=True, help="Show the state once and end.")
@JSON
def command(run: str, once: bool, as_json: bool) -> None:
    """Show the run in the folder RUN, such as runs/quickstart, while it goes on in other processes; ends when they have
    ended.

    With --json the state is a line of JSON, again whenever it has changed. Exit codes: 0 with --once, or where the run
    has finished with every cell ok or skipped; 1 where some cell failed or the run ended without having finished; 2
    there is no run in RUN.
    """
    from diffbench.cli.display import Screen
    from diffbench.cli.picture import picture

    watched = Watched(Path(run))
    watched.look()
    screen = Screen(watched.state, console())
    if as_json:
        watched.as_lines(once)
    elif not once:
        screen.begin()
        try:
            while watched.goes_on() and is_read():
                time.sleep(LOOK_SECONDS)
                with screen.lock:
                    new = watched.look()
                    screen.state = watched.state          # another one, where the plan was made anew
                for event in new:
                    screen.say(event)
                screen.tick()
        except KeyboardInterrupt:
            screen.end()
            say("no longer watching; the run itself goes on", err=True)
            sys.exit(130)
        finally:
            screen.end()
    if not as_json:
        screen.console.print(picture(watched.state, screen.console.width, height=None))
        for line in watched.sentences():
            say(line)
    sys.exit(0 if once or watched.is_well() else 1)


class Watched:
    """A run folder, seen from outside: its plan and its logs, read again at each look.
    Raises DiffbenchError where RUN is none.
    """

    def __init__(self, folder: Path):
        from diffbench.store.artefacts import Store
        from diffbench.watching.event_log import FOLDER

        self.folder, self.start = folder, time.monotonic()
        Store.default().found_again(folder)
        if not folder.is_dir():
            raise DiffbenchError(f"{folder}: there is no such folder; name the folder of a run, such as "
                                 "runs/quickstart")
        if not (folder / "plan.json").is_file():
            raise DiffbenchError(f"{folder} is not the folder of a run: it holds no plan.json")
        if not any((folder / FOLDER).glob("*.jsonl")):
            raise DiffbenchError(f"{folder} holds no {FOLDER}/*.jsonl to watch: its run has not begun yet, or was made "
                                 "by a version that wrote none")
        self._begin()

    def look(self) -> list[dict[str, Any]]:
        """Takes in what is new, and finds out which writers are gone. The new events;
        none where the whole log was read anew.
        """
        if self._stamp() != self.stamp:                   # another run has planned anew
            self._begin()
        if self.is_first:
            self._read()
            self.is_first = False
        suspects = [name for name, writer in self.state.writers.items() if writer.status == "running"
                    and not self._lives(name)]
        # after that: one that ended well has said so before it let go of its log
        new = self._read()
        for name in suspects:
            if self.state.writers[name].status == "running":
                self.state.lose(name)
        return new

    def sentences(self) -> list[str]:
        """Sentences about the state of the run, what to do about it, and what could not be read."""
        from diffbench.cli.picture import ago

        state = self.state
        ended = {name for name, writer in state.writers.items() if writer.status != "running"}
        lines = self.logs.damage(ended)
        if state.latest is None:
            return lines + ["nothing readable was written of this run yet"]
        writer, silence = state.writers[state.latest], ago(state.silence(state.latest))
        who, again = f"pid {writer.pid} on {writer.host}", "typing its line again goes on from here"
        if writer.status == "finished":
            return lines + [f"finished {silence} ago: " + ", ".join(f"{n} {status}"
                                                                    for status, n in sorted(writer.counts.items()))]
        if writer.status == "interrupted":
            return lines + [f"interrupted {silence} ago; {again}"]
        if writer.status == "failed":
            return lines + [f"the run itself failed {silence} ago: {writer.reason}; {again}"]
        if writer.status == "gone":
            return lines + [f"the process of the run ({who}) is gone without having finished: last sign of life "
                            f"{silence} ago; {again}"]
        return lines + [f"running ({who})"]

    def goes_on(self) -> bool:
        """Whether there is more to come: some run runs, or has only just made its log."""
        return self.state.status == "running" or (self.state.status == "waiting"
                                                  and time.monotonic() - self.start < FIRST_SECONDS)

    def is_well(self) -> bool:
        """Whether the latest run finished with every cell ok or skipped."""
        latest = self.state.latest
        return (latest is not None and self.state.status == "finished"
                and set(self.state.writers[latest].counts) <= {"ok", "skipped"})

    def as_lines(self, once: bool) -> None:
        """The state as lines of JSON on standard output, each time something was written."""
        seen = None
        while True:
            now = (self.heard, self.state.status)
            if now != seen:
                seen = now
                from diffbench.watching.state_as_json import as_json

                say_data(as_json(self.state) | {"said": self.sentences()})
            if once or not self.goes_on() or not is_read():
                return
            time.sleep(JSON_SECONDS)
            self.look()

    def _begin(self) -> None:
        from diffbench.results.folder import RunFolder
        from diffbench.watching.reading import Logs
        from diffbench.watching.run_state import RunState

        self.stamp, self.logs, self.heard, self.is_first = self._stamp(), Logs(self.folder), 0, True
        self.state = RunState(RunFolder(self.folder).stages())

    def _stamp(self) -> tuple[int, int] | None:
        try:
            about = (self.folder / "plan.json").stat()
        except OSError:
            return None
        return about.st_mtime_ns, about.st_ino

    def _read(self) -> list[dict[str, Any]]:
        new = self.logs.read()
        self.heard += len(new)
        for name, event in new:
            self.state.apply(event, name, _age(event["time"]) if self.is_first else 0.0)
        return [event for _, event in new]

    def _lives(self, name: str) -> bool:
        """Whether a writer is there: on this machine its hold on its log tells, elsewhere its last line is not old."""
        from diffbench.watching.event_log import ALIVE_SECONDS
        from diffbench.watching.reading import is_held

        writer = self.state.writers[name]
        if writer.is_locked and writer.host == socket.gethostname():
            return is_held(self.logs.logs[name].path)
        return self.state.silence(name) < 3 * ALIVE_SECONDS


def _age(time: str) -> float:
    """Seconds since a wall-clock time; 0 where the clock was set back since."""
    try:
        return max(
            0.0, (datetime.now(timezone.utc) - datetime.fromisoformat(time.replace("Z", "+00:00"))).total_seconds())
    except (ValueError, TypeError):
        return 0.0
