"""`diffbench watch`: a run seen from another process, while it goes on, when it has ended and when it was killed."""
import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.cli import watch
from diffbench.running.outcome import Outcome
from diffbench.watching.event_log import EventLog
from diffbench.watching.state_as_json import as_json
from tests.registry.test_registry import distribution
from tests.running.test_engine import MATRIX, PLUGIN
from tests.watching.test_event_log import plan, stage

STEPS = 600                           # of the real run below: some seconds, so that its training is seen while it goes on
STAGES = [stage("train"), stage("sample", 1), stage("sample", 2)]


def planned(folder, stages=STAGES):
    folder.mkdir(exist_ok=True)
    (folder / "plan.json").write_text(json.dumps({"cells": [], "stages": {s.key: {"name": s.name, "label": s.label, "parents": s.parents} for s in stages}}))
    return folder


def ask(*arguments):
    return CliRunner().invoke(watch.command, [str(a) for a in arguments])


def state(folder):
    return json.loads(ask(folder, "--once", "--json").stdout)


def test_a_finished_run_is_shown_and_ends_well(tmp_path):
    folder = planned(tmp_path / "run")
    with EventLog(folder) as log:
        log.run_started(plan())
        log.finished(STAGES[0], Outcome(status="ok", cached=True))
        for s in STAGES[1:]:
            log.started(s)
            log.finished(s, Outcome(status="ok", seconds=1.0))
        log.row_added({"cell_id": "c", "status": "ok", "reason": ""})
        log.run_finished({"ok": 1})
    found = state(folder)
    assert (found["status"], found["done"], found["of"], found["cells"], found["running"], found["seconds_left"]) == ("finished", 3, 3, {"ok": 1}, [], None)
    done = ask(folder)
    assert done.exit_code == 0 and "small: 3/3 stages" in done.stdout and "finished 0 s ago: 1 ok" in done.stdout


def test_failures_are_told_with_their_reasons_and_in_the_exit_code(tmp_path):
    folder = planned(tmp_path / "run")
    with EventLog(folder) as log:
        log.run_started(plan())
        log.started(STAGES[0])
        log.finished(STAGES[0], Outcome(status="failed", reason="train: the sky fell [/red]"))
        log.finished(STAGES[1], Outcome(status="blocked", reason="train: the sky fell [/red]"))
        log.run_finished({"failed": 2})
    done = ask(folder)
    assert done.exit_code == 1 and "failed: train train number 0: train: the sky fell [/red]" in " ".join(done.stdout.split()) and "1 blocked" in done.stdout
    assert ask(folder, "--once").exit_code == 0, "with --once it has only been asked how things stand"


@pytest.mark.parametrize(("error", "said"), [(KeyboardInterrupt(), "interrupted 0 s ago; typing its line again goes on from here"),
                                             (OSError("no room"), "the run itself failed 0 s ago: OSError: no room; typing its line again goes on from here")])
def test_a_run_that_ended_early_says_so(tmp_path, error, said):
    folder = planned(tmp_path / "run")
    with pytest.raises(type(error)), EventLog(folder) as log:
        log.run_started(plan())
        log.started(STAGES[0])
        raise error
    done = ask(folder)
    assert done.exit_code == 1 and said in done.stdout and state(folder)["stages"]["train"] == {"waiting": 1}


def lines(folder, name, *events, host="elsewhere", ago=0.0):
    (folder / "events").mkdir(exist_ok=True)
    wall = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(time.time() - ago))
    first = {"event": "run_started", "name": "small", "number": 1, "host": host, "pid": 7, "locked": True}
    (folder / "events" / f"{name}.jsonl").write_text("".join(json.dumps({"time": wall, "t": float(i), **e}) + "\n" for i, e in enumerate((first, *events))))


STARTED = {"event": "stage_started", "key": STAGES[0].key[:12], "try": 1}


def test_on_another_machine_silence_tells(tmp_path):
    folder = planned(tmp_path / "run")
    lines(folder, "elsewhere-7", STARTED, ago=10)
    (running,) = state(folder)["running"]
    assert 10 <= running["seconds"] <= 13 and state(folder)["said"] == ["running (pid 7 on elsewhere)"]
    lines(folder, "elsewhere-7", STARTED, ago=200)
    assert state(folder)["status"] == "gone"
    assert state(folder)["said"] == ["the process of the run (pid 7 on elsewhere) is gone without having finished: last sign of life 3 min ago; typing its line again goes on from here"]
    assert ask(folder).exit_code == 1
    lines(folder, "elsewhere-7", STARTED, ago=-3600)
    assert state(folder)["running"][0]["seconds"] <= 1, "a clock that was set back makes no time negative"


def test_the_end_of_a_torn_log_is_said(tmp_path):
    folder = planned(tmp_path / "run")
    lines(folder, "elsewhere-7", STARTED, ago=200)
    with open(folder / "events" / "elsewhere-7.jsonl", "a") as file:
        file.write('{"event": "stage_fin')
    assert state(folder)["said"][0] == "the last line of events/elsewhere-7.jsonl is incomplete: dropped"


@pytest.mark.parametrize(("text", "said"), [
    ("", "cannot be read: Expecting value"), ("[]", r"cannot be read: it is \[\], expected a mapping"),
    ('{"stages": 3}', r"cannot be read: it\.stages is 3, expected a mapping"), ("[" * 100_000, "cannot be read: it is nested too deeply"),
    (json.dumps({"stages": {"a" * 64: {}}}), "cannot be read: .* has no name"), ('{"stages": {"a": {}}}', "a name in it.stages is 'a', expected a key")])
def test_a_plan_that_is_none_is_a_sentence(tmp_path, text, said):
    folder = planned(tmp_path / "run")
    lines(folder, "x")
    (folder / "plan.json").write_text(text)
    with pytest.raises(diffbench.DiffbenchError, match=said):
        watch.Watched(folder)


def test_a_run_without_events_is_a_sentence(tmp_path):
    with pytest.raises(diffbench.DiffbenchError, match=r"holds no events/\*\.jsonl to watch: its run has not begun yet, or was made by a version that wrote none"):
        watch.Watched(planned(tmp_path / "run"))


def test_a_log_that_is_only_just_begun_is_waited_for(tmp_path, monkeypatch):
    folder = planned(tmp_path / "run")
    (folder / "events").mkdir()
    (folder / "events" / "x.jsonl").touch()
    watched = watch.Watched(folder)
    watched.look()
    assert watched.goes_on() and watched.sentences() == ["nothing readable was written of this run yet"]
    monkeypatch.setattr(watch, "FIRST_SECONDS", 0.0)
    assert not watched.goes_on() and not watched.is_well()


def test_a_second_run_and_a_new_plan_are_picked_up(tmp_path):
    folder = planned(tmp_path / "run")
    with EventLog(folder) as first:
        first.run_started(plan())
        first.started(STAGES[0])
        watched = watch.Watched(folder)
        assert watched.look() == [] and watched.state.total("running") == 1
        with EventLog(folder) as second:
            second.run_started(plan())
            second.started(STAGES[1])
            assert [e["event"] for e in watched.look()] == ["run_started", "stage_started"] and watched.state.total("running") == 2
            planned(folder, [*STAGES, stage("evaluate", 9)])
            assert watched.look() == [] and len(watched.state.stages) == 4 and watched.state.total("running") == 2
            second.run_finished({})
        watched.look()
        assert watched.state.status == "running" and watched.state.latest == first.path.stem
        first.run_finished({"ok": 3})
    watched.look()
    assert watched.state.status == "finished" and watched.is_well()


def test_a_watcher_without_a_terminal_gets_plain_lines_until_the_run_is_killed(tmp_path):
    folder = planned(tmp_path / "run")
    code = ("import sys, time\nfrom pathlib import Path\nfrom tests.cli.test_watch import STAGES, EventLog, plan\n"
            f"log = EventLog(Path({str(folder)!r}))\nlog.run_started(plan())\nprint('ready', flush=True)\n"
            "while input() != 'go':\n    log.note('knock')\n"
            "log.started(STAGES[0])\nlog.note('read [this]')\ntime.sleep(60)\n")
    root = Path(__file__).resolve().parents[2]
    run = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)
    assert run.stdout.readline() == "ready\n"
    watcher = subprocess.Popen([sys.executable, "-u", "-m", "diffbench", "watch", folder], stdout=subprocess.PIPE, text=True)

    def tell(word):
        run.stdin.write(f"{word}\n")
        run.stdin.flush()
    while not select.select([watcher.stdout], [], [], 0.5)[0]:
        tell("knock")                                     # until it looks
    tell("go")
    lines = [line for line in iter(watcher.stdout.readline, "read [this]\n") if line != "knock\n"]
    assert lines == ["started: train train number 0\n"]
    run.send_signal(signal.SIGKILL)
    rest = watcher.communicate(timeout=300)[0]
    run.wait()
    assert f"the process of the run (pid {run.pid} on " in rest and "is gone without having finished: last sign of life" in rest
    assert watcher.returncode == 1 and "\x1b" not in rest and "0/3 stages" in rest


HOOKS = """
import json, os, time
from pathlib import Path
from diffbench import hookimpl

@hookimpl(wrapper=True)
def diffbench_run_stage(stage):
    start = time.process_time()
    files = yield
    return files | {"meter.json": json.dumps({"stage": stage, "pid": os.getpid(), "seconds": time.process_time() - start}).encode()}

@hookimpl
def diffbench_classify_failure(stage, code, reason, log_tail):
    return "a fault of the sky" if "the sky fell" in reason and "RuntimeError" in log_tail else None

@hookimpl
def diffbench_run_finished(folder, counts):
    (folder / "heard.json").write_text(json.dumps(counts))

@hookimpl
def diffbench_stage_finished(stage, reason):
    raise OSError("the network is down")
"""


@pytest.mark.slow
def test_a_real_run_with_hooks_and_a_tracker_is_watched_from_outside(tmp_path, monkeypatch, shared_folder):
    """One training, one sampler that works and one that raises; the plug-in meters stages in their workers and fails as an observer."""
    site = tmp_path / "site"
    distribution(site, "night-pack", "[diffbench]\nhooks = night_watch_hooks\n", {"night_watch_hooks": HOOKS})
    content = MATRIX | {"axes": MATRIX["axes"] | {"conditioning": "film", "scheduler": [{"ddim": {"steps": 2}}, "raising"], "seed": 4711}, "metrics": [],
                        "train": {"steps": STEPS, "batch_size": 8}, "run": {"trackers": ["tensorboard"]}}
    (tmp_path / "matrix.yaml").write_text(json.dumps(content))
    environment = {**os.environ, "PYTHONPATH": str(site), "DIFFBENCH_HOME": str(shared_folder / "store")}
    run = subprocess.Popen([sys.executable, "-m", "diffbench", "run", "matrix.yaml", "--out", "out", "--device", "cpu", "--plugin", PLUGIN], cwd=tmp_path,
                           env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    folder, seen, watched = tmp_path / "out", [], None
    while run.poll() is None:
        if list(folder.glob("events/*.jsonl")):
            watched = watched or watch.Watched(folder)
            watched.look()
            seen.append(as_json(watched.state))
        time.sleep(0.1)
    out, err = run.communicate()
    assert run.returncode == 1 and "1 failed, 1 ok" in out, err
    watched.look()
    end = as_json(watched.state)
    course = list(dict.fromkeys(s["status"] for s in seen))
    assert course in (["running"], ["running", "finished"], ["waiting", "running"], ["waiting", "running", "finished"]) and end["status"] == "finished"
    done = [s["done"] for s in seen]
    assert done == sorted(done) and end["done"] == end["of"] and end["cells"] == {"ok": 1, "failed": 1}
    reports = [r for s in seen for r in s["running"] if r["stage"] == "train" and r["figures"]]
    assert reports and all(r["figures"]["images_per_second"] > 0 and r["figures"]["loss"] > 0 and r["of"] == STEPS for r in reports)
    assert {s["stage"] for s in end["bad"]} == {"sample"}, "what could not be sampled is not measured"
    for bad in end["bad"]:
        assert bad["reason"].startswith(f"{bad['stage']}: a fault of the sky: RuntimeError: the sky fell [/red] (misbehaving.py:") and bad["reason"] in err
    (told,) = [note for note in end["notes"] if not note.startswith("the quality of all rows is in ")]
    assert told == "plug-in night-pack:hooks is told nothing more of this run: its hook diffbench_stage_finished raised OSError: the network is down"
    assert told in err and not (folder / "heard.json").exists()

    keys = {s["name"]: key for key, s in json.loads((folder / "plan.json").read_bytes())["stages"].items()}
    artefact = shared_folder / "store" / "store" / "train" / keys["train"][:2] / keys["train"]
    meter = json.loads((artefact / "meter.json").read_bytes())
    assert meter["stage"] == "train" and meter["pid"] != run.pid and meter["seconds"] > 0 and "meter.json" in json.loads((artefact / "manifest.json").read_bytes())["files"]

    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="the extra diffbench[tensorboard] is not installed")
    (curve,) = (folder / "tensorboard").glob("train-*")
    points = accumulators.EventAccumulator(str(curve)).Reload().Scalars("train/loss")
    assert points[-1].step == STEPS and points[-1].value == pytest.approx(reports[-1]["figures"]["loss"] if reports[-1]["done"] == STEPS else points[-1].value)
    assert points[-1].value == pytest.approx(json.loads((artefact / "facts.json").read_bytes())["losses"][-1], rel=1e-6)
