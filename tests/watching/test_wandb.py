"""The tracker of Weights & Biases: folders of its offline mode, read back by W&B's own messages, and what it says without a login."""

import json
import os
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import diffbench
from diffbench.errors import DiffbenchError
from diffbench.watching import event_log
from tests.helpers import tracked

wandb = pytest.importorskip("wandb", reason="the extra diffbench[wandb] is not installed")

SECRET = "c0de" * 10                  # in the form of a key of W&B
HOST = wandb.Settings().base_url.removeprefix("https://")
BLOCK, HEADER = 32768, 7              # bytes of a file of records, in LevelDB's format, and before each piece of one


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """Nothing is sent, nobody is logged in, and nothing is written beside the test's folder. The event log thins nothing out."""
    monkeypatch.setattr(event_log, "PROGRESS_SECONDS", 0.0)
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name in ("HOME", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    wandb.teardown()
    yield
    wandb.teardown()


def records(path):
    """The records of one run."""
    from wandb.proto import wandb_internal_pb2

    data, place, piece = path.read_bytes(), HEADER, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:                # what is left of a block holds no header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[place:place + HEADER])
        piece += data[place + HEADER:place + HEADER + length]
        place += HEADER + length
        if kind in (1, 4):                                # a whole record, the last piece of one
            yield wandb_internal_pb2.Record.FromString(piece)
            piece = b""


def read(folder):
    """Everything that an offline run holds."""
    (path,) = folder.glob("*.wandb")
    found = {"history": [], "summary": {}, "config": {}, "artifacts": [], "exit": None, "folder": folder}
    for record in records(path):
        if record.HasField("run"):
            found["run"] = record.run
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        for item in record.summary.update:
            found["summary"][item.key or ".".join(item.nested_key)] = json.loads(item.value_json)
        if record.HasField("history"):
            found["history"].append({"step": record.history.step.num} | {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in record.history.item})
        if record.HasField("artifact") or record.request.HasField("log_artifact"):
            artifact = record.artifact if record.HasField("artifact") else record.request.log_artifact.artifact
            found["artifacts"].append((artifact.type, sorted(entry.path for entry in artifact.manifest.contents)))
        if record.HasField("exit"):
            found["exit"] = record.exit.exit_code
    return found


def runs(folder):
    """By (type, name), the last that was written of each run; and how often each was."""
    found, times = {}, {}
    for path in sorted((folder / "wandb").glob("offline-run-*"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        run = read(path)
        key = run["run"].job_type, run["run"].display_name
        found[key], times[key] = run, times.get(key, 0) + 1
    return found, times


def losses(run):
    return [(line["step"], line["train/loss"]) for line in run["history"] if "train/loss" in line]


def test_a_folder_of_offline_mode_holds_each_row_once(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    folder = tmp_path / "run"
    tracked.prepare(folder, tracked.planned()[0])
    plan, (first, second), training = tracked.planned()
    skipped = [cell for cell in plan.cells if cell.skipped is not None]
    names = ["linear, cfg(inner=film, scale=1)", "linear, cfg(inner=film, scale=2)"]

    assert tracked.follow("wandb", folder, (50, 100)) == []
    found, _ = runs(folder)
    assert losses(found["training", training.label]) == [(50, 1.0), (100, 0.5)] and found["training", training.label]["exit"] == 1
    assert tracked.follow("wandb", folder, (150, 200), tracked.diverged) == []
    found, times = runs(folder)
    assert times == {("training", training.label): 2, ("report", "report of followed"): 2, **{("row", name): 1 for name in names},
                     **{("row", name.replace("linear", "rectified_flow")): 1 for name in names}}
    assert len({run["run"].run_id for run in found.values()}) == len(found)
    assert {(run["run"].project, run["run"].run_group) for run in found.values()} == {("diffbench", "followed")}

    run = found["row", names[0]]
    assert {name: run["config"][name] for name in ("matrix", "report", "dataset", "backbone.width", "conditioning", "conditioning.inner", "conditioning.scale", "scheduler.eta", "steps", "train.lr")} == {
        "matrix": "followed", "report": str(folder / "report.html"), "dataset": "digits", "backbone.width": 16, "conditioning": "cfg", "conditioning.inner": "film",
        "conditioning.scale": 1.0, "scheduler.eta": 0.0, "steps": 2, "train.lr": 0.0002}
    commit = json.loads((folder / "environment.json").read_bytes())["git"]["diffbench"]
    assert run["config"]["git_commit"] == (commit and commit["commit"])
    assert list(run["run"].tags) == ["ok", "digits", "dit", "ddim"] and run["exit"] == 0
    assert {name: run["summary"][name] for name in ("cell_id", "status", "reason", "nfe", "fd_dataset_classifier", "train_compiled", "device")} == {
        "cell_id": first.cell_id, "status": "ok", "reason": "", "nfe": 2.0, "fd_dataset_classifier": 2.5, "train_compiled": False, "device": "cpu"}
    assert losses(run) == sorted(tracked.LOSSES.items()), "that of the interrupted run too"
    (picture,) = [line["samples.path"] for line in run["history"] if "samples.path" in line]
    assert (run["folder"] / "files" / picture).read_bytes() == (folder / "samples" / f"{first.cell_id}.png").read_bytes()

    failed = found["row", names[1]]
    assert failed["exit"] == 1 and failed["run"].notes == failed["summary"]["reason"] == "the loss became nan" and failed["run"].tags[0] == "diverged"
    assert losses(failed) == losses(run) and not any("samples.path" in line for line in failed["history"])
    for cell in skipped:
        run = found["row", f"rectified_flow, cfg(inner=film, scale={cell.cell.conditioning.scale:g})"]
        assert run["exit"] == 0 and run["run"].notes == cell.skipped and run["summary"]["status"] == "skipped" and not run["history"]
    report = found["report", "report of followed"]
    assert report["config"]["matrix_file"] == plan.matrix.document and report["config"]["environment"]["python"]
    assert report["artifacts"] == [("report", ["environment.json", "matrix.json", "report.html"])]

    assert tracked.follow("wandb", folder, (), tracked.row) == []
    again, times_again = runs(folder)
    changed = {("row", names[1]), ("report", "report of followed")}
    assert {key for key in times if times_again[key] != times[key]} == changed and times_again.keys() == times.keys(), "the better row, and the report"
    assert again["row", names[1]]["run"].run_id == failed["run"].run_id and again["row", names[1]]["exit"] == 0
    assert [line for line in again["row", names[1]]["history"] if "samples.path" in line], "drawn after its row was told"
    assert tracked.follow("wandb", folder, (), tracked.row) == []
    assert runs(folder)[1] == times_again, "all is as it was"
    holding = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not holding, "the key of W&B stands in no file"


@pytest.mark.parametrize(("variables", "netrc", "is_ready"), [
    ({}, "", False), ({"WANDB_MODE": "online"}, "", False), ({"WANDB_MODE": "offline"}, "", True), ({"WANDB_MODE": "disabled"}, "", True),
    ({"WANDB_API_KEY": SECRET}, "", True), ({}, f"machine {HOST} login user password {SECRET}", True),
    ({"WANDB_BASE_URL": "https://wandb.example"}, f"machine {HOST} login user password {SECRET}", False)])
def test_without_a_login_it_is_said_before_any_work(tmp_path, monkeypatch, variables, netrc, is_ready):
    from diffbench.watching.wandb import tracker

    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "netrc").write_text(netrc)
    (tmp_path / "netrc").chmod(0o600)
    host = variables.get("WANDB_BASE_URL", f"https://{HOST}")
    said = f"nobody is logged in to {host}: run `wandb login`, or set WANDB_MODE=offline"
    assert tracker.why_not() == (None if is_ready else said)
    if variables == {} and not is_ready:
        with pytest.raises(DiffbenchError, match=f"^tracker wandb cannot be used: {said}$"):
            diffbench.run(tracked.MATRIX, out=tmp_path / "out", device="cpu", trackers=["wandb"])
        assert not (tmp_path / "out").exists()


def test_a_server_that_never_answers_costs_the_run_nothing(tmp_path):
    """Neither its rows nor the end of its process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted = []
        threading.Thread(target=lambda: accepted.extend(iter(lambda: server.accept(), None)), daemon=True).start()
        code = ("import json, sys\nfrom pathlib import Path\nfrom diffbench.watching import wandb\nfrom tests.helpers import tracked\n"
                "wandb.SECONDS = 1.0\nfolder = Path(sys.argv[1])\ntracked.prepare(folder, tracked.planned()[0])\n"
                "print(json.dumps(tracked.follow('wandb', folder, (200,), tracked.row)))\n")
        environment = {**os.environ, "WANDB_BASE_URL": f"http://127.0.0.1:{server.getsockname()[1]}", "WANDB_API_KEY": SECRET}
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], cwd=Path(__file__).parents[2], env=environment, capture_output=True,
                              text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (note,) = json.loads(done.stdout)
    assert note.startswith("plug-in tracker wandb is told nothing more of this run: its hook diffbench_row_added raised ") and accepted
    assert SECRET not in done.stdout + done.stderr
    assert not (tmp_path / "run" / "wandb" / "logged.jsonl").exists(), "the same line again logs all rows"
