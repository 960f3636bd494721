"""Weights that are there already: rows without a training, and what they do not fit is a skipped row with the reason."""

import pickle
from dataclasses import replace

import pandas
import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.diffusion.weights import denoiser_tensors, misfit
from diffbench.errors import DataError
from diffbench.store.artefacts import Store
from tests.conftest import REGISTRY

MATRIX = {"diffbench": 1, "name": "trained", "dataset": "digits", "metrics": [], "extractor": "pixels", "throughput": "off",
          "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": ["film"], "noise_schedule": ["cosine"],
                   "scheduler": [{"ddim": {"steps": 3}}]},
          "train": {"steps": 30, "batch_size": 8}, "sample": {"count": 8}}


def given(weights, **axes):
    return {**MATRIX, "name": "given", "axes": {**MATRIX["axes"], "method": [{"pretrained": {"weights": str(weights)}}], **axes}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of a saved model, folder of the run it was trained in, store)."""
    place = tmp_path_factory.mktemp("pretrained")
    store = Store(place / "home")
    diffbench.run(MATRIX, out=place / "run", device="cpu", threads=1, store=store)
    return diffbench.load_model(place / "run", "scheduler=ddim", store=store).save(place / "saved"), place / "run", store


def images(folder, store):
    plan = diffbench.results.folder.RunFolder(folder).plan
    (cell,) = (cell for cell in plan["cells"] if cell["stages"])
    return store.read_tensors("sample", cell["stages"]["sample"], "images.safetensors")["images"]


def test_a_saved_model_is_a_row_without_a_training_and_draws_the_same_images(trained, tmp_path):
    saved, run, store = trained
    matrix = given(saved, scheduler=[{"ddim": {"steps": 3}}]) | {"train": {"steps": 10_000_000}}
    plan = diffbench.plan(matrix, device="cpu")
    assert plan.summary()["train_steps"] == 0 and [s.name for s in plan.stages.values()].count("train") == 1
    assert diffbench.run(matrix, out=tmp_path / "run", device="cpu", threads=1, store=store).counts == {"ok": 1}
    assert torch.equal(images(tmp_path / "run", store), images(run, store))
    row = diffbench.load(tmp_path / "run").iloc[0]
    assert pandas.isna(row["train_steps"]), "nobody knows how many steps there were"
    again = diffbench.load_model(tmp_path / "run", "scheduler=ddim", store=store)
    assert torch.equal(again.sample(8).images, images(run, store))


def test_content_decides_and_neither_place_nor_how_others_are_trained(trained, tmp_path):
    saved, _, _ = trained
    (tmp_path / "copy.safetensors").write_bytes((saved / "weights.safetensors").read_bytes())
    (tmp_path / "other.safetensors").write_bytes((saved / "weights.safetensors").read_bytes())
    keys = {diffbench.plan(given(tmp_path / name) | {"train": {"steps": steps}}, device="cpu").cells[0].stages["train"]
            for name in ("copy.safetensors", "other.safetensors") for steps in (1, 2)}
    assert len(keys) == 1
    changed = {name: tensor + 1 for name, tensor in safetensors.torch.load_file(tmp_path / "other.safetensors").items()}
    safetensors.torch.save_file(changed, tmp_path / "other.safetensors")
    assert diffbench.plan(given(tmp_path / "other.safetensors"), device="cpu").cells[0].stages["train"] not in keys


def test_the_backbones_tensors_alone_do_where_there_is_nothing_else(trained, tmp_path):
    cell = diffbench.plan(given("unused", conditioning=["none"], method=["scratch"]), device="cpu").cells[0].cell
    network = {name.removeprefix("network."): torch.randn(tensor.shape) for name, tensor in denoiser_tensors(cell).items()}
    safetensors.torch.save_file(network, tmp_path / "network.safetensors")
    plan = diffbench.plan(given(tmp_path / "network.safetensors", conditioning=["none", "film"]), device="cpu")
    bare, with_condition = plan.cells
    assert bare.skipped is None
    assert "are of another architecture than this dit with film; tensors " in with_condition.skipped and "missing: condition." in with_condition.skipped


@pytest.mark.parametrize(("axes", "reason"), [
    ({"noise_schedule": ["linear"]}, "were trained with the noise_schedule cosine, and this cell has linear"),
    ({"noise_schedule": [{"cosine": {"s": 0.01}}]}, "were trained with the noise_schedule cosine(s=0.008), and this cell has cosine(s=0.01)"),
    ({"parameterization": ["v"]}, "were trained with the parameterization epsilon, and this cell has v"),
    ({"backbone": [{"dit": {"patch": 4, "width": 32, "depth": 2, "heads": 2}}]}, "are of another architecture than this dit with film; tensors "),
    ({"seed": [1]}, "pretrained weights are one training whatever the seed"),
])
def test_what_they_do_not_fit_is_a_skipped_row(trained, axes, reason):
    (planned,) = diffbench.plan(given(trained[0], **axes), device="cpu").cells
    assert reason in planned.skipped, planned.skipped


def test_a_file_that_is_not_there_or_a_pickle_is_a_mistake_of_the_matrix(tmp_path):
    with pytest.raises(DataError, match="nowhere.safetensors is not there; name a safetensors file or a folder with weights"):
        diffbench.plan(given(tmp_path / "nowhere.safetensors"), device="cpu")
    (tmp_path / "weights.pt").write_bytes(pickle.dumps({}))
    with pytest.raises(DataError, match=r"a pickle can run any code .*safetensors.torch.save_file"):
        diffbench.plan(given(tmp_path / "weights.pt"), device="cpu")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no model.json, and dit reads no folder"):
        diffbench.plan(given(tmp_path / "empty"), device="cpu")
    (tmp_path / "empty" / "model.json").write_text("{}")
    with pytest.raises(DataError, match="is not what Model.save writes"):
        diffbench.plan(given(tmp_path / "empty"), device="cpu")


def test_misfit_names_the_first_five_of_each_sort():
    own = {f"a{i}": torch.zeros(2) for i in range(7)}
    assert misfit(own, own) == ""
    assert misfit(own, {}) == "7 missing: a0, a1, a2, a3, a4 ..."
    assert misfit(own, {**own, "b": torch.zeros(1), "a0": torch.zeros(3)}) == "1 unexpected: b; 1 of another shape: a0 [3] in place of [2]"


def test_cells_are_the_same_cells_wherever_the_weights_lie():
    one, other = (REGISTRY.create("method", "pretrained", weights=path) for path in ("a", "b"))
    assert one != other and replace(one, weights="b") == other
