"""The tracker of MLflow, read back by MLflow: rows that are comparable, once each, whatever is interrupted or done again."""

import json

import pytest

from diffbench.errors import DiffbenchError
from diffbench.registry import trackers
from diffbench.registry.registry import Registry
from diffbench.watching import event_log
from diffbench.watching.observers import refuse_unready
from tests.helpers import tracked

tracking = pytest.importorskip("mlflow.tracking", reason="the extra diffbench[mlflow] is not installed")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Nothing is sent, and no store is named. The event log, from which curves of earlier runs are, thins nothing out."""
    monkeypatch.setattr(event_log, "PROGRESS_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)


def runs(client, name="followed"):
    """The runs of an experiment, (type, name) -> run."""
    found = client.search_runs([client.get_experiment_by_name(name).experiment_id])
    by_name = {(run.data.tags["diffbench.type"], run.info.run_name): run for run in found}
    assert len(by_name) == len(found), "none is there twice"
    return by_name


def files(client, run):
    return sorted(file.path for folder in client.list_artifacts(run.info.run_id)
                  for file in (client.list_artifacts(run.info.run_id, folder.path) if folder.is_dir else [folder]))


def test_mlflow_reads_back_what_was_written(tmp_path):
    folder = tmp_path / "run"
    assert tracked.follow_all("mlflow", folder) == []
    client = tracking.MlflowClient((folder / "mlflow").as_uri())
    plan, (first, second), training = tracked.planned()
    skipped = [cell for cell in plan.cells if cell.skipped is not None]
    found = runs(client)
    names = ["linear, cfg(inner=film, scale=1)", "linear, cfg(inner=film, scale=2)"]
    assert found.keys() == {*(("row", name) for name in names), ("training", training.label), ("report", "report"),
                            *(("row", name.replace("linear", "rectified_flow")) for name in names)}

    run = found["row", names[0]]
    assert run.info.status == "FINISHED" and files(client, run) == [f"samples/{first.cell_id}.png"]
    assert {name: run.data.params[name] for name in ("dataset", "backbone", "backbone.width", "noise_schedule", "conditioning", "conditioning.inner",
                                                     "conditioning.scale", "scheduler", "scheduler.eta", "steps", "seed", "train.lr", "sample.count")} == {
        "dataset": "digits", "backbone": "dit", "backbone.width": "16", "noise_schedule": "linear", "conditioning": "cfg", "conditioning.inner": "film",
        "conditioning.scale": "1.0", "scheduler": "ddim", "scheduler.eta": "0.0", "steps": "2", "seed": "0", "train.lr": "0.0002", "sample.count": "12"}
    assert {name: value for name, value in run.data.metrics.items() if not name.startswith("train/")} == {
        "nfe": 2.0, "fd_dataset_classifier": 2.5, "train_compiled": 0.0}
    tags = run.data.tags
    assert (tags["status"], tags["cell_id"], tags["device"], tags["report"]) == ("ok", first.cell_id, "cpu", str(folder / "report.html"))
    commit = json.loads((folder / "environment.json").read_bytes())["git"]["diffbench"]
    assert tags.get("mlflow.source.git.commit") == (commit and commit["commit"]) and "reason" not in tags
    for each in (run, found["training", training.label]):
        points = client.get_metric_history(each.info.run_id, "train/loss")
        assert sorted((point.step, point.value) for point in points) == sorted(tracked.LOSSES.items()), "that of the interrupted run too, each point once"

    assert found["training", training.label].info.status == "FINISHED"
    assert found["training", training.label].data.params["noise_schedule"] == "linear"
    assert "conditioning.scale" not in found["training", training.label].data.params, "cells of this training differ in it"
    for cell in skipped:
        run = found["row", f"rectified_flow, cfg(inner=film, scale={cell.cell.conditioning.scale:g})"]
        assert run.info.status == "FINISHED" and run.data.tags["status"] == "skipped" and run.data.tags["mlflow.note.content"] == cell.skipped
        assert not run.data.metrics and run.data.params["noise_schedule"] == "rectified_flow"
    assert files(client, found["row", names[1]]) == [f"samples/{second.cell_id}.png"], "drawn after its row was told"
    assert files(client, found["report", "report"]) == ["environment.json", "matrix.json", "report.html"]


def test_a_failure_is_one_until_its_row_is_better_and_what_has_not_changed_is_left_alone(tmp_path):
    folder, name = tmp_path / "run", "linear, cfg(inner=film, scale=2)"
    tracked.prepare(folder, tracked.planned()[0])
    client = tracking.MlflowClient((folder / "mlflow").as_uri())
    assert tracked.follow("mlflow", folder, (50, 100)) == []
    (training,) = [run for (kind, _), run in runs(client).items() if kind == "training"]
    assert training.info.status == "KILLED"
    assert tracked.follow("mlflow", folder, (150, 200), tracked.diverged) == []
    failed = runs(client)
    assert failed["row", name].info.status == "FAILED" and not files(client, failed["row", name])
    assert (failed["row", name].data.tags["status"], failed["row", name].data.tags["reason"]) == ("diverged", "the loss became nan")
    assert tracked.follow("mlflow", folder, (), tracked.row) == []
    mended = runs(client)
    ids = {key: run.info.run_id for key, run in mended.items()}
    assert mended["row", name].info.status == "FINISHED" and "reason" not in mended["row", name].data.tags
    assert {key for key in ids if ids[key] != failed[key].info.run_id} == {("row", name), ("report", "report")}
    moved = folder.rename(tmp_path / "moved")
    client = tracking.MlflowClient(f"{(moved / 'mlflow').as_uri()}")
    assert tracked.follow("mlflow", moved, (), tracked.row) == []
    assert {key: run.info.run_id for key, run in runs(client).items()} == ids, "also where the folder lies elsewhere"


def test_the_store_and_the_experiment_that_mlflow_is_told_of_are_used_and_hold_several_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    for i, name in enumerate(("a", "b")):
        tracked.prepare(tmp_path / name, tracked.planned()[0])
        (tmp_path / name / "run.json").write_text(f'{{"diffbench": "run", "id": "{i:032x}"}}')
        assert tracked.follow("mlflow", tmp_path / name, (200,), tracked.row) == []
        assert not (tmp_path / name / "mlflow").exists()
    client = tracking.MlflowClient((tmp_path / "store").as_uri())
    found = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    assert len(found) == 2 * 6 and len({run.data.tags["diffbench.identity"] for run in found}) == 2 * 6


def test_a_store_that_cannot_be_opened_is_a_sentence_before_any_work(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nosuch://store")
    registry = Registry()
    with trackers.loaded(registry, ["mlflow"]), pytest.raises(DiffbenchError, match="tracker mlflow cannot be used: MLflow cannot open its tracking store: .*nosuch"):
        refuse_unready(registry)
