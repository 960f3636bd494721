"""What a run shows: plain lines where there is no terminal, and a live picture that leaves a terminal as it was."""

import io
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console

from diffbench.cli.display import Screen
from diffbench.cli.picture import head
from tests.watching.test_run_state import Told


def test_plain_lines_where_there_is_no_terminal(monkeypatch):
    from diffbench.cli import display

    told = Told(earlier={"sample": 0.5}, train=(1, None), sample=(2, "train"))
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(told.state, console)
    screen.begin()
    screen.apply({"event": "stage_started", "t": 0, "key": told.key("train", 0)[:12], "try": 1})
    screen.apply({"event": "stage_finished", "t": 61, "key": told.key("train", 0)[:12], "status": "ok", "reason": "", "seconds": 61.0, "cached": False})
    screen.apply({"event": "stage_started", "t": 61, "key": told.key("sample", 0)[:12], "try": 1})
    screen.apply({"event": "note", "t": 61, "text": "[red] a note\nin two lines"})
    screen.apply({"event": "stage_finished", "t": 62, "key": told.key("sample", 0)[:12], "status": "failed", "reason": "why [/]", "seconds": 1.0, "cached": False})
    assert console.file.getvalue().splitlines() == ["started: train train 0", "done: train train 0 in 1:01", "[red] a note in two lines", "failed: sample sample 0: why [/]"]
    monkeypatch.setattr(display, "LINE_SECONDS", 0.0)
    screen.tick()
    assert console.file.getvalue().splitlines()[4] == head(told.state) and head(told.state) == "2/3 stages, 1:02, about 0:00 left, 1 waiting, 1 failed"
    assert "\x1b" not in console.file.getvalue()


def test_a_long_stage_that_reports_nothing_is_still_said_to_run(monkeypatch):
    from diffbench.cli import display

    monkeypatch.setattr(display, "STILL_SECONDS", 0.02)
    monkeypatch.setattr(display, "LINE_SECONDS", 0.01)
    told = Told(train=(1, None))
    console = Console(file=io.StringIO(), width=80)
    screen = Screen(told.state, console)
    screen.begin()
    screen.apply({"event": "stage_started", "t": 0, "key": told.key("train", 0)[:12], "try": 1})
    end = time.monotonic() + 300
    while len(console.file.getvalue().splitlines()) < 4 and time.monotonic() < end:
        time.sleep(0.02)
    screen.end()
    time.sleep(0.1)
    said = console.file.getvalue().splitlines()
    assert len(said) >= 4 and all("1 running: train train 0" in line for line in said[-2:])
    time.sleep(0.2)
    assert console.file.getvalue().splitlines() == said


LIVE = """
import signal, sys, time
from diffbench.process import interrupts
from diffbench.cli.display import Display
from diffbench.planning.plan import Stage
interrupts.install()
stage = Stage(name="train", key="0" * 64, identity={}, task={}, parents={}, label="unet")
display = Display({stage.key: stage}, "small")
try:
    display.begin()
    display.started(stage)
    display.progress(stage, 1, 4, {"loss": 0.25})
    display.note("a warning")
    print("ready", file=sys.stdout, flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    if sys.argv[1] == "stubborn":
        time.sleep(30)
finally:
    display.end()
"""


@pytest.mark.parametrize(("kind", "signals"), [("quick", [signal.SIGINT]), ("stubborn", [signal.SIGINT, signal.SIGINT]), ("quick", [signal.SIGKILL])])
@pytest.mark.parametrize("no_color", [False, True])
def test_however_a_live_display_ends_the_terminal_is_left_sane(kind, signals, no_color):
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", "LINES": "24", **({"NO_COLOR": "1"} if no_color else {})}
    environment = {k: v for k, v in environment.items() if no_color or k != "NO_COLOR"}
    process = subprocess.Popen([sys.executable, "-c", LIVE, kind], stdin=follower, stdout=subprocess.PIPE, stderr=follower, env=environment, start_new_session=True)
    os.close(follower)
    seen = b""

    def read(seconds):
        nonlocal seen
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and select.select([leader], [], [], max(0, deadline - time.monotonic()))[0]:
            try:
                data = os.read(leader, 65536)
            except OSError:
                return
            if not data:
                return
            seen += data
    try:
        deadline = time.monotonic() + 300
        while b"loss 0.25" not in seen and process.poll() is None and time.monotonic() < deadline:
            read(0.2)
        for number in signals:
            process.send_signal(number)
            read(0.5)
        process.wait(timeout=300)
        read(1)
    finally:
        process.kill()
        os.close(leader)
    text = seen.decode()
    assert "loss 0.25" in text and "a warning" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is shown"
    assert "\x1b[?1049h" not in text, "the screen is the one that was there"
    colours = re.findall(r"\x1b\[(?:3[0-7]|38;\d+;\d+)m", text)
    assert not colours if no_color else colours
    if kind == "quick" and signals == [signal.SIGINT]:
        assert process.returncode == 0 and "Traceback" not in text
