"""Plug-ins that observe a run: told everything in order, and unable to stop or slow it."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffbench import hookimpl
from diffbench.errors import DiffbenchError
from diffbench.registry.registry import Registry
from diffbench.running.outcome import Outcome
from diffbench.watching import observers
from diffbench.watching.observers import Observers

STAGE = SimpleNamespace(name="train", key="ab" * 32, label="unet", parents={})


class Listening:
    """Keeps what it is told; `before` is called first."""

    def __init__(self, before=lambda event: None):
        self.heard, self.before = [], before

    def hear(self, event, *facts):
        self.before(event)
        self.heard.append((event, *facts))

    @hookimpl
    def diffbench_run_started(self, plan, folder):
        self.hear("run_started", plan, folder)

    @hookimpl
    def diffbench_stage_started(self, stage):                    # as implementations written before there was a folder
        self.hear("started", stage.label)

    @hookimpl
    def diffbench_stage_progress(self, done, of, figures, folder):
        self.hear("progress", done, of, figures, folder)

    @hookimpl
    def diffbench_stage_finished(self, status, seconds, reason):
        self.hear("finished", status, seconds, reason)

    @hookimpl
    def diffbench_row_added(self, row, folder):
        self.hear("row", row["cell_id"], folder)

    @hookimpl
    def diffbench_run_finished(self, counts):
        self.hear("run_finished", counts)


def registry(**plugins):
    made = Registry()
    for name, plugin in plugins.items():
        made.hooks.register(plugin, name=name)
    return made


def tell(watcher, rows=1):
    watcher.run_started("the plan")
    watcher.started(STAGE)
    for done in (10, 10, 20):                                    # an engine that looks again says the same again
        watcher.progress(STAGE, done, 20, {"loss": 1 / done})
    watcher.finished(STAGE, Outcome(status="failed", reason="why", seconds=2.0))
    watcher.finished(STAGE, Outcome(status="ok", cached=True))
    for i in range(rows):
        watcher.row_added({"cell_id": i})
    watcher.run_finished({"ok": rows})


def expected(folder, rows=1):
    return [("run_started", "the plan", folder), ("started", "unet"), ("progress", 10, 20, {"loss": 0.1}, folder), ("progress", 20, 20, {"loss": 0.05}, folder),
            ("finished", "failed", 2.0, "why"), *(("row", i, folder) for i in range(rows)), ("run_finished", {"ok": rows})]


def test_everything_is_told_in_order_on_another_thread(tmp_path):
    threads = set()
    plugin, said = Listening(lambda event: threads.add(threading.current_thread())), []
    with Observers(registry(good=plugin), tmp_path, said.append) as watcher:
        tell(watcher)
    assert plugin.heard == expected(tmp_path) and not said
    assert len(threads) == 1 and threading.current_thread() not in threads and not any(t.is_alive() for t in threads)


def test_without_plug_ins_no_thread_is_started(tmp_path):
    before = threading.active_count()
    with Observers(registry(), tmp_path) as watcher:
        tell(watcher)
        assert threading.active_count() == before and not watcher.mailboxes


@pytest.mark.parametrize("error", [RuntimeError("the network is down"), SystemExit(3)])
def test_one_that_raises_is_told_nothing_more_and_named_once(tmp_path, error):
    def raises(event):
        if event == "started":
            raise error
    bad, good, said = Listening(raises), Listening(), []
    found = registry(bad=bad, good=good)
    with Observers(found, tmp_path, said.append) as watcher:
        tell(watcher)
    assert good.heard == expected(tmp_path) and bad.heard == expected(tmp_path)[:1]
    assert said == [f"plug-in bad is told nothing more of this run: its hook diffbench_stage_started raised {type(error).__name__}: {error}"]
    assert [p.message for p in found.problems] == said


class Stuck:
    """A plug-in that comes to one event and stays there until it is released."""

    def __init__(self, event):
        self.called, self.release = threading.Event(), threading.Event()
        self.plugin = Listening(lambda name: name == event and self.stay())

    def stay(self):
        self.called.set()
        self.release.wait(600)


def test_one_that_sleeps_neither_slows_the_run_nor_another_and_is_left_alone(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(observers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    stuck, good, said = Stuck("started"), Listening(), []
    with Observers(registry(slow=stuck.plugin, good=good), tmp_path, said.append, patience=0.3) as watcher:
        tell(watcher)
        assert stuck.called.wait(600) and not stuck.release.is_set() and not said, "all is told, and it is still in its call"
        now[0] = 0.5
        watcher.row_added({"cell_id": "late"})
        assert said == ["plug-in slow is told nothing more of this run: its hook diffbench_stage_started took longer than 0.3 s"]
    assert len(good.heard) == len(expected(tmp_path)) + 1 and len(said) == 1
    stuck.release.set()
    while len(stuck.plugin.heard) < 2:
        time.sleep(0.01)
    assert len(stuck.plugin.heard) == 2, "the call it was in may end; there is none after it"


def test_at_the_end_of_a_run_patience_is_shorter(tmp_path):
    stuck, said = Stuck("row"), []
    with Observers(registry(slow=stuck.plugin), tmp_path, said.append, last_patience=0.4) as watcher:
        tell(watcher, rows=5)
        assert stuck.called.wait(600)
        start = time.monotonic()
    assert 0.4 <= time.monotonic() - start < 600, "it is not waited for until it has ended"
    assert said == ["plug-in slow is told nothing more of this run: it was not done 0.4 s after the end of the run; 5 events were not told"]
    stuck.release.set()


def test_at_the_end_of_a_run_one_that_goes_on_answering_is_told_everything_but_progress(tmp_path):
    slow, said = Listening(lambda event: event != "run_started" and time.sleep(0.1)), []
    with Observers(registry(slow=slow), tmp_path, said.append, last_patience=0.35) as watcher:
        watcher.run_started("the plan")
        for i in range(8):
            watcher.row_added({"cell_id": i})
        for i in range(8):
            watcher.progress(STAGE, i, 50, {})
        watcher.row_added({"cell_id": 8})
        watcher.run_finished({"ok": 9})
    assert [h[1] for h in slow.heard if h[0] == "row"] == list(range(9)) and slow.heard[-1] == ("run_finished", {"ok": 9})
    assert said == ["plug-in slow was too slow: 8 reports of progress were left out"]


def test_after_an_interruption_only_the_last_seconds_are_waited(tmp_path):
    slow, said = Listening(lambda event: time.sleep(0.1)), []
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Observers(registry(slow=slow), tmp_path, said.append, last_patience=0.35) as watcher:
        for i in range(10_000):
            watcher.row_added({"cell_id": i})
        raise KeyboardInterrupt
    assert time.monotonic() - start < 500 and len(slow.heard) < 10_000
    assert len(said) == 1 and "it was not done 0.35 s after the end of the run; " in said[0]


@pytest.mark.parametrize(("why_not", "sentence"), [
    (lambda: "nobody is logged in", "tracker mine cannot be used: nobody is logged in"),
    (lambda: 1 // 0, "tracker mine cannot be used: why_not raised ZeroDivisionError: "), (lambda: None, None)])
def test_a_tracker_may_say_that_it_is_not_ready(why_not, sentence):
    plugin = Listening()
    plugin.why_not = why_not
    observers.refuse_unready(registry(**{"pack:hooks": plugin}))       # no tracker: what it calls why_not is its own affair
    if sentence is None:
        return observers.refuse_unready(registry(**{"tracker mine": plugin}))
    with pytest.raises(DiffbenchError, match=sentence):
        observers.refuse_unready(registry(**{"tracker mine": plugin}))


def test_what_an_error_says_of_a_credential_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "0123456789abcdef")

    def raises(event):
        raise OSError("https://me:hunter2@example.org refuses 0123456789abcdef")
    said = []
    with Observers(registry(bad=Listening(raises)), tmp_path, said.append) as watcher:
        watcher.run_started("the plan")
    assert said == ["plug-in bad is told nothing more of this run: its hook diffbench_run_started raised OSError: https://***@example.org refuses ***"]


def test_of_a_slow_one_progress_is_dropped_first_and_rows_never(tmp_path, monkeypatch):
    monkeypatch.setattr(observers, "QUEUED_PROGRESS", 10)
    release, said = threading.Event(), []
    slow = Listening(lambda event: event == "run_started" and release.wait(60))
    with Observers(registry(slow=slow), tmp_path, said.append) as watcher:
        watcher.run_started("the plan")
        for i in range(50):
            watcher.progress(STAGE, i, 50, {})
            watcher.row_added({"cell_id": i})
        release.set()
    assert [h[1] for h in slow.heard if h[0] == "progress"] == list(range(10)) and [h[1] for h in slow.heard if h[0] == "row"] == list(range(50))
    assert said == ["plug-in slow was too slow: 40 reports of progress were left out"]


def test_hooks_that_answer_stay_where_they_were():
    class Answers:
        @hookimpl
        def diffbench_environment(self):
            return {"thread": threading.current_thread().name}

        @hookimpl
        def diffbench_classify_failure(self, code):
            return "preempted" if code == -15 else None

    class Raises:
        @hookimpl
        def diffbench_classify_failure(self, reason):
            raise ValueError("no")
    found = registry(b=Answers(), a=Raises())
    assert found.answers("diffbench_environment") == [{"thread": threading.current_thread().name}]
    facts = {"stage": STAGE, "reason": "why", "log_tail": ""}
    assert found.first("diffbench_classify_failure", code=-15, **facts) == "preempted"
    assert found.first("diffbench_classify_failure", code=1, **facts) is None
    assert [p.message for p in found.problems] == ["plug-in a is switched off: its hook diffbench_classify_failure raised ValueError: no"]


@pytest.mark.parametrize(("answer", "reason"), [("preempted", "preempted: why"), ("two\n words ", "two words: why"), (None, "why"), ("  ", "why"), (3, "why")])
def test_a_better_word_for_a_failure_stands_before_the_reason(tmp_path, answer, reason):
    from diffbench.launchers import Ended
    from diffbench.running.attempt import Attempt
    from diffbench.running.engine import Engine

    asked = []

    class Classifies:
        @hookimpl
        def diffbench_classify_failure(self, stage, code, reason, log_tail):
            asked.append((stage, code, reason, log_tail))
            return answer
    engine = Engine.__new__(Engine)
    engine.plan = SimpleNamespace(registry=registry(one=Classifies()))
    (tmp_path / "log.txt").write_text("".join(f"line {i}\n" for i in range(80)))
    (tmp_path / "error.json").write_text(json.dumps({"status": "failed", "kind": "code", "reason": "why"}))
    assert engine._classified(STAGE, Ended(id="x", code=-9), Attempt(STAGE, Path(tmp_path), limit=None,
                                                                     stall=60.0)).reason == reason
    assert asked == [(STAGE, -9, "why", "\n".join(f"line {i}" for i in range(30, 80)))]
