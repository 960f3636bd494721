"""Which rows an expression means, and what is wrong with how a table is asked for."""

import json

import pytest

import diffbench
from diffbench.errors import DiffbenchError, MatrixError
from diffbench.matrix import selection

ROWS = [{"scheduler": name, "scheduler.steps": steps, "steps": steps, "scheduler.eta": eta, "dataset": "digits", "seed": seed, "noise_seed": seed, "train.ema": True}
        for name, steps, eta in (("ddim", 10, 0.0), ("ddim", 50, 0.0), ("my_pack.rk4", 10, None)) for seed in (0, 1)]


@pytest.mark.parametrize(("text", "meant"), [("scheduler=ddim", [0, 1, 2, 3]), ("scheduler=ddim,steps=50", [2, 3]), ("scheduler.steps=10, seed=1", [1, 5]),
                                             ("scheduler=rk4", [4, 5]), ("scheduler=my-pack.rk4", [4, 5]), ("steps=[50, 10],seed=0", [0, 2, 4]), ("sample.seed=1", [1, 3, 5]),
                                             ("scheduler.eta=0.0", [0, 1, 2, 3]), ("train.ema=true", list(range(6))),
                                             ("scheduler=[{ddim: {steps: [10, 20]}}, rk4]", [0, 1, 4, 5]), ("scheduler={ddim: {eta: 0, steps: 50}},seed=0", [2])])
def test_rows_are_meant(text, meant):
    assert selection.select(ROWS, text) == meant


@pytest.mark.parametrize(("text", "said"), [("schedular=ddim", r"no cell has 'schedular'. Did you mean 'scheduler'\?"), ("scheduler=heun", "there are \"ddim\", \"my_pack.rk4\""),
                                            ("steps", "write KEY=VALUE"), ("steps=", "write KEY=VALUE"), ("scheduler=rk4,steps=50", "all of these at once"),
                                            ("train.ema=1", "no cell has train.ema=1; there are true"), ("steps=[1", "steps=\\[1")])
def test_what_means_nothing_is_said(text, said):
    with pytest.raises(DiffbenchError, match=said):
        selection.select(ROWS, text)


@pytest.mark.parametrize(("condition", "seeds"), [({"scheduler": {"ddim": {"steps": 2}}}, [(3, 0), (3, 1)]), ({"steps": 2, "seed": [0, 5]}, [(2, 1), (3, 0), (3, 1)]),
                                                  ({"scheduler": "ddim", "scheduler.steps": 3}, [(2, 0), (2, 1)])])
def test_a_matrix_and_the_command_line_mean_the_same_cells(condition, seeds):
    """exclude keeps what --only, with the same condition, does not."""
    content = {"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": {"ddim": {"steps": [2, 3]}}, "seed": [0, 1]}}
    kept = diffbench.plan(content | {"exclude": [condition]}, device="cpu").cells
    text = ",".join(f"{key}={json.dumps(value)}" for key, value in condition.items())
    only = diffbench.plan(content, device="cpu", only=[text]).cells
    assert [(p.cell.scheduler.steps, p.cell.seed) for p in kept] == seeds
    assert sorted([p.cell_id for p in [*kept, *only]]) == sorted(p.cell_id for p in diffbench.plan(content, device="cpu").cells)


def test_an_option_of_a_condition_is_no_mapping():
    with pytest.raises(DiffbenchError, match="an option of a condition has a plain value, or a list of them, got {'b': 1}"):
        selection.select(ROWS, "scheduler={ddim: {eta: {b: 1}}}")


def planned(**report):
    return diffbench.plan({"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": {"ddim": {"steps": [2, 3]}}, "seed": [0, 1]}, "report": report}, device="cpu")


def test_a_baseline_is_one_row_for_each_seed():
    assert len(planned(baseline="steps=2").cells) == 4
    for baseline, said in (("steps=4", "report.baseline: 'steps=4': no cell has steps=4; there are 2, 3"), ("scheduler=ddim", "rows that differ in steps; a baseline is one row for each seed"),
                           ("colour=red", "no cell has 'colour'")):
        with pytest.raises(MatrixError, match=said):
            planned(baseline=baseline)
    with pytest.raises(MatrixError, match=r"there is no column 'schedular' to lay a table out by. Did you mean 'scheduler'\?"):
        planned(rows=["schedular"])


def test_the_seed_of_the_noise_is_a_number_of_its_own():
    """The same trainings are sampled with several noises; "cell" is the cell's own seed, so no artefact is made twice."""
    axes = {"backbone": "unet", "scheduler": {"ddim": {"steps": 2}}, "seed": [0, 1], "sample.seed": ["cell", 0, 5]}
    plan = diffbench.plan({"diffbench": 1, "dataset": "digits", "axes": axes}, device="cpu")
    made_of = [selection.values_of(diffbench.matrix.describing.describe_cell(p.cell, plan.names)) for p in plan.cells]
    assert sorted((row["seed"], row["noise_seed"]) for row in made_of) == [(0, 0), (0, 0), (0, 5), (1, 0), (1, 1), (1, 5)]
    assert len({p.stages["train"] for p in plan.cells}) == 2 and len({p.stages["sample"] for p in plan.cells}) == 5
