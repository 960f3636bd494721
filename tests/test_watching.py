"""The state of a run from its events, the time left in closed form, and the picture of it."""

import io
import re

import pytest
from rich.console import Console

from diffbench import time_left
from diffbench.cli.display import Screen
from diffbench.cli.picture import ago, clock, picture
from diffbench.watching import RunState


class Told:
    """A state that is told events at given times; `now` is everybody's clock."""

    def __init__(self, earlier=None, writer="a", **kinds):
        self.now, self.writer = 0.0, writer
        self.stages = {}
        for kind, (count, parent) in kinds.items():
            for i in range(count):
                self.stages[self.key(kind, i)] = {"name": kind, "label": f"{kind} {i}", "parents": {parent: self.key(parent, 0)} if parent else {}}
        self.state = RunState(self.stages, earlier, clock=lambda: self.now)

    @staticmethod
    def key(kind, i):
        return f"{kind[:4]}{i:08d}".ljust(64, "0")

    def tell(self, now, event, kind=None, i=0, writer=None, **fields):
        self.now = now
        self.state.apply({"event": event, "t": now, **({"key": self.key(kind, i)[:12]} if kind else {}), **fields}, writer or self.writer)

    def begin(self, now, kind, i=0, **fields):
        self.tell(now, "stage_started", kind, i, **{"try": 1, **fields})

    def done(self, now, kind, i=0, seconds=0.0, status="ok", cached=False, **fields):
        self.tell(now, "stage_finished", kind, i, status=status, reason="because" * (status != "ok"), seconds=seconds, cached=cached, **fields)

    def run(self, now, writer, number):
        self.tell(now, "run_started", writer=writer, name="small", number=number, host="here", pid=7, locked=True)


def test_stages_go_from_waiting_to_running_to_done():
    told = Told(train=(2, None), sample=(2, "train"))
    assert told.state.status == "waiting" and told.state.total("waiting") == 4
    told.run(0, "a", 1)
    told.begin(1, "train")
    told.tell(3, "stage_progress", "train", done=25, of=100, figures={"loss": 0.5, "odd": None})
    (running,) = told.state.as_json()["running"]
    assert running == {"stage": "train", "key": told.key("train", 0)[:12], "label": "train 0", "done": 25, "of": 100, "figures": {"loss": 0.5, "odd": None}, "try": 1, "seconds": 2.0, "seconds_left": 6.0}
    told.done(9, "train", seconds=8.0)
    told.begin(9, "train", 1)
    told.done(10, "train", 1, status="failed")
    told.done(10, "sample", 1, status="blocked")
    assert told.state.as_json()["stages"] == {"train": {"ok": 1, "failed": 1}, "sample": {"waiting": 1, "blocked": 1}}
    assert [s["reason"] for s in told.state.as_json()["bad"]] == ["because"]
    told.begin(11, "train", 1, **{"try": 2})
    assert told.state.running and not told.state.bad(), "a stage that is tried again has not failed"
    told.tell(12, "run_finished", counts={"ok": 1, "failed": 1})
    assert told.state.status == "finished" and told.state.now("a") == 12 and not told.state.running
    told.now = 100
    assert told.state.now("a") == 12 and told.state.silence("a") == 88


class TestTimeLeft:
    def test_nothing_is_said_before_there_is_anything_to_go_by(self):
        told = Told(train=(2, None))
        told.begin(0, "train")
        assert time_left.of_run(told.state) is None

    def test_the_pace_of_a_running_stage_stands_for_others_of_its_kind(self):
        told = Told(train=(3, None))
        told.begin(0, "train")
        told.tell(10, "stage_progress", "train", done=1, of=4, figures={})
        assert time_left.of_stage(told.state, told.state.stages[told.key("train", 0)[:12]]) == 30
        assert time_left.of_run(told.state) == 30 + 2 * 40

    def test_work_is_divided_among_as_many_workers_as_were_seen(self):
        told = Told(sample=(10, None))
        told.begin(0, "sample", 0)
        told.begin(0, "sample", 1)
        told.done(10, "sample", 0, seconds=10)
        told.done(10, "sample", 1, seconds=20)
        assert time_left.of_run(told.state) == 8 * 15 / 2

    def test_but_a_chain_takes_as_long_as_its_stages_and_exclusive_ones_come_after(self):
        told = Told(earlier={"train": 60, "sample": 5, "evaluate": 1, "throughput": 7}, train=(1, None), sample=(1, "train"), evaluate=(1, "sample"), throughput=(2, None))
        told.state.at_once[False] = 4
        assert time_left.of_run(told.state) == 60 + 5 + 1 + 2 * 7

    def test_earlier_runs_count_as_one_stage_of_this_one(self):
        told = Told(earlier={"train": 100}, train=(3, None))
        assert time_left.of_run(told.state) == 300
        told.begin(0, "train")
        told.done(20, "train", seconds=20)
        assert time_left.of_run(told.state) == 2 * 60

    def test_it_never_grows_negative(self):
        told = Told(earlier={"train": 1}, train=(1, None))
        told.begin(0, "train")
        told.tell(1000, "alive")
        assert time_left.of_run(told.state) == 0

    def test_a_plan_that_goes_round_in_a_circle_ends_too(self):
        told = Told(earlier={"a": 1, "b": 1}, a=(1, "b"), b=(1, "a"))
        assert time_left.of_run(told.state) == 2


class TestSeveralRuns:
    def test_a_resumed_run_begins_the_count_anew_and_tries_again_what_failed(self):
        told = Told(train=(3, None))
        told.run(0, "a", 1)
        for i, status in enumerate(("ok", "failed", "ok")):
            told.begin(1, "train", i)
            told.done(2, "train", i, status=status)
        told.tell(3, "run_finished", counts={"failed": 1})
        told.run(0, "b", 2)
        assert told.state.total("waiting") == 3, "the artefacts may be gone"
        told.tell(1, "stages_found", writer="b", counts={"train": 1}, keys=[told.key("train", 0)[:12], "not in the plan"])
        assert told.state.as_json()["stages"] == {"train": {"ok": 1, "waiting": 2}} and told.state.latest == "b" and told.state.status == "running"

    def test_two_at_once_are_one_picture(self):
        told = Told(train=(4, None))
        told.run(0, "a", 1)
        told.begin(1, "train", 0)
        told.run(0, "b", 2)
        assert told.state.total("running") == 1, "what the first runs goes on"
        told.begin(1, "train", 1, writer="b")
        told.tell(2, "stage_progress", "train", 1, writer="a", done=9, of=10, figures={})
        assert told.state.running[told.key("train", 1)[:12]].done == 0, "progress is its runner's"
        told.done(3, "train", 0)
        told.done(3, "train", 0, status="failed", writer="b")
        assert told.state.stages[told.key("train", 0)[:12]].status == "ok", "what is published stays"
        told.state.lose("b")
        assert told.state.total("waiting") == 3 and told.state.latest == "a" and told.state.status == "running"
        told.tell(5, "alive", writer="b")
        assert told.state.writers["b"].status == "running", "it was only silent"

    def test_clocks_of_writers_are_their_own(self):
        told = Told(train=(2, None))
        told.state.apply({"event": "stage_started", "key": told.key("train", 0)[:12], "t": 1000.0, "try": 1}, "a", age=50)
        told.now = 10
        assert told.state.elapsed(told.state.running[told.key("train", 0)[:12]]) == 60


@pytest.mark.parametrize("event", [
    {"event": "stage_started"}, {"event": "stage_started", "key": [], "try": 1}, {"event": "stage_finished", "key": "x", "status": {}}, {"event": "stages_found", "keys": None},
    {"event": "stage_progress", "key": "train0000000", "done": "x", "of": 1, "figures": {}}, {"event": "stage_progress", "key": "train0000000", "done": 1, "of": 1, "figures": []},
    {"event": "run_started", "host": 1}, {"event": "run_finished", "counts": 3}, {"event": "of tomorrow"}, {"event": "set", "key": 1}, {"event": ["note"]}, {"event": "as_json"}])
def test_events_that_are_not_whole_change_nothing(event):
    told = Told(train=(1, None))
    before = told.state.as_json()["stages"]
    told.state.apply({"t": 1.0, **event}, "a")
    screen = Screen(told.state, Console(file=io.StringIO()))
    screen.begin()
    screen.say(event)
    assert told.state.as_json()["stages"] == before and told.state.status == "running"


def drawn(state, width=80, height=24):
    console = Console(file=io.StringIO(), width=width, no_color=True, force_terminal=True, legacy_windows=False)
    console.print(picture(state, width, height))
    return re.sub(r"\x1b\[\d*m", "", console.file.getvalue())


@pytest.fixture
def busy():
    """A run in the middle of things, with texts that would disturb a terminal."""
    told = Told(train=(5, None), sample=(20, "train"), throughput=(3, None))
    told.state.name = "quick[bold]start"
    told.state.stages[told.key("train", 1)[:12]].label = "unet [/red] \x1b[2J, cosine, epsilon, cfg(inner=film, scale=1.5), seed 1"
    told.tell(0, "alive")
    told.begin(1, "train", 0)
    told.begin(1, "train", 1)
    told.done(61, "train", 0, seconds=60)
    told.tell(62, "stage_progress", "train", 1, done=700, of=1000, figures={"loss": 0.04123, "images_per_second": 12345.6})
    told.begin(63, "train", 2, **{"try": 2})
    told.tell(63, "stage_progress", "train", 2, done=3, of=1000, figures={"loss": None})
    told.begin(63, "sample", 0)
    told.tell(64, "stage_finished", "sample", 0, status="failed", reason="RuntimeError: the sky fell [/red]\a", seconds=1, cached=False)
    told.tell(66, "note", text="artefact train 3f9c is damaged, rebuilding [link]")
    return told


def test_the_picture_at_eighty_letters(busy):
    lines = [line.rstrip() for line in drawn(busy.state).splitlines()]
    assert lines == [
        "quick[bold]start: 2/28 stages, 1:06, about 10:28 left, 2 running, 24 waiting, 1…",
        "  train      ━━━━╸                     1/5 2 running, 2 waiting",
        "  sample     ━                        1/20 19 waiting, 1 failed",
        "  throughput                           0/3 3 waiting",
        "running",
        "  1:05 train unet [/red]  [2J, cosine, epsilon, cfg(inner=film, scale=1.5), see…",
        "       ━━━━━━━    70 %, loss 0.0412, 12,346 img/s, 0:27 left",
        "  0:03 train (try 2) train 2",
        "                  0 %, loss not finite, 0:57 left",
        "artefact train 3f9c is damaged, rebuilding [link]",
        "failed: sample sample 0: RuntimeError: the sky fell [/red]",
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 119, 120, 200])
def test_no_line_is_wider_than_the_terminal_and_no_control_character_reaches_it(busy, width):
    text = drawn(busy.state, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", text)


def test_many_running_stages_leave_room_for_the_rest():
    told = Told(train=(500, None))
    for i in range(200):
        told.begin(0, "train", i)
    for i in range(200, 300):
        told.done(1, "train", i, status="failed")
    text = drawn(told.state, 80, 24)
    assert len(text.splitlines()) <= 24 and "more running" in text and "96 more failed, before these:" in text


def test_times_for_people():
    assert [clock(s) for s in (0.9, 59, 60, 3599, 3600, 90_061)] == ["0:00", "0:59", "1:00", "59:59", "1:00:00", "25:01:01"]
    assert [ago(s) for s in (3, 119, 180, 7200, 200_000)] == ["3 s", "119 s", "3 min", "2 h", "2 days"]
