"""Trackers: off unless asked for, wanted ones ready before anything runs, and what TensorBoard's own reader finds in what ours wrote."""

import http.server
import json
import re
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from PIL import Image

from diffbench.errors import DiffbenchError
from diffbench.registry import trackers
from diffbench.registry.registry import Registry
from diffbench.running.outcome import Outcome
from diffbench.watching.observers import Observers, refuse_unready
from tests.registry.test_registry import distribution

ROOT = Path(__file__).resolve().parents[2]


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
    with trackers.loaded(registry, ["tensorboard"]), Observers(registry, tmp_path, said.append) as watcher:
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
    with trackers.loaded(registry, []), Observers(registry, tmp_path) as watcher:
        assert not watcher.mailboxes
    pytest.importorskip("tensorboard", reason="the extra diffbench[tensorboard] is not installed")
    with trackers.loaded(registry, ["tensorboard", "tensorboard"]):
        assert {registry.hooks.get_name(p) for p in registry.plugins()} - {registry.hooks.get_name(p) for p in before} == {"tracker tensorboard"}
    assert registry.plugins() == before


def test_an_unknown_one_is_a_sentence():
    with pytest.raises(DiffbenchError, match=r"no tracker named 'tensorbord'\. Did you mean 'tensorboard'\? Known: mlflow, tensorboard, wandb"), trackers.loaded(Registry(), ["tensorbord"]):
        pass


def test_a_missing_package_is_a_sentence_that_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "diffbench.watching.tensorboard", raising=False)
    with pytest.raises(DiffbenchError, match=r"tracker tensorboard needs pip install 'diffbench\[tensorboard\]': importing diffbench.watching.tensorboard failed"), \
            trackers.loaded(Registry(), ["tensorboard"]):
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
    with pytest.raises(DiffbenchError, match=said), trackers.loaded(registry, ["mine"]):
        pass
    assert registry.plugins() == before


def test_two_packages_with_one_name_are_an_error(tmp_path, monkeypatch):
    for name in ("alpha-pack", "beta-pack"):
        distribution(tmp_path, name, "[diffbench.tracker]\nmine = mine_mod\n", {})
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DiffbenchError, match="2 packages offer a tracker named 'mine': alpha-pack, beta-pack"), trackers.loaded(Registry(), ["mine"]):
        pass


def test_the_tracker_that_the_documentation_shows_is_whole_and_short(tmp_path, monkeypatch):
    text, bodies = (ROOT / "docs" / "trackers.md").read_text(), []
    (toml,), (code,) = (re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL) for language in ("toml", "python"))
    assert len(code.splitlines()) <= 40
    points = toml[toml.index("[project.entry-points"):].replace('[project.entry-points."diffbench.tracker"]', "[diffbench.tracker]").replace('"', "")
    distribution(tmp_path / "site", "diffbench-webhook", points, {"diffbench_webhook": code})
    monkeypatch.syspath_prepend(tmp_path / "site")

    class Webhook(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *words):
            """Nothing is printed."""
    monkeypatch.delenv("ROWS_URL", raising=False)
    registry, said = Registry(), []
    with trackers.loaded(registry, ["webhook"]), http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        with pytest.raises(DiffbenchError, match="tracker webhook cannot be used: ROWS_URL is not set: give it the address of the webhook"):
            refuse_unready(registry)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("ROWS_URL", f"http://127.0.0.1:{server.server_port}/rows")
        refuse_unready(registry)
        (tmp_path / "small").mkdir()
        with Observers(registry, tmp_path / "small", said.append) as watcher:
            tell(watcher, tmp_path / "small")
        server.shutdown()
    assert not said and bodies == [{"text": "small: ddim with 20 steps is ok"}]
