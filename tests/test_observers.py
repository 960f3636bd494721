"""Plug-ins that observe a run: told everything in order, and unable to stop or slow it."""

import json
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffbench import hookimpl, observers
from diffbench.engine import Outcome
from diffbench.observers import Observers
from diffbench.registry import Registry

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


def test_one_that_sleeps_neither_slows_the_run_nor_another_and_is_left_alone(tmp_path):
    release = threading.Event()
    slow, good, said = Listening(lambda event: event == "started" and release.wait(60)), Listening(), []
    with Observers(registry(slow=slow, good=good), tmp_path, said.append, patience=0.3) as watcher:
        start = time.monotonic()
        tell(watcher)
        assert time.monotonic() - start < 0.2 and not said
        time.sleep(0.5)
        watcher.row_added({"cell_id": "late"})
        assert said == ["plug-in slow is told nothing more of this run: its hook diffbench_stage_started took longer than 0.3 s"]
    assert time.monotonic() - start < 5 and len(good.heard) == len(expected(tmp_path)) + 1 and len(said) == 1
    release.set()
    time.sleep(0.1)
    assert len(slow.heard) == 2, "the call it was in may end; there is none after it"


def test_at_the_end_of_a_run_patience_is_shorter(tmp_path):
    release, said = threading.Event(), []
    slow = Listening(lambda event: event == "row" and release.wait(60))
    start = time.monotonic()
    with Observers(registry(slow=slow), tmp_path, said.append, last_patience=0.4) as watcher:
        tell(watcher, rows=5)
    assert 0.4 <= time.monotonic() - start < 3
    assert said == ["plug-in slow is told nothing more of this run: it was not done 0.4 s after the end of the run; 5 events were not told"]
    release.set()


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
    from diffbench.engine import Engine
    from diffbench.launchers import Ended
    from diffbench.tries import Try

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
    assert engine._classified(STAGE, Ended(id="x", code=-9), Try(STAGE, Path(tmp_path), limit=None, stall=60.0)).reason == reason
    assert asked == [(STAGE, -9, "why", "\n".join(f"line {i}" for i in range(30, 80)))]
