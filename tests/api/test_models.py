"""Models of finished runs: drawn from, looked into, saved and read again."""

import json
import pickle
import shutil
from dataclasses import dataclass, replace

import pytest
import safetensors.torch
import torch
from diffbench_components.schedulers.ddim import Ddim

import diffbench
from diffbench.api.saved_model import SavedData
from diffbench.store.artefacts import Store

MATRIX = {
    "diffbench": 1, "name": "models", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}],
             "conditioning": [{"cfg": {"inner": "film", "scale": 1.5}}, {"classifier_guidance": {"inner": "film"}}],
             "scheduler": [{"ddim": {"steps": 3}}, {"ddpm": {"steps": 3}}]},
    "train": {"steps": 30, "batch_size": 8, "lr": 0.01, "warmup": 1}, "sample": {"count": 23, "batch_size": 9}, "throughput": "off",
    "metrics": ["fid"], "run": {},
}
CFG, GUIDED = "conditioning=cfg,scheduler=ddim", "conditioning=classifier_guidance,scheduler=ddpm"
BY_IMAGE = {**MATRIX, "name": "by-image", "dataset": {"super_resolution": {"inner": "digits", "factor": 2}},
            "axes": {**MATRIX["axes"], "conditioning": ["concat"], "scheduler": [{"ddim": {"steps": 3}}]}}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(folder of a run, its store)."""
    place = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_CLASSIFIER_STEPS", "2")
        diffbench.run(MATRIX, out=place / "run", device="cpu", threads=1, store=Store(place / "home"))
        diffbench.run(BY_IMAGE, out=place / "by_image", device="cpu", threads=1, store=Store(place / "home"))
    return place / "run", Store(place / "home")


def stored(run, row):
    folder, store = run
    frame = diffbench.load(folder)
    kind, scheduler = (part.partition("=")[2] for part in row.split(","))
    cell_id = frame[frame["conditioning"].str.startswith(kind) & (frame["scheduler"] == scheduler)]["cell_id"].iloc[0]
    plan = json.loads((folder / "plan.json").read_text())
    stages = next(cell["stages"] for cell in plan["cells"] if cell["cell_id"] == cell_id)
    return store.read_tensors("sample", stages["sample"], "images.safetensors"), frame.set_index("cell_id").loc[cell_id]


def load(run, row=CFG, **options):
    return diffbench.load_model(run[0], row, store=run[1], **options)


@pytest.mark.parametrize("row", [CFG, GUIDED])
def test_the_images_of_the_row_are_drawn_again_to_the_bit_and_after_saving_too(run, tmp_path, row, monkeypatch):
    wanted, record = stored(run, row)
    model = load(run, row)
    samples = model.sample()
    assert torch.equal(samples.images, wanted["images"]) and torch.equal(samples.labels, wanted["labels"])
    assert samples.nfe == record["nfe"]
    assert torch.equal(model.sample(18).images, wanted["images"][:18]), "whole batches of fewer images are the same"
    folder = model.save(tmp_path / "saved")
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    monkeypatch.setattr("diffbench_components.datasets.digits.Digits.load", lambda self: pytest.fail("the data were read"))
    again = diffbench.load_model(folder)
    assert torch.equal(again.sample().images, wanted["images"])
    twice = diffbench.load_model(again.save(tmp_path / "twice"))
    assert torch.equal(twice.sample().images, wanted["images"])


@dataclass(frozen=True, kw_only=True)
class Corrected(Ddim):
    """A scheduler that needs what no row of the run has."""

    def given(self, stage, read):
        read("corrector", "weights.safetensors")
        return self


def test_a_scheduler_that_needs_what_the_row_has_not(run, tmp_path):
    model = load(run)
    with pytest.raises(diffbench.OptionError, match=r"a component needs corrector, and row \w+ of .* was drawn without: run a matrix that has the component"):
        model.sample(2, scheduler=Corrected())
    with pytest.raises(diffbench.DiffbenchError, match=r"needs/corrector/weights\.safetensors is not there: copy the whole folder"):
        diffbench.load_model(model.save(tmp_path / "saved")).sample(2, scheduler=Corrected())


def test_a_model_that_draws_under_images(run, tmp_path):
    folder, store = run[0].parent / "by_image", run[1]
    model = diffbench.load_model(folder, "scheduler=ddim", store=store)
    plan = json.loads((folder / "plan.json").read_text())
    wanted = store.read_tensors("sample", plan["cells"][0]["stages"]["sample"], "images.safetensors")["images"]
    assert torch.equal(model.sample().images, wanted)
    again = diffbench.load_model(model.save(tmp_path / "saved"))
    with pytest.raises(diffbench.DataError, match="a saved model has no images of super_resolution.*give the conditions"):
        again.sample(2)
    conditions = model.cell.dataset.load()["reference"].conditions[:23]
    assert torch.equal(again.sample(conditions=conditions).images, wanted)
    with pytest.raises(diffbench.OptionError, match=r"conditions must be uint8 \[N, 1, 4, 4\], got torch.float32 \[2, 1, 4, 4\]"):
        again.sample(conditions=torch.zeros(2, 1, 4, 4))
    with pytest.raises(diffbench.OptionError, match="draws its images under images: give conditions"):
        model.sample(labels=[1])
    with pytest.raises(diffbench.OptionError, match="digits has no images as conditions: give labels"):
        load(run).sample(conditions=conditions)


def test_another_sampling_half_is_that_of_a_matrix(run):
    """The stored images of another row of the same training come from this one's model by its scheduler and scale."""
    model = load(run, "conditioning=cfg,scheduler=ddim")
    wanted, _ = stored(run, "conditioning=cfg,scheduler=ddpm")
    for scheduler in ("ddpm", {"ddpm": {"steps": 3}}, diffbench.load_registry().create("scheduler", "ddpm", steps=3)):
        assert torch.equal(model.sample(scheduler=scheduler, steps=3).images, wanted["images"])
    unguided = model.sample(9, scale=1.0)
    assert unguided.nfe == 3 and not torch.equal(unguided.images, model.sample(9).images)
    assert not torch.equal(model.sample(9, seed=5).images, model.sample(9).images)
    assert torch.equal(model.sample(9, seed=5).images, model.sample(9, seed=5, batch_size=9).images)


def test_labels_are_those_that_are_given(run):
    model = load(run)
    threes = model.sample(9, labels=3)
    assert threes.labels.tolist() == [3] * 9
    assert torch.equal(threes.images, model.sample(labels=[3] * 9).images)
    assert torch.equal(threes.images, model.sample(labels=torch.full((9,), 3)).images)


def test_the_last_state_of_a_trajectory_is_what_sample_draws(run):
    model = load(run)
    states = list(model.trajectory(9))
    assert len(states) == 4 and states[0].shape == (9, 1, 8, 8)
    assert torch.equal(((states[-1].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8), model.sample(9).images)


def test_denoise_is_what_the_scheduler_sees(run):
    """DDIM over the row's times by hand, from `denoise` alone: x_s = alpha_s x_0 + sigma_s eps."""
    model = load(run)
    x, schedule = next(model.trajectory(9)), model.cell.noise_schedule
    times = model.cell.spacing(schedule, 3).tolist()
    labels = model.sample(9).labels
    for t, s in zip(times, times[1:], strict=False):
        predicted, (alpha, sigma) = model.denoise(x, t, labels=labels), schedule.scales(s)
        x = alpha * predicted.x0 + sigma * predicted.eps
    assert torch.allclose(x, list(model.trajectory(9))[-1], atol=1e-5)


def test_the_weights_are_the_moving_average_and_nothing_is_left_changed(run):
    threads, generator = torch.get_num_threads(), torch.get_rng_state()
    model = load(run)
    plan = json.loads((run[0] / "plan.json").read_text())
    cell_id = diffbench.load(run[0]).query("conditioning.str.startswith('cfg') and scheduler == 'ddim'")["cell_id"].iloc[0]
    key = next(cell["stages"]["train"] for cell in plan["cells"] if cell["cell_id"] == cell_id)
    stored_weights = run[1].read_tensors("train", key, "weights.safetensors")
    assert all(torch.equal(stored_weights[f"network.{name}"], value) for name, value in model.network.state_dict().items())
    torch.set_num_threads(1)
    model.sample(2)
    assert torch.equal(torch.get_rng_state(), generator) and torch.get_num_threads() == 1
    assert not model.network.training and not any(p.requires_grad for p in model.network.parameters())
    torch.set_num_threads(threads)


class TestMistakes:
    @pytest.mark.parametrize(("row", "said"), [
        ("nothing", "no cell of .* is 'nothing': write a cell_id of results.csv or its beginning"),
        ("scheduler=euler_sde", r"no cell has scheduler=euler_sde; there are \"ddim\", \"ddpm\""),
        ("scheduler=ddim", "means 2 rows of .*one model is loaded at a time"),
        (None, "holds no saved model .*name the row too"),
    ])
    def test_of_the_row(self, run, row, said):
        with pytest.raises(diffbench.DiffbenchError, match=said):
            diffbench.load_model(run[0], row, store=run[1])

    def test_of_a_store_without_the_weights(self, run, tmp_path):
        with pytest.raises(diffbench.DiffbenchError, match="the weights of row .* are not in the store .*set DIFFBENCH_HOME to the store of the run"):
            diffbench.load_model(run[0], CFG, store=Store(tmp_path))

    @pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "pytorch_model.bin"])
    def test_a_pickle_is_refused_with_what_to_do(self, tmp_path, name):
        (tmp_path / name).write_bytes(pickle.dumps({}))
        with pytest.raises(diffbench.DiffbenchError, match=r"a pickle can run any code .*safetensors.torch.save_file"):
            diffbench.load_model(tmp_path / name)

    def test_weights_of_another_architecture_are_named(self, run, tmp_path):
        folder = load(run).save(tmp_path / "saved")
        weights = safetensors.torch.load_file(folder / "weights.safetensors")
        weights = {f"{name}x" if i % 2 else name: torch.cat([tensor, tensor]) for i, (name, tensor) in enumerate(weights.items())}
        safetensors.torch.save_file(weights, folder / "weights.safetensors")
        with pytest.raises(diffbench.DiffbenchError) as error:
            diffbench.load_model(folder)
        said = str(error.value)
        assert "are of another architecture; tensors " in said and " missing: " in said and " unexpected: " in said
        assert " of another shape: " in said and said.count(" ...") == 3, "the first five of each"

    @pytest.mark.parametrize(("change", "said"), [
        (lambda folder: (folder / "model.json").write_text("{"), "model.json is no saved model: "),
        (lambda folder: (folder / "model.json").write_text("{}"), "model.json has no diffbench_model"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is not there: copy the whole folder"),
        (lambda folder: (folder / "weights.safetensors").write_bytes(b"x" * 50), "weights.safetensors is no file of tensors"),
    ])
    def test_of_a_damaged_folder(self, run, tmp_path, change, said):
        folder = load(run).save(tmp_path / "saved")
        change(folder)
        with pytest.raises(diffbench.DiffbenchError, match=said):
            diffbench.load_model(folder)

    def test_a_folder_with_something_in_it_is_left_alone(self, run, tmp_path):
        (tmp_path / "mine.txt").write_text("mine")
        with pytest.raises(diffbench.DiffbenchError, match="holds something already: name a folder that is empty or not there"):
            load(run).save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_row_beside_a_saved_model(self, run, tmp_path):
        folder = load(run).save(tmp_path / "saved")
        with pytest.raises(diffbench.DiffbenchError, match="holds one saved model, and so no row 'x': leave the row out"):
            diffbench.load_model(folder, "x")

    @pytest.mark.parametrize(("asked", "said"), [
        ({"labels": 10}, "labels must lie in 0 to 9, got 10 to 10"),
        ({"labels": [0.5]}, "labels must be a class number or a list of them"),
        ({"count": 3, "labels": [1, 2]}, "3 images are asked for under 2 labels"),
        ({"count": 0}, "count must be an integer >= 1, got 0"),
        ({"scheduler": "ddmi"}, "no scheduler named 'ddmi'. Did you mean"),
        ({"scheduler": {"ddim": {"eta": 7}}}, "eta must be a number"),
        ({"scheduler": {}}, "a scheduler is one name with its options"),
        ({"steps": 0}, "steps must be an integer >= 1, got 0"),
        ({"scale": -1.0}, "scale must be a number >= 0"),
    ])
    def test_of_what_is_asked(self, run, asked, said):
        with pytest.raises(diffbench.DiffbenchError, match=said):
            load(run).sample(**{"count": 2} | asked)

    def test_of_the_device(self, run):
        with pytest.raises(diffbench.OptionError, match="a device is auto, cpu, cuda or cuda:N, got 'tpu'"):
            load(run, device="tpu")

    def test_labels_of_data_without_classes(self, run):
        model = load(run)
        model.cell = replace(model.cell, dataset=SavedData(name="grey", image_shape=(1, 8, 8), shape=(1, 8, 8)))
        with pytest.raises(diffbench.OptionError, match="saved_data has no classes, and the model knows no labels"):
            model.sample(2, labels=1)

    def test_a_scale_without_guidance(self, run):
        model = diffbench.load_model(run[0].parent / "by_image", "scheduler=ddim", store=run[1])
        with pytest.raises(diffbench.OptionError, match="concat has no guidance scale"):
            model.sample(2, scale=2.0)


def test_a_saved_model_is_read_where_neither_run_nor_store_is(run, tmp_path, monkeypatch):
    folder = load(run).save(tmp_path / "saved")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFBENCH_HOME", raising=False)
    shutil.move(folder, tmp_path / "elsewhere")
    model = diffbench.load_model("elsewhere")
    assert model.cell.dataset.classes == 10 and "elsewhere" in repr(model)
    assert not (tmp_path / ".diffbench").exists()
