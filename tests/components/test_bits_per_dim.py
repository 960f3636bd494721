"""Bits per dimension as a metric: which images, under which condition, how sure, and once for all cells that share a training."""
import contextlib
import math
from types import SimpleNamespace

import pytest
import torch

import diffbench
from diffbench import DataError, Split, TrainedModel, jackknife_blocks
from diffbench.matrix import loading
from diffbench.planning import fitting, stage_graph
from diffbench.registry.describing import Names
from diffbench.stages import evaluate
from diffbench.stages.evaluate import as_columns
from diffbench.testing.oracles import GaussianData
from tests.conftest import REGISTRY

STD = 0.3
SMALL = {
    "diffbench": 1, "name": "bits", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "noise_schedule": ["vp"],
             "conditioning": [{"cfg": {"inner": "film", "scale": [1.0, 2.0]}}], "scheduler": [{"ddim": {"steps": 2}}, {"ddpm": {"steps": 2}}]},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 12}, "throughput": {"repeats": 3, "batch_size": 2},
    "metrics": [{"bits_per_dim": {"draws": 3, "images": 45}}, {"bits_per_dim": {"method": "flow", "images": 10, "tolerance": 0.1}}],
}


def create(**options):
    return REGISTRY.create("metric", "bits_per_dim", **options)


def gaussian(count, seed=0, side=2):
    x = STD * torch.randn(count, 1, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def model(images, seed=0, schedule="vp", asked=None):
    """The exact denoiser of these images; `asked`: is told which rows were asked for."""
    made = REGISTRY.create("noise_schedule", schedule)
    data = GaussianData(schedule=made, std=STD)

    def denoise(rows):
        if asked is not None:
            asked.append(rows)
        return data
    return TrainedModel(denoise=denoise, schedule=made, held_out=Split(images=images), device=torch.device("cpu"), seed=seed)


@pytest.mark.parametrize("method", ["bound", "flow"])
@pytest.mark.parametrize(("there", "images", "rows"), [(60, 60, range(60)), (60, 1000, range(60)), (60, 45, [i * 60 // 45 for i in range(45)]), (7, 3, [0, 2, 4])])
def test_it_looks_at_so_many_held_out_images_spread_over_the_split(method, there, images, rows):
    asked, pixels = [], gaussian(there)
    found = as_columns(create(method=method, images=images, draws=2, batch_size=7).measure(model(pixels, asked=asked)))["values"]
    assert sorted(torch.cat(asked).tolist()) == list(rows) and all(len(batch) <= 7 for batch in asked)
    assert found["_images"] == len(rows)
    assert {"_low", "_high", "_debiased"} <= set(found) if len(rows) >= 40 else not {"_low", "_high"} & set(found)


def test_the_bound_and_the_flow_have_columns_of_their_own():
    bound, flow = create(), create(method="flow")
    assert (bound.column(None), flow.column(None)) == ("bits_per_dim_bound", "bits_per_dim")
    values = [as_columns(m.measure(model(gaussian(40))))["values"] for m in (bound, flow)]
    assert set(values[0]) - set(values[1]) == {"_prior", "_decoder"} and set(values[1]) - set(values[0]) == {"_start_nsr"}
    assert 0 < values[0]["_decoder"] < values[0][""] and values[0]["_nfe"] <= 101 and values[1]["_start_nsr"] == 1e-3


def test_options_that_the_method_does_not_read_make_no_other_metric():
    assert create(probes=3, tolerance=1e-2).equal_to() == create() == create(least_noise=0.01).equal_to()
    assert create(method="flow", draws=3, clip=False, steps=50, variance="large").equal_to() == create(method="flow")
    assert create(draws=3).equal_to() != create() and create(method="flow", probes=2).equal_to() != create(method="flow")


def test_the_flow_has_the_cross_entropy_of_known_data():
    """Dequantised: data N(0, std²) with a uniform of a pixel value's width around it, under the flow's own N(0, std² + start²)."""
    found = create(method="flow", least_noise=1e-3, tolerance=1e-6).measure(model(gaussian(2000, side=4), schedule="rectified_flow"))[""]
    truth = math.log2(255 / 2) + math.log2(STD * math.sqrt(2 * math.pi * math.e))
    assert found.standard_error < 0.01 and abs(found.value - truth) < 3 * found.standard_error


def test_blocks_of_images_share_the_terms_they_draw():
    """Two images of one block see the same terms, those of another block others: the times each batch is denoised at."""
    times: dict[int, list[float]] = {}
    made = REGISTRY.create("noise_schedule", "vp")
    data = GaussianData(schedule=made, std=STD)

    def denoise(rows):
        def noted(x_t, t):
            for row in rows.tolist():
                times.setdefault(row, []).append(t)
            return data(x_t, t)
        return noted
    create(draws=20, batch_size=1).measure(TrainedModel(denoise=denoise, schedule=made, held_out=Split(images=gaussian(60)), device=torch.device("cpu"), seed=0))
    blocks = jackknife_blocks(60)
    assert all(times[i] == times[int((blocks == blocks[i]).nonzero()[0])] for i in range(60))
    assert len({tuple(times[i]) for i in range(20)}) == 20


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"draws": 4, "steps": 40}, {"method": "flow", "tolerance": 1e-2}], ids=["bound", "flow"])
def test_the_interval_covers_the_truth(options):
    """Fresh images and fresh draws each time; the truth is the mean over all of them, the bound's with every term summed."""
    repeats, metric = 200, create(**options)
    found = [metric.measure(model(gaussian(100, seed=r), seed=r))[""] for r in range(repeats)]
    everything = create(**options | ({"draws": 39} if metric.method == "bound" else {})).measure(model(gaussian(6000, seed=999), seed=999))[""]
    covered = sum(f.low <= everything.value <= f.high for f in found) / repeats
    assert 0.90 <= covered <= 0.99
    assert sum(f.value for f in found) / repeats == pytest.approx(everything.value, abs=4 * (everything.standard_error + found[0].standard_error / repeats**0.5))


def test_an_empty_split_and_a_denoiser_of_nothing_are_said():
    with pytest.raises(DataError, match="the split is empty"):
        create().measure(model(gaussian(0)))
    broken = model(gaussian(4))
    nothing = TrainedModel(**{**vars(broken), "denoise": lambda rows: lambda x, t: diffbench.Prediction(x0=x * math.nan, eps=x * math.nan)})
    with pytest.raises(diffbench.Diverged, match="4 of 4 held-out images have no finite likelihood"):
        create().measure(nothing)
    with pytest.raises(diffbench.Diverged, match="no longer finite"):
        create(method="flow").measure(nothing)


def planned(**changes):
    made = stage_graph.make_plan(loading.load(SMALL | changes, REGISTRY), REGISTRY, "cpu")
    return made, [cell.stages for cell in made.cells]


def test_cells_that_share_a_training_share_its_bits():
    plan, cells = planned()
    assert len(cells) == 4
    for role in ("evaluate:bits_per_dim_bound", "evaluate:bits_per_dim"):
        assert len({stages[role] for stages in cells}) == 1, "guidance and samplers have no part in it"
        assert plan.stages[cells[0][role]].parents == {"train": cells[0]["train"]}
    assert not plan.floors and not {"extractor", "reference", "features"} & {stage.name for stage in plan.stages.values()}
    _, seeds = planned(axes=SMALL["axes"] | {"seed": [0, 1]})
    assert len({stages["evaluate:bits_per_dim"] for stages in seeds}) == 2
    _, others = planned(metrics=[{"bits_per_dim": {"draws": 4, "images": 45}}, {"bits_per_dim": {"method": "flow", "images": 10, "tolerance": 0.1, "batch_size": 3, "draws": 9}}])
    assert others[0]["evaluate:bits_per_dim_bound"] != cells[0]["evaluate:bits_per_dim_bound"]
    assert others[0]["evaluate:bits_per_dim"] == cells[0]["evaluate:bits_per_dim"], "neither batches nor options of the other method count"


def test_an_extractor_that_refuses_a_cell_is_asked_only_where_images_are_judged():
    cell, names = loading.load(SMALL, REGISTRY).cells[0], Names(REGISTRY)
    refusing = SimpleNamespace(why_not=lambda cell: "no")
    assert fitting.why_not(cell, SimpleNamespace(metrics=(create(),), extractor=refusing), names) is None
    assert fitting.why_not(cell, SimpleNamespace(metrics=(create(), REGISTRY.create("metric", "fid")), extractor=refusing), names) == "no"


def test_a_smoke_test_looks_at_a_few_images():
    small = loading.load(SMALL | {"metrics": ["bits_per_dim"]}, REGISTRY, smoke=True).metrics[0]
    assert (small.images, small.draws) == (8, 2)


@pytest.mark.slow
def test_a_run_has_the_bits_of_its_denoisers_in_its_table(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
    done = diffbench.run(SMALL, out=tmp_path / "out", device="cpu")
    assert done.is_complete and done.counts == {"ok": 4}
    rows = diffbench.load(tmp_path / "out" / "results.csv")
    for name, images in (("bits_per_dim_bound", 45), ("bits_per_dim", 10)):
        assert rows[name].nunique() == 1 and rows[name].between(1, 50).all() and (rows[f"{name}_images"] == images).all()
    assert (rows["bits_per_dim_bound_low"] < rows["bits_per_dim_bound"]).all() and (rows["bits_per_dim_bound"] < rows["bits_per_dim_bound_high"]).all()
    assert rows["bits_per_dim_low"].isna().all(), "ten images are too few for an interval"
    again = diffbench.run(SMALL, out=tmp_path / "out", device="cpu")
    assert again.stages_run == 0


def test_each_image_is_judged_under_its_own_condition_and_unguided(monkeypatch):
    """The stage's own binding: of rows it asks the network with the labels of those rows, nothing withheld."""
    from diffbench.stages import training_loop

    cell = loading.load(SMALL, REGISTRY).cells[2]
    assert cell.conditioning.scale == 2.0
    weights = {k: v.detach() for k, v in training_loop.build(cell, torch.device("cpu")).state_dict().items()}
    context = SimpleNamespace(cell=lambda: cell, device=torch.device("cpu"), weights=lambda role: contextlib.nullcontext(weights))
    made, seen = evaluate._model(context), []

    def spy(self, x_t, t, cond, drop):
        seen.append((x_t.dtype, cond, drop))
        return diffbench.Prediction(x0=x_t, eps=x_t)
    monkeypatch.setattr("diffbench.diffusion.denoiser.Denoiser.denoise", spy)
    rows = torch.tensor([3, 0, 8])
    out = made.denoise(rows)(torch.zeros(3, 1, 8, 8, dtype=torch.float64), 0.5)
    ((dtype, cond, drop),) = seen
    assert dtype == torch.float32 and out.x0.dtype == torch.float64
    assert torch.equal(cond.label, cell.dataset.load()["held_out"].labels[rows]) and not drop.any()
