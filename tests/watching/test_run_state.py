"""The state of a run from its events, the time left in closed form, and the picture of it."""
import io
import re

import pytest
from rich.console import Console

from diffbench.cli.display import Screen
from diffbench.cli.picture import ago, clock, picture
from diffbench.running.order import KINDS
from diffbench.watching import time_left
from diffbench.watching.run_state import RunState
from diffbench.watching.state_as_json import as_json


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
    (running,) = as_json(told.state)["running"]
    assert running == {"stage": "train", "key": told.key("train", 0)[:12], "label": "train 0", "done": 25, "of": 100, "figures": {"loss": 0.5, "odd": None}, "try": 1, "seconds": 2.0, "seconds_left": 6.0}
    told.done(9, "train", seconds=8.0)
    told.begin(9, "train", 1)
    told.done(10, "train", 1, status="failed")
    told.done(10, "sample", 1, status="blocked")
    assert as_json(told.state)["stages"] == {"train": {"ok": 1, "failed": 1}, "sample": {"waiting": 1, "blocked": 1}}
    assert [s["reason"] for s in as_json(told.state)["bad"]] == ["because"]
    told.begin(11, "train", 1, **{"try": 2})
    assert told.state.running and not told.state.bad(), "a stage that is tried again has not failed"
    told.tell(12, "run_finished", counts={"ok": 1, "failed": 1})
    assert told.state.status == "finished" and told.state.now("a") == 12 and not told.state.running
    told.now = 100
    assert told.state.now("a") == 12 and told.state.silence("a") == 88


def simulated(told, seconds, workers=2):
    """Runs the stages of a state as the engine would, timings alone and last; gives (now, time left) twice a second."""
    order = sorted(told.stages, key=lambda key: KINDS[told.stages[key]["name"]])
    running, done, said = {}, set(), []
    while len(done) < len(told.stages):
        for key, (_, ends) in list(running.items()):
            if ends <= told.now:
                del running[key]
                done.add(key)
                event = {"status": "ok", "reason": "", "seconds": seconds[key], "cached": False}
                told.state.apply({"event": "stage_finished", "t": told.now, "key": key[:12], **event}, "a")
        for key in order:
            alone = told.stages[key]["name"] == "throughput"
            is_free = not running if alone else len(running) < workers and not any(told.stages[k]["name"] == "throughput" for k in running)
            is_ready = set(told.stages[key]["parents"].values()) <= done and (not alone or len(done) >= sum(s["name"] != "throughput" for s in told.stages.values()))
            if key not in done and key not in running and is_free and is_ready:
                running[key] = told.now, told.now + seconds[key]
                told.state.apply({"event": "stage_started", "t": told.now, "key": key[:12], "try": 1}, "a")
        told.now += 0.5
        for key, (since, _) in running.items():
            share = int(100 * min(1.0, (told.now - since) / seconds[key]))
            told.state.apply({"event": "stage_progress", "t": told.now, "key": key[:12], "done": share, "of": 100, "figures": {}}, "a")
        said.append((told.now, time_left.of_run(told.state)))
    return said


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

    def test_earlier_runs_count_until_a_stage_of_the_kind_is_done_in_this_one(self):
        told = Told(earlier={"train": 100}, train=(3, None))
        assert time_left.of_run(told.state) == 300
        told.begin(0, "train")
        told.done(20, "train", seconds=20)
        assert time_left.of_run(told.state) == 2 * 20

    def test_samplers_and_timings_go_by_the_evaluations_of_the_first_training(self):
        """Half of a training of 3,000 evaluations took 15 s: 0.01 s each, for 500 of a sampler and 200 of its timing."""
        told = Told(train=(1, None), sample=(1, "train"), throughput=(1, None))
        for kind, evaluations in (("train", 3000), ("sample", 500), ("throughput", 200)):
            told.stages[told.key(kind, 0)]["work"] = {"like": kind, "units": 7, "evaluations": evaluations}
        told.state = RunState(told.stages, clock=lambda: told.now)
        told.begin(0, "train")
        assert time_left.of_run(told.state) is None
        told.tell(15, "stage_progress", "train", done=1, of=2, figures={})
        assert time_left.of_run(told.state) == pytest.approx(15 + 5 + 2)

    @pytest.mark.parametrize("speed", [0.2, 1.0, 6.0])
    def test_of_a_whole_run_it_is_right_within_a_factor_of_two_after_the_first_tenth(self, speed):
        """Two networks, one twice as dear, eight samplers on each, judged three times and timed alone; two workers, on machines of several speeds."""
        stages, seconds = {}, {}

        def add(kind, name, took, parents=(), evaluations=0.0, like="eyes", network=""):
            key = f"{len(stages):012d}".ljust(64, "0")
            work = {"like": like, "units": evaluations or 1, **({"evaluations": evaluations, "network": network} if evaluations else {})}
            stages[key] = {"name": kind, "label": name, "parents": {str(i): p for i, p in enumerate(parents)}, "work": work}
            seconds[key] = took / speed if evaluations else took
            return key
        eyes = [add("extractor", "e", 8), add("classifier", "c", 8)]
        reference = add("reference", "r", 2, eyes)
        timings = []
        for network, dear in (("unet", 1.0), ("dit", 2.0)):
            train = add("train", network, 40 * dear, (), 30_000, network, network)
            for i in range(8):
                sample = add("sample", f"{network} {i}", (1 + i) * dear, [train], 1000 * (1 + i), f"drawn by {network}", network)
                features = add("features", f"{network} {i}", 1.0, [sample, *eyes])
                for j in range(3):
                    add("evaluate", f"{network} {i} {j}", 0.7, [features, reference])
                timings.append(add("throughput", f"{network} {i}", 0.7 * (1 + i) * dear, (), 800 * (1 + i), f"timed {network}", network))
        told = Told()
        told.stages, told.state = stages, RunState(stages, clock=lambda: told.now)
        said = simulated(told, seconds)
        end = told.now
        late = [(now, round(left / (end - now), 2) if left is not None else None) for now, left in said if 0.1 * end < now < 0.95 * end]
        assert len(late) > 50 and not [found for found in late if found[1] is None or not 0.5 <= found[1] <= 2]

    def test_of_a_run_of_thousands_of_cells_it_is_worked_out_by_sorts_of_work(self):
        told = Told(train=(20_000, None))
        told.begin(0, "train")
        told.done(10, "train", seconds=10)
        assert len(told.state.waiting) == 1 and time_left.of_run(told.state) == 19_999 * 10

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
        assert as_json(told.state)["stages"] == {"train": {"ok": 1, "waiting": 2}} and told.state.latest == "b" and told.state.status == "running"

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
    before = as_json(told.state)["stages"]
    told.state.apply({"t": 1.0, **event}, "a")
    screen = Screen(told.state, Console(file=io.StringIO()))
    screen.begin()
    screen.say(event)
    assert as_json(told.state)["stages"] == before and told.state.status == "running"


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
        "quick[bold]start: 2/28 stages, 1:06, time left unknown, 2 running, 24 waiting, …",
        "  train      ━━━━╸                     1/5 2 running, 2 waiting",
        "  sample     ━                        1/20 19 waiting, 1 failed",
        "  throughput                           0/3 3 waiting",
        "running",
        "  1:05 train unet [/red] \\x1b[2J, cosine, epsilon, cfg(inner=film, scale=1.5), …",
        "       ━━━━━━━    70 %, loss 0.0412, 12,346 img/s, 0:27 left",
        "  0:03 train (try 2) train 2",
        "                  0 %, loss not finite, 1:10 left",
        "artefact train 3f9c is damaged, rebuilding [link]",
        "failed: sample sample 0: RuntimeError: the sky fell [/red]\\x07",
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
