"""What bounds a run and what it shares: time limits, memory, other runs, artefacts that go bad in the middle."""

import dataclasses
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import diffbench
from diffbench.matrix.settings import Run
from diffbench.running.attempt import Failure
from diffbench.running.engine import LOSSES, Engine
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from tests.running.test_engine import MATRIX, PLUGIN, matrix, run

pytestmark = pytest.mark.slow
LIGHT = matrix(metrics=[], throughput={"repeats": 3, "batch_size": 2})          # nothing is fitted, nothing is measured


class Notes:
    """A watcher that keeps what is said."""

    def __init__(self):
        self.said = []

    def started(self, stage):
        """Of no interest."""

    def progress(self, stage, done, of, figures):
        """Of no interest."""

    def finished(self, stage, outcome):
        """Of no interest."""

    def note(self, text):
        self.said.append(text)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    return Store.default()


def of(scheduler, **changes):
    axes = {**MATRIX["axes"], "conditioning": "none", "scheduler": scheduler}
    return {**LIGHT, "axes": axes, **changes}


@pytest.mark.parametrize(("limits", "said"), [({"timeout": {"sample": "2s"}}, "not done within 2 s (run.timeout), stopped"),
                                              ({"stall": "6s"}, "no progress for 6 s (run.stall), stopped")])
def test_a_stage_that_hangs_is_stopped_and_the_rest_goes_on(tmp_path, home, limits, said):
    run(tmp_path, of({"ddim": {"steps": 2}}))             # without limits, which no sound stage then has to keep on a busy machine
    done = run(tmp_path, of([{"ddim": {"steps": 2}}, "hanging"], run=limits), plugins=[PLUGIN])
    rows = diffbench.load(tmp_path / "out").set_index("scheduler")
    assert done.counts == {"ok": 1, "failed": 1}
    assert said in rows.loc["hanging", "reason"]


def test_a_stage_that_kills_the_process_all_are_forked_from_costs_its_own_row(tmp_path, home):
    """It is found by trying each stage that ended with that process apart from the others."""
    notes = Notes()
    done = run(tmp_path, of(["felling", {"ddim": {"steps": 2}}, {"ddim": {"steps": 300}}]), plugins=[PLUGIN], watchers=[notes], jobs=3)
    rows = diffbench.load(tmp_path / "out").set_index("scheduler")
    assert done.counts == {"ok": 2, "failed": 1} and rows.loc["felling", "status"] == "failed"
    assert "the process that workers are forked from has ended, and this one with it" in rows.loc["felling", "reason"]
    assert sum("tried again apart from others" in said and "felling" in said for said in notes.said) == LOSSES


def test_out_of_memory_halves_the_batch_and_the_row_says_so(tmp_path, home):
    notes = Notes()
    done = run(tmp_path, of("greedy", sample={"count": 5, "batch_size": 5}), plugins=[PLUGIN], watchers=[notes])
    assert done.counts == {"ok": 1}
    assert any("out of memory with batches of 5, tried again with 2" in note for note in notes.said)
    row = diffbench.load(tmp_path / "out").iloc[0]
    assert row["sample_batch_size"] == 2 and "out of memory" in row["reason"]
    again = run(tmp_path, of("greedy", sample={"count": 5, "batch_size": 5}), plugins=[PLUGIN])
    assert again.stages_run == 0 and "out of memory" in diffbench.load(tmp_path / "out")["reason"][0], "known from the artefact, not from the run"


def test_two_runs_at_once_do_each_stage_once(tmp_path, home):
    """In two processes, as two people would: same store, two folders."""
    content = of([{"ddim": {"steps": 2}}, {"ddpm": {"steps": 2}}], train={"steps": 200, "batch_size": 8})
    (tmp_path / "matrix.yaml").write_text(json.dumps(content))
    both = [subprocess.Popen([sys.executable, "-m", "diffbench", "run", "matrix.yaml", "--out", name, "--device", "cpu"], cwd=tmp_path,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for name in ("one", "two")]
    said = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    attempts = [json.loads((folder / "task.json").read_bytes())["stage"] for folder in (home.root / "attempts").glob("*/*")]
    assert attempts.count("train") == 1 and attempts.count("sample") == 2 and len(attempts) == len(set((home.root / "attempts").iterdir()))
    columns = ["cell_id", "status", "train_loss", "nfe", "sample_images_per_second"]
    assert diffbench.load(tmp_path / "one")[columns].equals(diffbench.load(tmp_path / "two")[columns])
    assert not list((home.root / "claims").iterdir())


def test_two_runs_into_one_folder_are_one_too_many(tmp_path, home):
    """The second is told who has it, or waits."""
    other = Claims()
    (tmp_path / "out").mkdir()
    assert other.take(tmp_path / "out" / ".run") is None
    content = of({"ddim": {"steps": 2}})
    with pytest.raises(diffbench.DiffbenchError, match=f"process {os.getpid()} on .* writes to this folder"):
        run(tmp_path, content)
    threading.Timer(3.0, other.close).start()
    done = diffbench.api.running.execute(diffbench.plan(content, device="cpu"), out=tmp_path / "out", wait=True)
    assert done.counts == {"ok": 1} and not (tmp_path / "out" / ".run").exists()


def test_an_artefact_that_goes_bad_while_it_is_needed_is_built_again(tmp_path, home):
    """Found by the worker that reads it, after the engine had found it whole."""
    content = of([{"ddim": {"steps": 2}}])
    run(tmp_path, content)
    plan = diffbench.plan(content, device="cpu")
    weights = home.path("train", plan.cells[0].stages["train"]) / "weights.safetensors"

    class Spoiler(Notes):
        def started(self, stage):
            if stage.name == "sample" and not self.said:
                data = bytearray(weights.read_bytes())
                data[-1] ^= 1
                weights.write_bytes(data)
    notes = Spoiler()
    more = of([{"ddim": {"steps": 3}}])
    done = run(tmp_path, more, watchers=[notes])
    assert done.counts == {"ok": 1}
    assert any("is damaged and set aside" in note for note in notes.said), notes.said
    assert len(list((home.root / "damaged").iterdir())) == 1


def test_a_loss_with_the_others_is_not_counted_and_the_next_try_is_apart(tmp_path, home):
    plan = diffbench.plan(of({"ddim": {"steps": 2}}), device="cpu")
    engine = Engine(plan, home, lambda: None, [notes := Notes()])
    home.prepare()
    stage = next(s for s in engine.stages.values() if s.name == "train")
    jobs = []

    class Launcher:
        submit = jobs.append
    for apart in (False, *[True] * LOSSES):
        engine._start(stage, Launcher)
        assert jobs[-1].is_apart is apart
        goes_on = engine._goes_on(stage, Failure(status="failed", kind="lost", reason="lost"))
        assert goes_on is (len(jobs) <= LOSSES) and engine.failures[stage.key] == len(jobs) // (LOSSES + 1)
    assert len(notes.said) == LOSSES and all(said.endswith("lost; tried again apart from others") for said in notes.said)
    engine.claims.close()


def test_a_stage_that_waits_for_its_device_says_for_whom_once(tmp_path, home):
    plan = diffbench.plan(of({"ddim": {"steps": 2}}), device="cpu")
    engine = Engine(plan, home, lambda: None, [notes := Notes()])
    home.prepare()
    stage = next(s for s in engine.stages.values() if s.name == "train")

    class Launcher:
        jobs = []
        submit = jobs.append
    engine._start(stage, Launcher)
    (Launcher.jobs[0].attempt / "waiting.json").write_text(json.dumps({"for": "throughput of OTHER, pid 42"}))
    for _ in range(3):
        engine.running[stage.key].looked_at = 0.0
        engine._look_at_running(Launcher)
    assert notes.said == [f"train {stage.label} waits for the device: throughput of OTHER, pid 42"]
    assert engine.running[stage.key].began_at is None, "waiting is no work"
    engine.claims.close()


def test_limits_are_written_as_people_write_durations():
    assert Run(timeout="10m").limit("train") == 600 and Run(timeout={"train": "1.5h"}).limit("train") == 5400
    assert Run(timeout={"train": 3, "all": "1d"}).limit("sample") == 86400 and Run().limit("sample") is None
    assert dataclasses.replace(Run(timeout={"train": "2m"}), retries=1).limit("train") == 120
    for wrong in ("10 minutes", {"tain": "10m"}, {"train": "-1s"}, True, {"train": 0}):
        with pytest.raises(diffbench.OptionError, match="timeout must be a duration such as 10m, or one for each stage"):
            Run(timeout=wrong)
    with pytest.raises(diffbench.OptionError, match="stall must be a duration such as 90s"):
        Run(stall="0s")


def test_a_mistake_in_a_limit_is_found_at_its_line(tmp_path):
    path = tmp_path / "matrix.yaml"
    path.write_text(json.dumps({**LIGHT, "run": {"timeout": {"train": "soon"}}}, indent=1))
    with pytest.raises(diffbench.MatrixError, match=r"matrix.yaml:\d+:\d+: run.timeout: timeout must be a duration"):
        diffbench.plan(Path(path), device="cpu")


def test_a_run_whose_lock_is_deleted_and_taken_stops(tmp_path, home):
    """Never two writers: who finds its claim gone ends, and says so."""
    import shutil

    other = Claims()

    class Thief(Notes):
        def started(self, stage):
            if stage.name == "sample" and not self.said:
                self.said.append("stolen")
                shutil.rmtree(tmp_path / "out" / ".run")
                assert other.take(tmp_path / "out" / ".run") is None
    with pytest.raises(diffbench.DiffbenchError, match="the claim .run of this run was removed, another run may write there; stopped"):
        run(tmp_path, of("hanging"), plugins=[PLUGIN], watchers=[Thief()])
    assert other.holds(tmp_path / "out" / ".run"), "what is another's stays"
    other.close()
