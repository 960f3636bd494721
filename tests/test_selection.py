"""Which rows an expression means, and what is wrong with how a table is asked for."""

import pytest

import diffbench
from diffbench import selection
from diffbench.errors import DiffbenchError, MatrixError

ROWS = [{"scheduler": name, "scheduler.steps": steps, "steps": steps, "scheduler.eta": eta, "dataset": "digits", "seed": seed, "noise_seed": seed, "train.ema": True}
        for name, steps, eta in (("ddim", 10, 0.0), ("ddim", 50, 0.0), ("my_pack.rk4", 10, None)) for seed in (0, 1)]


@pytest.mark.parametrize(("text", "meant"), [("scheduler=ddim", [0, 1, 2, 3]), ("scheduler=ddim,steps=50", [2, 3]), ("scheduler.steps=10, seed=1", [1, 5]),
                                             ("scheduler=rk4", [4, 5]), ("scheduler=my-pack.rk4", [4, 5]), ("steps=[50, 10],seed=0", [0, 2, 4]), ("sample.seed=1", [1, 3, 5]),
                                             ("scheduler.eta=0.0", [0, 1, 2, 3]), ("train.ema=true", list(range(6)))])
def test_rows_are_meant(text, meant):
    assert selection.chosen(ROWS, text) == meant


@pytest.mark.parametrize(("text", "said"), [("schedular=ddim", r"no row has 'schedular'. Did you mean 'scheduler'\?"), ("scheduler=heun", "there are \"ddim\", \"my_pack.rk4\""),
                                            ("steps", "write KEY=VALUE"), ("steps=", "write KEY=VALUE"), ("scheduler=rk4,steps=50", "all of these at once"),
                                            ("train.ema=1", "no row has train.ema=1; there are true"), ("steps=[1", "steps=\\[1")])
def test_what_means_nothing_is_said(text, said):
    with pytest.raises(DiffbenchError, match=said):
        selection.chosen(ROWS, text)


def planned(**report):
    return diffbench.plan({"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": {"ddim": {"steps": [2, 3]}}, "seed": [0, 1]}, "report": report}, device="cpu")


def test_a_baseline_is_one_row_for_each_seed():
    assert len(planned(baseline="steps=2").cells) == 4
    for baseline, said in (("steps=4", "report.baseline: 'steps=4': no row has steps=4; there are 2, 3"), ("scheduler=ddim", "rows that differ in steps; a baseline is one row for each seed"),
                           ("colour=red", "no row has 'colour'")):
        with pytest.raises(MatrixError, match=said):
            planned(baseline=baseline)
    with pytest.raises(MatrixError, match=r"there is no column 'schedular' to lay a table out by. Did you mean 'scheduler'\?"):
        planned(rows=["schedular"])


def test_the_seed_of_the_noise_is_a_number_of_its_own():
    """The same trainings are sampled with several noises; "cell" is the cell's own seed, so no artefact is made twice."""
    axes = {"backbone": "unet", "scheduler": {"ddim": {"steps": 2}}, "seed": [0, 1], "sample.seed": ["cell", 0, 5]}
    plan = diffbench.plan({"diffbench": 1, "dataset": "digits", "axes": axes}, device="cpu")
    made_of = [selection.named(diffbench.planning.describe_cell(p.cell, plan.names)) for p in plan.cells]
    assert sorted((row["seed"], row["noise_seed"]) for row in made_of) == [(0, 0), (0, 0), (0, 5), (1, 0), (1, 1), (1, 5)]
    assert len({p.stages["train"] for p in plan.cells}) == 2 and len({p.stages["sample"] for p in plan.cells}) == 5
