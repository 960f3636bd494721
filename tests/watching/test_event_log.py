"""The event log: whole lines, few of them, clocks that cannot go back, and a reader that no file can upset."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffbench.errors import DiffbenchError
from diffbench.running.outcome import Outcome
from diffbench.store import event_fields
from diffbench.watching import event_log, reading, time_left
from diffbench.watching.event_log import EVENTS, EventLog
from diffbench.watching.reading import Log, Logs, is_held
from diffbench.watching.run_state import RunState
from diffbench.watching.state_as_json import as_json

ROOT = Path(__file__).resolve().parents[2]


def stage(name="train", number=0):
    return SimpleNamespace(name=name, key=f"{number:08x}" + "0" * 56, label=f"{name} number {number}", parents={})


def plan(name="small"):
    return SimpleNamespace(matrix=SimpleNamespace(name=name), device="cpu", summary=lambda: {"cells": 1, "skipped": 0, "stages": {"train": 1}, "train_steps": 3, "more": 0})


def written(folder):
    (path,) = (folder / "events").glob("*.jsonl")
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_a_run_is_told_in_lines_that_a_reader_gets_back(tmp_path):
    with EventLog(tmp_path) as log:
        log.run_started(plan())
        log.started(stage())
        log.progress(stage(), 50, 100, {"loss": float("nan"), "images_per_second": 7.0})
        log.finished(stage(), Outcome(status="failed", reason="two\nlines ü", seconds=1.5))
        log.row_added({"cell_id": "c1", "status": "failed", "reason": "why", "nfe": 3})
        log.note("read this")
        log.run_finished({"failed": 1})
    lines = written(tmp_path)
    assert [line["event"] for line in lines] == ["run_started", "stage_started", "stage_progress", "stage_finished", "row_added", "note", "run_finished"]
    assert [event for _, event in Logs(tmp_path).read()] == lines
    assert lines[0]["pid"] == os.getpid() and lines[0]["number"] == 1 and lines[0]["plan"] == {"cells": 1, "skipped": 0, "stages": {"train": 1}, "train_steps": 3}
    assert lines[1] == lines[1] | {"stage": "train", "key": "0" * 12, "label": "train number 0", "try": 1}
    assert lines[2]["figures"] == {"loss": None, "images_per_second": 7.0}
    assert lines[3] == lines[3] | {"status": "failed", "reason": "two\nlines ü", "seconds": 1.5, "cached": False, "tries": 1}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"]) for line in lines)


def test_the_documentation_lists_every_event_with_its_fields(tmp_path):
    text = (ROOT / "docs" / "watching.md").read_text()
    rows = {name: row for row in re.findall(r"^\| (`\w+`.*) \|$", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row.partition("|")[0])}
    assert set(event_log.EVENTS) <= set(rows)
    with EventLog(tmp_path) as log:
        log.run_started(plan())
        log.finished(stage(number=1), Outcome(status="ok", cached=True))
        log.started(stage())
        log.progress(stage(), 1, 2, {})
        log.finished(stage(), Outcome(status="ok"))
        log.row_added({"cell_id": "c1", "status": "ok", "reason": ""})
        log.note("")
    for line in written(tmp_path):
        for field in set(line) - {"time", "t", "event"}:
            assert f"`{field}`" in rows[line["event"]], (line["event"], field)


def test_forty_thousand_stages_found_done_are_one_line(tmp_path):
    with EventLog(tmp_path) as log:
        for number in range(40_000):
            log.finished(stage("train" if number < 1000 else "sample", number), Outcome(status="ok", cached=True))
        log.flush()
        log.run_finished({"ok": 10_000})
    found, finished = written(tmp_path)
    assert found["counts"] == {"train": 1000, "sample": 39_000} and len(set(found["keys"])) == 40_000
    assert finished["t"] < 10


def test_progress_is_thinned_but_the_end_is_always_there(tmp_path):
    with EventLog(tmp_path) as log:
        for done in range(1, 1001):
            log.progress(stage(), done, 1000, {"loss": 1.0})
            log.progress(stage(number=1), min(done, 500), 1000, {})
        log.progress(stage(), 1000, 1000, {"loss": 1.0})             # said again by an engine that looks again
    assert [(line["key"][:8], line["done"]) for line in written(tmp_path)[:-1]] == [("00000000", 1), ("00000001", 1), ("00000000", 1000)]


def test_a_clock_set_back_makes_no_time_negative(tmp_path, monkeypatch):
    wall = iter([2e9, 1e9, 2e9, 0.0])
    monkeypatch.setattr(time, "time", lambda: next(wall))
    with EventLog(tmp_path) as log:
        log.started(stage())
        log.finished(stage(), Outcome(status="ok", seconds=-3600.0))
        log.note("")
    lines = written(tmp_path)
    assert [line["time"][:4] for line in lines] == ["2033", "2001", "2033", "1970"]
    assert lines[1]["seconds"] == 0 and all(a["t"] <= b["t"] for a, b in zip(lines, lines[1:], strict=False)) and lines[0]["t"] >= 0


@pytest.mark.parametrize(("raised", "event", "reason"), [
    (KeyboardInterrupt(), "run_interrupted", "KeyboardInterrupt:"), (OSError(28, "No space left"), "run_failed", "OSError: [Errno 28] No space left")])
def test_a_run_that_does_not_finish_says_how_it_ended(tmp_path, raised, event, reason):
    with pytest.raises(type(raised)), EventLog(tmp_path) as log:
        log.note("")
        raise raised
    assert written(tmp_path)[-1]["event"] == event and written(tmp_path)[-1]["reason"] == reason


def test_a_full_disk_costs_lines_and_one_warning(tmp_path):
    """/dev/full refuses every write as a full disk does; what follows on a disk with room is whole lines again."""
    said = []
    with EventLog(tmp_path, warn=said.append) as log:
        log.note("before")
        good = log.handle
        log.handle = os.open("/dev/full", os.O_WRONLY)
        log.note("lost")
        log.note("lost too")
        os.write(good, b'{"time": "the part that fitted')
        os.close(log.handle)
        log.handle = good
        log.note("after")
    assert said == [f"the event log {log.path} cannot be written (No space left on device): the run goes on, `diffbench watch` will not see all of it"]
    logs = Logs(tmp_path)
    assert [event.get("text") for _, event in logs.read()] == ["before", "after", None]
    assert logs.damage(set()) == [f"1 line of events/{log.path.name} cannot be read: skipped"]


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "events").write_text("a file")
    with pytest.raises(DiffbenchError, match=r"events: the event log cannot be written: File exists"):
        EventLog(tmp_path)


def test_two_runs_of_one_process_have_a_file_each(tmp_path):
    with EventLog(tmp_path) as first, EventLog(tmp_path) as second:
        first.note("a")
        second.note("b")
    assert second.path.stem == first.path.stem + "-2" and (first.number, second.number) == (1, 2)


def test_a_line_cut_at_every_byte_is_dropped_and_said(tmp_path):
    with EventLog(tmp_path) as log:
        log.note("first")
        log.note("second")
    data = log.path.read_bytes()
    second = data.index(b"\n") + 1
    end = data.index(b"\n", second)
    for cut in range(second + 1, end + 1):
        log.path.write_bytes(data[:cut])
        logs = Logs(tmp_path)
        assert [event["text"] for _, event in logs.read()] == ["first"]
        assert logs.damage({log.path.stem}) == [f"the last line of events/{log.path.name} is incomplete: dropped"] and not logs.damage(set())
    log.path.write_bytes(data[:second + 3])
    growing = Log(log.path)
    assert [event["text"] for event in growing.read()] == ["first"] and growing.read() == []
    with open(log.path, "ab") as file:
        file.write(data[second + 3:])
    assert [event.get("text") for event in growing.read()] == ["second", None], "the rest of the line came later"


STRANGE = [b"[]", b"7", b"null", b'"text"', b"\xff\xfe", b"{" * 100_000, b"[" * 100_000, b'{"event": 3, "time": "x", "t": 1}', b'{"event": "note", "t": 1}',
           b'{"event": "note", "time": "x", "t": NaN}', b'{"event": "note", "time": "x", "t": "later"}', b'{"event": "note", "time": "x", "t": 1' + b"0" * 5000 + b"}",
           b'{"event": "note", "time": "x", "text": "y", "t": 1' + b"0" * 400 + b"}", b'{"event": "note", "time": "x", "text": "y", "t": 1e999}',
           b'{"event": "note", "time": "x", "text": "y", "t": -1}', b'{"event": "note", "time": "x", "text": "y", "t": true}', b'{"event": "note", "time": 1, "text": "y", "t": 1}',
           b'{"event": "note", "time": "x", "t": 1}', b'{"event": "note", "time": "x", "t": 1, "text": ["y"]}']


@pytest.mark.parametrize("line", STRANGE, ids=range(len(STRANGE)))
def test_lines_of_a_stranger_are_skipped(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_bytes(line + b'\n{"event": "of a later version", "time": "2026", "t": 1}\n')
    log = Log(path)
    assert [event["event"] for event in log.read()] == ["of a later version"] and log.unreadable == 1


BAD = {"text": [1, None, [], {}, True], "count": ["1", -1, 1.5, True, None, 10**400, float("inf"), float("nan"), [1]], "truth": ["true", 1, None],
       "seconds": ["1", -1, None, True, 10**400, float("inf"), float("nan"), 1e300], "status": ["done", 1, None, [], {}], "keys": ["abc", [1], None, {"a": 1}],
       "figures": [[], {"loss": "x"}, {"loss": 10**400}, {"loss": [1]}], "counts": [[], {"ok": "x"}, {"ok": float("inf")}, {"ok": -1}]}
WHOLE = {"run_started": {"name": "n", "host": "h", "pid": 1, "number": 1, "locked": True}, "stages_found": {"keys": ["k"]}, "stage_started": {"key": "k", "try": 1},
         "stage_progress": {"key": "k", "done": 1, "of": 2, "figures": {"loss": None, "rate": 2.0}},
         "stage_finished": {"key": "k", "status": "ok", "reason": "", "cached": False, "seconds": 1.0}, "row_added": {"cell_id": "c", "status": "ok"},
         "note": {"text": "t"}, "run_finished": {"counts": {"ok": 1}}, "run_interrupted": {"reason": "r"}, "run_failed": {"reason": "r"}}
KINDS = {"pid": "count", "number": "count", "try": "count", "done": "count", "of": "count", "locked": "truth", "cached": "truth", "seconds": "seconds", "keys": "keys", "figures": "figures",
         "counts": "counts", ("stage_finished", "status"): "status"}


@pytest.mark.parametrize("kind", WHOLE)
def test_an_event_with_one_field_missing_or_of_another_type_changes_nothing(tmp_path, kind):
    assert set(WHOLE) == set(event_fields.FIELDS) == set(EVENTS) - {"alive"}
    whole = {"event": kind, "time": "2026", "t": 1.0, **WHOLE[kind]}
    bad = [{name: value for name, value in whole.items() if name != gone} for gone in WHOLE[kind]]
    bad += [{**whole, name: value} for name in WHOLE[kind] for value in BAD[KINDS.get(name) or KINDS.get((kind, name), "text")]]
    path = tmp_path / "events" / "x.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(event) + "\n" for event in [*bad, whole]))
    logs = Logs(tmp_path)
    assert [event for _, event in logs.read()] == [whole] and logs.logs["x"].unreadable == len(bad)
    state = RunState({"k": {"name": "train", "label": "l", "parents": {}}})
    before = as_json(state)
    for event in bad:
        state.apply(event, "w")
    after = as_json(state)
    assert {**after, "writers": [], "status": "", "seconds": 0, "seconds_left": 0} == {**before, "writers": [], "status": "", "seconds": 0, "seconds_left": 0}
    assert time_left.earlier(bad) == {} and json.dumps(after)


def test_a_line_without_an_end_is_given_up_and_the_next_one_read(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "CHUNK", 16)
    monkeypatch.setattr(reading, "LONGEST_LINE", 100)
    note = b'{"event": "note", "time": "x", "t": 1, "text": "y"}\n'
    path = tmp_path / "x.jsonl"
    path.write_bytes(note + b"x" * 1000)
    log = Log(path)
    assert len(log.read()) == 1 and len(log.rest) <= 100 and log.unreadable == 1
    with open(path, "ab") as file:
        file.write(b"x" * 1000 + b"\n" + note)
    assert len(log.read()) == 1 and log.unreadable == 1


def test_texts_of_a_stranger_are_made_plain(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"event": "note", "time": "x", "t": 1, "text": "caf\udce9\0" + "x" * 10**6}) + "\n")
    (event,) = Log(path).read()
    assert event["text"].startswith("caf\\udce9\\x00xxx") and event["text"].endswith(" ... (1000005 characters in all)") and len(event["text"]) < 11_000


def test_links_pipes_and_folders_are_not_read(tmp_path):
    folder = tmp_path / "events"
    folder.mkdir()
    (tmp_path / "secret").write_text('{"event": "note", "time": "x", "t": 1}\n')
    (folder / "link.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / "folder.jsonl").mkdir()
    assert Logs(tmp_path).read() == []


def test_logs_are_merged_by_the_clock_and_each_keeps_its_order(tmp_path):
    (tmp_path / "events").mkdir()
    for name, times in {"a": (1, 5, 3), "b": (2, 4)}.items():
        lines = [json.dumps({"event": name, "time": str(t), "t": i}) for i, t in enumerate(times)]
        (tmp_path / "events" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    told = [(name, event["time"]) for name, event in Logs(tmp_path).read()]
    assert [t for name, t in told if name == "a"] == ["1", "5", "3"] and told[:3] == [("a", "1"), ("b", "2"), ("b", "4")]


def test_a_killed_writer_lets_go_of_its_log(tmp_path):
    code = f"import time; from pathlib import Path; from diffbench.watching.event_log import EventLog; log = EventLog(Path({str(tmp_path)!r})); log.note('x'); print('ready', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    (path,) = (tmp_path / "events").glob("*.jsonl")
    assert is_held(path) and is_held(path), "looking does not take the lock away"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not is_held(path) and Log(path).read()[0]["text"] == "x"


def test_a_run_in_which_nothing_happens_gives_signs_of_life(tmp_path, monkeypatch):
    monkeypatch.setattr(event_log, "ALIVE_SECONDS", 0.2)
    with EventLog(tmp_path) as log:
        log.finished(stage(), Outcome(status="ok", cached=True))     # nobody flushes it
        since, deadline = time.monotonic(), time.monotonic() + 300
        while b"".join(path.read_bytes() for path in tmp_path.glob("events/*")).count(b'"alive"') < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        most = (time.monotonic() - since) / event_log.ALIVE_SECONDS + 1
        log.run_finished({})
    names = [line["event"] for line in written(tmp_path)]
    assert names[0] == "stages_found" and 2 <= names.count("alive") <= most and names[-1] == "run_finished"
