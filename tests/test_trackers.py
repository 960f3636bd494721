"""Trackers: off unless asked for, wanted ones ready before anything runs, and what TensorBoard's own reader finds in what ours wrote."""

import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy
import pytest
from PIL import Image

from diffbench import tracking
from diffbench.engine import Outcome
from diffbench.errors import DiffbenchError
from diffbench.observers import Observers
from diffbench.registry import Registry
from tests.test_registry import distribution

ROOT = Path(__file__).resolve().parents[1]


def stage(key, label="unet/../x, linear, seed 0"):
    return SimpleNamespace(name="train", key=key * 64, label=label, parents={})


ROW = {"cell_id": "0123456789ab", "status": "ok", "reason": "", "dataset": "digits", "backbone": "unet", "scheduler": "ddim", "steps": 20, "scheduler.eta": 0.5, "guidance_scale": None,
       "seed": 0, "nfe": 20.0, "fd_dataset_classifier": 2.5, "class_accuracy": 0.75, "energy_joules": None, "sample_count": 12, "torch": "2.6", "started_at": "now"}


def tell(watcher, folder):
    """A run of two stages and one cell."""
    watcher.run_started(SimpleNamespace(matrix=SimpleNamespace(name="small")))
    for i, s in enumerate((stage("a"), stage("b"))):
        watcher.started(s)
        for step in (50, 100, 150):
            watcher.progress(s, step, 150, {"loss": 1 / (step + i), "images_per_second": 1000.0 + step})
        watcher.finished(s, Outcome(status="ok" if i == 0 else "failed"))
    (folder / "samples").mkdir()
    Image.fromarray(numpy.arange(64, dtype=numpy.uint8).reshape(8, 8)).save(folder / "samples" / "0123456789ab.png")
    watcher.row_added(ROW)
    watcher.run_finished({"ok": 1})


def test_tensorboard_reads_back_what_was_written(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="the extra diffbench[tensorboard] is not installed")
    registry, said = Registry(), []
    with tracking.loaded(registry, ["tensorboard"]), Observers(registry, tmp_path, said.append) as watcher:
        tell(watcher, tmp_path)
    assert not said and not registry.problems

    def read(folder):
        return accumulators.EventAccumulator(str(folder), size_guidance={accumulators.IMAGES: 0}).Reload()
    folder = tmp_path / "tensorboard"
    curves = sorted(path.name for path in folder.iterdir() if path.name.startswith("train"))
    assert curves == ["train-unet-..-x-linear-seed-0-aaaaaaaa", "train-unet-..-x-linear-seed-0-bbbbbbbb"], "a folder each, whatever a label holds"
    for i, name in enumerate(curves):
        found = read(folder / name)
        assert [(e.step, e.value) for e in found.Scalars("train/loss")] == [(s, pytest.approx(1 / (s + i), rel=1e-6)) for s in (50, 100, 150)]
        assert [(e.step, e.value) for e in found.Scalars("train/images_per_second")] == [(s, 1000.0 + s) for s in (50, 100, 150)]
    cell = read(folder / "cells" / ROW["cell_id"])
    assert {tag: cell.Scalars(tag)[0].value for tag in cell.Tags()["scalars"]} == {"nfe": 20.0, "fd_dataset_classifier": 2.5, "class_accuracy": 0.75}
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    start = HParamsPluginData.FromString(cell.summary_metadata["_hparams_/session_start_info"].plugin_data.content).session_start_info.hparams
    assert {name: value.string_value or value.number_value for name, value in start.items()} == {
        "dataset": "digits", "backbone": "unet", "scheduler": "ddim", "steps": 20, "scheduler.eta": 0.5, "seed": 0}
    image = read(folder / "samples").Images(ROW["cell_id"])[0]
    assert (image.width, image.height) == (8, 8)


def test_it_is_off_unless_asked_for_and_again_afterwards(tmp_path):
    registry = Registry()
    before = registry.plugins()
    with tracking.loaded(registry, []), Observers(registry, tmp_path) as watcher:
        assert not watcher.mailboxes
    pytest.importorskip("tensorboard")
    with tracking.loaded(registry, ["tensorboard", "tensorboard"]):
        assert {registry.hooks.get_name(p) for p in registry.plugins()} - {registry.hooks.get_name(p) for p in before} == {"tracker tensorboard"}
    assert registry.plugins() == before


def test_an_unknown_one_is_a_sentence():
    with pytest.raises(DiffbenchError, match=r"no tracker named 'tensorbord'\. Did you mean 'tensorboard'\? Known: tensorboard"), tracking.loaded(Registry(), ["tensorbord"]):
        pass


def test_a_missing_package_is_a_sentence_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "diffbench.trackers.tensorboard", raising=False)
    with pytest.raises(DiffbenchError, match=r"tracker tensorboard needs pip install 'diffbench\[tensorboard\]': importing diffbench.trackers.tensorboard failed"), \
            tracking.loaded(Registry(), ["tensorboard"]):
        pass


@pytest.mark.parametrize(("module", "said"), [
    ("import a_module_nobody_has", r"tracker mine needs pip install 'my-pack': importing mine_mod failed with No module named 'a_module_nobody_has'"),
    ("1 / 0", "tracker mine of my-pack cannot be used: importing mine_mod failed with ZeroDivisionError"),
    ("import diffbench\n@diffbench.hookimpl\ndef diffbench_row_add(row): pass", "tracker mine cannot be used: unknown hook 'diffbench_row_add'"),
    ("import diffbench\n@diffbench.hookimpl\ndef diffbench_row_added(rows): pass", "tracker mine cannot be used: (?s:.*)rows")])
def test_a_broken_one_is_named_before_anything_runs(tmp_path, monkeypatch, module, said):
    distribution(tmp_path, "my-pack", "[diffbench.tracker]\nmine = mine_mod\n", {"mine_mod": module})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_mod", raising=False)
    registry = Registry()
    before = registry.plugins()
    with pytest.raises(DiffbenchError, match=said), tracking.loaded(registry, ["mine"]):
        pass
    assert registry.plugins() == before


def test_two_packages_with_one_name_are_an_error(tmp_path, monkeypatch):
    for name in ("alpha-pack", "beta-pack"):
        distribution(tmp_path, name, "[diffbench.tracker]\nmine = mine_mod\n", {})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DiffbenchError, match="2 packages offer a tracker named 'mine': alpha-pack, beta-pack"), tracking.loaded(Registry(), ["mine"]):
        pass


class Client:
    """Stands in for MLflow's client: the calls a tracker makes, by what they would have stored."""

    experiments, made = {}, {}

    def get_experiment_by_name(self, name):
        return SimpleNamespace(experiment_id=self.experiments[name]) if name in self.experiments else None

    def create_experiment(self, name):
        return self.experiments.setdefault(name, str(len(self.experiments)))

    def create_run(self, experiment_id, start_time=None, tags=None, run_name=None):
        assert experiment_id in self.experiments.values()
        run_id = f"run{len(self.made)}"
        self.made[run_id] = {"name": run_name, "metrics": [], "params": {}, "status": "RUNNING"}
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id))

    def log_metric(self, run_id, key, value, timestamp=None, step=None):
        self.made[run_id]["metrics"].append((key, value, step))

    def log_param(self, run_id, key, value):
        self.made[run_id]["params"][key] = value

    def set_terminated(self, run_id, status=None, end_time=None):
        self.made[run_id]["status"] = status


def test_the_tracker_that_the_documentation_shows_is_whole_and_short(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "trackers.md").read_text()
    (toml,), (code,) = (re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("toml", "python"))
    assert len(code.splitlines()) <= 40
    points = toml[toml.index("[project.entry-points"):].replace('[project.entry-points."diffbench.tracker"]', "[diffbench.tracker]").replace('"', "")
    distribution(tmp_path, "diffbench-mlflow", points, {"diffbench_mlflow": code})
    monkeypatch.syspath_prepend(tmp_path)
    library = ModuleType("mlflow.tracking")
    library.MlflowClient = Client
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", library)
    registry, said = Registry(), []
    with tracking.loaded(registry, ["mlflow"]), Observers(registry, tmp_path, said.append) as watcher:
        tell(watcher, tmp_path)
    assert not said and Client.experiments == {"diffbench small": "0"}
    a, b, cell = Client.made.values()
    assert a["name"] == "train unet/../x, linear, seed 0" and (a["status"], b["status"], cell["status"]) == ("FINISHED", "FAILED", "FINISHED")
    assert a["metrics"] == [m for s in (50, 100, 150) for m in (("loss", 1 / s, s), ("images_per_second", 1000.0 + s, s))]
    assert cell["name"] == ROW["cell_id"] and ("class_accuracy", 0.75, None) in cell["metrics"] and cell["params"]["steps"] == 20 and "energy_joules" not in cell["params"]
