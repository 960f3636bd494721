"""Components that other parts of a run go through: a second one of each kind, of which a cell gives values that are known to the last bit.

The networks answer with zeros, as a DiT does before its first step and after one of a vanishing learning rate.
"""

import json
from pathlib import Path

import pytest
import torch

import diffbench
from diffbench import BrokenComponent, Sampler
from diffbench.contracts.values import Split
from diffbench.diffusion import noise, sampling
from diffbench.diffusion.latents import Latents
from diffbench.diffusion.pixels import from_pixels, to_pixels
from diffbench.matrix import loading
from diffbench.matrix.describing import rebuild_cell
from diffbench.planning.stage_graph import make_plan
from diffbench.registry.registry import Registry
from diffbench.stages import drawing, training_loop
from diffbench.stages.batches import Batches
from diffbench.store.artefacts import Store
from tests.conftest import REGISTRY
from tests.registry.test_registry import distribution

PARTS = Path(__file__).parents[1] / "helpers" / "seam_parts.py"
POINTS = """[diffbench.autoencoder]
half = seam_parts:Half
pairs = seam_parts:Pairs
[diffbench.process]
shifted = seam_parts:Shifted
[diffbench.method]
bias_only = seam_parts:BiasOnly
[diffbench.pipeline]
twice = seam_parts:Twice
[diffbench.text_encoder]
letters = seam_parts:Letters
[diffbench.conditioning]
first_letter = seam_parts:FirstLetter
[diffbench.backbone]
echo = seam_parts:Echo
"""
CPU, COUNT, START = torch.device("cpu"), 12, 0.6
DEFAULTS = {"process": "gaussian", "autoencoder": "none", "text_encoder": "none", "method": "scratch", "pipeline": "single"}
AXES = {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "parameterization": "v", "conditioning": "none",
        "spacing": {"uniform": {"start": START}}, "scheduler": {"ddim": {"steps": 1}}}
BASE = {"diffbench": 1, "dataset": "digits", "extractor": "pixels", "metrics": [], "throughput": "off", "axes": AXES,
        "train": {"steps": 1, "batch_size": 16, "lr": 1e-30}, "sample": {"count": COUNT, "batch_size": 8}}
CELLS = {
    "base": {}, "half": {"autoencoder": "half"}, "shifted": {"process": "shifted", "parameterization": "epsilon"},
    "bias": {"method": "bias_only"}, "twice": {"pipeline": "twice"},
    "letters": {"text_encoder": "letters", "conditioning": "first_letter", "backbone": "echo", "parameterization": "x0"}}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A registry beside a package with the other components."""
    site = tmp_path_factory.mktemp("seams")
    with pytest.MonkeyPatch.context() as patch:
        distribution(site, "seam-pack", POINTS, {"seam_parts": PARTS.read_text()})
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site))             # of workers
        patch.setenv("DIFFBENCH_HOME", str(site / "home"))
        yield Registry()


@pytest.fixture(scope="module")
def done(parts, tmp_path_factory):
    """By the names of CELLS: (cell, images, row, facts of the training, weights) of one run."""
    out, store = tmp_path_factory.mktemp("out"), Store.default()
    diffbench.run({**BASE, "include": [cell for cell in CELLS.values() if cell]}, out=out, device="cpu")
    rows = {row["cell_id"]: row for row in diffbench.load(out).to_dict("records")}
    found = {}
    for name, planned in zip(CELLS, json.loads((out / "plan.json").read_bytes())["cells"], strict=True):
        sample, train = planned["stages"]["sample"], planned["stages"]["train"]
        found[name] = (rebuild_cell(planned["cell"], parts), store.read_tensors("sample", sample, "images.safetensors")["images"], rows[planned["cell_id"]],
                       store.read_json("train", train, "facts.json"), store.read_tensors("train", train, "weights.safetensors"))
    return found


def first(cell, run=0):
    """x_T of a run of the sampler."""
    seeds = noise.seeds_of_run(noise.sample_seeds(cell.noise_seed, 0, COUNT), run)
    return sampling.initial(cell.noise_schedule, cell.spacing, 1, seeds, cell.data_shape, process=cell.process)


def ends(cell, x_T):
    """x_0 of a network that answers with zeros."""
    return cell.parameterization.decode(torch.zeros_like(x_T), x_T, cell.noise_schedule.at(START)).x0


def test_the_base_ends_where_a_network_of_zeros_says(done):
    cell, images, row, _, _ = done["base"]
    assert torch.equal(images, to_pixels(ends(cell, first(cell)).clamp(-1, 1))) and row["nfe"] == 1 and row["status"] == "ok"


def test_an_autoencoder_stands_between_the_data_and_all_that_is_trained_and_drawn(done):
    cell, images, row, facts, _ = done["half"]
    assert torch.equal(images, to_pixels(2 * ends(cell, first(cell)).clamp(-0.5, 0.5)))
    assert not torch.equal(images, done["base"][1])
    pixels, = Batches(done["base"][0], cell.dataset.load()["train"], CPU, slice(None)).draw(1)
    halved = cell.process.noised(0.5 * pixels.noised.x_0, pixels.noised.level, lambda: pixels.noised.eps)
    zeros = torch.zeros_like(halved.x_0)
    assert facts["train_loss"] == cell.objective.loss(zeros, halved, cell.noise_schedule, cell.parameterization).mean()
    assert row["autoencoder"] == "seam-pack.half" and done["base"][2]["autoencoder"] == "none"


def test_latents_may_have_another_shape_and_no_bounds(parts):
    cell = loading.load({**BASE, "axes": {**AXES, "autoencoder": "pairs"}}, parts).cells[0]
    model, z = training_loop.build(cell, CPU), ends(cell, first(cell))
    assert cell.data_shape == z.shape[1:] == (2, 8, 4) and model.network.stem.in_channels == 2
    with torch.no_grad():
        drawn = drawing.draw(cell, model, None, drawing.helpers_for(cell, CPU), CPU, range(COUNT))
    assert torch.equal(drawn, torch.stack([z[:, :1], z[:, 1:]], dim=-1).flatten(-2))


def test_latents_are_drawn_anew_around_their_mean_at_each_step(parts):
    made = loading.load({**BASE, "axes": {**AXES, "autoencoder": {"pairs": {"std": 0.5}}}}, parts).cells[0]
    split = made.dataset.load()["train"]
    same = Split(images=split.images[:1].expand(16, -1, -1, -1), labels=split.labels[:1].expand(16))
    one, two = Batches(made, same, CPU, slice(None)).draw(2)
    generator = torch.Generator().manual_seed(made.seed + 3)
    mean = made.autoencoder.module((1, 8, 8)).encode(from_pixels(same.images)).mean
    for batch in (one, two):
        spread, eps = (torch.randn(16, 2, 8, 4, generator=generator) for _ in range(2))
        assert torch.equal(batch.noised.x_0, mean + 0.5 * spread) and torch.equal(batch.noised.eps, eps)


def test_a_process_says_what_data_become_and_where_samples_begin(done):
    cell, images, row, facts, _ = done["shifted"]
    assert facts["train_loss"] == 0.125**2, "the mean square of the noise, which is one number"
    assert torch.equal(images, to_pixels(ends(cell, torch.full((COUNT, 1, 8, 8), 0.125)).clamp(-1, 1))) and row["process"] == "seam-pack.shifted"


def test_a_method_says_what_is_trained_by_which_loss_and_to_which_weights(done):
    cell, _, row, facts, weights = done["bias"]
    start, whole = training_loop.build(cell, CPU).state_dict(), done["base"][4]
    assert facts["train_loss"] == done["base"][3]["train_loss"] / 4 > 0
    assert {name for name in start if not torch.equal(start[name], weights[name])} == {"network.last.bias"} and row["method"] == "seam-pack.bias_only"
    assert {name for name in start if not torch.equal(start[name], whole[name])} == {"network.last.bias", "network.last.weight"}


def test_a_pipeline_makes_samples_of_runs_with_noise_of_their_own(done):
    cell, images, row, _, weights = done["twice"]
    both = [ends(cell, first(cell, run)).clamp(-1, 1) for run in (0, 1)]
    assert torch.equal(images, to_pixels((both[0] + both[1]) / 2)) and not torch.equal(*both)
    assert row["nfe"] == 2 and row["pipeline"] == "seam-pack.twice" and weights.keys() == done["base"][4].keys()


def test_a_text_encoder_reads_the_names_of_classes(done):
    _, images, row, _, _ = done["letters"]
    labels = torch.arange(COUNT) % 10
    assert sorted(set(images.flatten(1)[:, 0].tolist())) == sorted(set(to_pixels(labels / 16).tolist())), "the first letter, from '0' on, in sixteenths"
    assert all(len(image.unique()) == 1 for image in images) and row["text_encoder"] == "seam-pack.letters"


def test_defaults_that_are_written_out_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    matrix = {**BASE, "axes": {**AXES, "conditioning": ["none", "film"], "scheduler": {"ddim": {"steps": [1, 2]}}}, "metrics": ["fid"]}
    bare, written = (make_plan(loading.load({**matrix, "axes": {**matrix["axes"], **more}}, REGISTRY), REGISTRY, "cpu") for more in ({}, DEFAULTS))
    assert [(c.cell_id, c.skipped, c.stages, c.cell) for c in bare.cells] == [(c.cell_id, c.skipped, c.stages, c.cell) for c in written.cells]
    assert {key: (s.identity, s.task, s.label) for key, s in bare.stages.items()} == {key: (s.identity, s.task, s.label) for key, s in written.stages.items()}
    few = {**BASE, "sample": {"count": 2}}
    tables = []
    for name, more in (("bare", {}), ("written", DEFAULTS)):
        diffbench.run({**few, "axes": {**AXES, **more}}, out=tmp_path / name, device="cpu")
        tables.append(diffbench.load(tmp_path / name))
    assert list(tables[0].columns) == list(tables[1].columns) and not {*DEFAULTS} & {*tables[0].columns}
    assert tables[0].drop(columns="started_at").equals(tables[1].drop(columns="started_at"))


def test_a_cell_described_before_there_were_these_kinds_has_their_defaults(parts):
    cell = loading.load(BASE, REGISTRY).cells[0]
    made = make_plan(loading.load(BASE, REGISTRY), REGISTRY, "cpu")
    described = next(stage.task["cell"] for stage in made.stages.values() if stage.name == "sample")
    assert rebuild_cell({kind: part for kind, part in described.items() if kind not in DEFAULTS}, REGISTRY) == cell


def test_cells_that_a_seam_does_not_fit_are_skipped(parts):
    def skipped(metrics=(), dataset="digits", **axes):
        made = make_plan(loading.load({**BASE, "metrics": list(metrics), "dataset": dataset, "axes": {**AXES, **axes}}, parts), parts, "cpu")
        return made.cells[0].skipped, made.notes
    said = "classifier_guidance is guided by a classifier of images under Gaussian noise, and this cell has the process gaussian and the autoencoder seam-pack.half"
    assert skipped(autoencoder="half", conditioning={"classifier_guidance": {"inner": "none"}})[0] == said
    reason, notes = skipped(metrics=["bits_per_dim"], process="shifted")
    assert reason is None and "bits_per_dim is not measured: both likelihoods are of pixels under Gaussian noise" in notes


class Wrong:
    """Gives what no seam may give."""

    bounds, runs = None, 1

    def component_name(self):
        return "wrong"

    def module(self, shape):
        return self

    def to(self, device):
        return self

    eval = requires_grad_ = lambda self, *_: self

    def encode(self, x):
        return x[:, :, :4], None

    def decode(self, z):
        return z.double()

    def run(self, sampler: Sampler, earlier, index):
        return sampler()[:1]


def test_what_a_component_must_not_give_is_said(parts):
    from types import SimpleNamespace

    recipe = SimpleNamespace(autoencoder=Wrong(), data_shape=(1, 8, 8), dataset=SimpleNamespace(shape=(1, 8, 8)))
    latents = Latents(recipe, CPU)
    with pytest.raises(BrokenComponent, match=r"autoencoder wrong: its latents must be float32 \[3, 1, 8, 8\], got float32 \[3, 1, 4, 8\]"):
        latents.encode(torch.zeros(3, 1, 8, 8), lambda: torch.zeros(3, 1, 8, 8))
    with pytest.raises(BrokenComponent, match=r"autoencoder wrong: its data must be float32 \[3, 1, 8, 8\], got float64 \[3, 1, 8, 8\]"):
        latents.decode(torch.zeros(3, 1, 8, 8))
    cell = loading.load(BASE, REGISTRY).cells[0]
    object.__setattr__(cell, "pipeline", Wrong())
    with pytest.raises(BrokenComponent, match=r"pipeline wrong: its run must give samples \[2, 1, 8, 8\], got float32 \[1, 1, 8, 8\]"):
        drawing.draw(cell, training_loop.build(cell, CPU), None, drawing.helpers_for(cell, CPU), CPU, range(2))
