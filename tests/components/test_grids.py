"""Every schedule, spacing and scheduler that a plan accepts together brings Gaussian data out as they are, or is
refused with a reason.
"""
import math
from dataclasses import replace

import pytest
import torch

import diffbench
from diffbench.contracts.settings import Sample
from diffbench.diffusion import sampling
from diffbench.errors import OptionError
from diffbench.registry.describing import label
from diffbench.testing.oracles import GaussianData, NotAffine, affine_map, affine_maps
from diffbench.testing.stand_ins import Between, all_examples, cell_with, one_schedule_of_a_sort
from tests.components.test_schedulers import COSINE, EDM, FLOW, LINEAR, UNCLIPPED, create
from tests.conftest import REGISTRY

MEAN, STD = 0.3, 0.5  # of the data
# By steps: how far off the mean of the images may be; their spread, and that of states on the way where nothing is clipped, in units of the truth.
# Below 20 steps every sampler loses spread, and multistep ones overshoot: that is what a benchmark is to measure, and not what it refuses.
MEANS = {1: 0.3, 2: 0.3, 7: 0.2, 20: 0.1, 50: 0.1}
ENDS = {1: (0.0, 8.0), 2: (0.0, 8.0), 7: (0.0, 4.0), 20: (0.45, 2.05), 50: (0.45, 2.05)}
WIDEST = {1: 8.0, 2: 11.0, 7: 6.0, 20: 3.1, 50: 3.1}

OBJECTIVE = next(
    objective for objective in all_examples(REGISTRY, "objective") if objective.learns_variance
)  # every scheduler takes what it trains
CELL = cell_with(REGISTRY, objective=OBJECTIVE)
SPACINGS = all_examples(REGISTRY, "spacing") + [
    REGISTRY.create("spacing", "uniform", start=0.98),
    REGISTRY.create("spacing", "quadratic", start=1.0),
]


def refusal(scheduler, schedule, spacing, clip) -> str | None:
    """Why a plan would skip the cell, what is trained apart."""
    cell = replace(
        CELL, noise_schedule=schedule, spacing=spacing, scheduler=scheduler, sample=Sample(count=2, clip=clip)
    )
    return spacing.why_not(cell) or cell.process.why_not(cell) or scheduler.why_not(cell)


def moments(scheduler, schedule, spacing) -> list[tuple[float, float]]:
    """(mean, standard deviation) of every state, from noise to images: exact, or from 8,192 pixels where a step is not
    affine.
    """
    data = GaussianData(schedule=schedule, std=STD, mean=MEAN)
    alpha, sigma = schedule.scales(float(spacing(schedule, scheduler.steps)[0]))
    try:
        found = [made.pushed(0.0, alpha**2 + sigma**2) for made in affine_maps(scheduler, spacing, data)]
        return [(mean, math.sqrt(variance)) for mean, variance in found]
    except NotAffine:
        x_T = sampling.initial(schedule, spacing, scheduler.steps, range(32), (1, 16, 16)).double()
        return [
            (float(x.mean()), float(x.std()))
            for x in diffbench.trajectory(data, schedule, scheduler, x_T, spacing=spacing)
        ]


def faults_of(scheduler, schedule, spacing) -> list[str]:
    """What is wrong with the images of an accepted cell."""
    states, times = moments(scheduler, schedule, spacing), spacing(schedule, scheduler.steps).tolist()
    data, steps, (mean, std) = GaussianData(schedule=schedule, std=STD, mean=MEAN), scheduler.steps, states[-1]
    spreads = [std_t / math.sqrt(data.marginal(t)[1]) for t, (_, std_t) in zip(times, states, strict=True)][1:-1]
    faults = []
    if not abs(mean - MEAN) <= MEANS[steps]:
        faults.append(f"mean {mean:.3f}")
    if not ENDS[steps][0] <= std / STD <= ENDS[steps][1]:
        faults.append(f"standard deviation {std:.3g}")
    if not max(spreads, default=1.0) <= WIDEST[steps] and refusal(scheduler, schedule, spacing, clip=False) is None:
        faults.append(f"{max(spreads):.3g} times the spread on the way")
    return faults


def sweep(registry, steps) -> tuple[int, int, list[str]]:
    """(accepted, refused, what is wrong with those that are accepted) over every schedule, spacing and scheduler."""
    accepted, refused, wrong = 0, 0, []
    for example in all_examples(registry, "scheduler"):
        try:
            scheduler = replace(example, steps=steps)
        except OptionError:
            continue
        for schedule in all_examples(registry, "noise_schedule"):
            for spacing in SPACINGS:
                if refusal(scheduler, schedule, spacing, clip=True):
                    refused += 1
                    continue
                accepted += 1
                if faults := faults_of(scheduler, schedule, spacing):
                    wrong.append(
                        f"{label(scheduler, registry)}, {steps} steps, {label(schedule, registry)}, {label(spacing, registry)}: {', '.join(faults)}"
                    )
    return accepted, refused, wrong


def test_few_steps_are_right_where_they_are_accepted_on_one_schedule_of_a_sort():
    accepted, refused, wrong = sweep(one_schedule_of_a_sort(REGISTRY), 7)
    assert not wrong, "\n".join(wrong)
    assert accepted > 2 * refused > 0


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 20, 50])
def test_every_accepted_grid_is_right(steps):
    *_, wrong = sweep(REGISTRY, steps)
    assert not wrong, "\n".join(wrong)


def test_a_smoke_test_takes_the_fewest_steps_that_are_not_refused():
    """Two where they can be; every cell that the matrix has is walked."""

    def planned(**options):
        axes = {
            "backbone": "unet",
            "noise_schedule": "cosine",
            "conditioning": "none",
            "spacing": {"uniform": {"start": 0.98}},
            "scheduler": [{"euler_sde": {"steps": 50}}, {"ddim": {"steps": 50}}],
        }
        return diffbench.plan(
            {"diffbench": 1, "dataset": "digits", "extractor": "pixels", "axes": axes}, device="cpu", **options
        ).cells

    assert [cell.skipped for cell in planned()] == [None, None]
    few = planned(smoke=True)
    assert [cell.skipped for cell in few] == [None, None]
    assert few[1].cell.scheduler.steps == 2 < few[0].cell.scheduler.steps < 10


@pytest.mark.parametrize("scheduler", all_examples(REGISTRY, "scheduler"), ids=lambda s: label(s, REGISTRY))
def test_a_sampler_run_says_what_a_plan_says_of_times_that_cannot_be_walked(scheduler):
    """On a continuous schedule from leading, past the end of a grid, and from alpha = 0: the sentence of the matrix,
    never an arithmetic error.
    """
    v = REGISTRY.create("parameterization", "v")
    for schedule, spacing, steps in (
        (FLOW, "leading", 10),
        (LINEAR, "trailing", 1001),
        (FLOW, "uniform", 10),
        (FLOW, "trailing", 10),
    ):
        made, chosen = replace(scheduler, steps=steps), REGISTRY.create("spacing", spacing)
        cell = cell_with(
            REGISTRY, noise_schedule=schedule, spacing=chosen, scheduler=made, parameterization=v, objective=OBJECTIVE
        )
        data, x_T = GaussianData(schedule=schedule, std=0.5), torch.ones(2, 1, 2, 2, dtype=torch.float64)
        reason = chosen.why_not(cell) or made.why_not(cell)
        if reason is None:
            assert diffbench.sample(data, schedule, made, x_T, spacing=chosen).x_0.isfinite().all()
            continue
        for run in (diffbench.sample, diffbench.trajectory):
            with pytest.raises(diffbench.OptionError) as error:
                run(data, schedule, made, x_T, spacing=chosen)
            assert str(error.value) == reason


def test_a_sampler_run_does_not_know_what_lies_in_the_rest_of_a_cell():
    """Whether x_0 is clipped, and what the objective trains, the caller's denoiser decides."""
    x_T = torch.ones(2, 1, 2, 2, dtype=torch.float64)
    assert (
        diffbench.sample(GaussianData(schedule=COSINE, std=0.5), COSINE, create("euler_sde", steps=50), x_T)
        .x_0.isfinite()
        .all()
    )
    assert (
        diffbench.sample(
            GaussianData(schedule=LINEAR, std=0.5), LINEAR, create("ddpm", steps=5, variance="learned"), x_T
        )
        .x_0.isfinite()
        .all()
    )


@pytest.mark.parametrize(
    ("scheduler", "parts"),
    [
        (create("langevin_pc", predictor="none"), {}),
        (create("langevin_pc", predictor="none", corrector_steps=5, steps=50), {}),
        (create("langevin_pc", predictor="none"), {"noise_schedule": EDM}),
        (create("euler_sde"), {"noise_schedule": COSINE}),
        (
            create("euler_sde", steps=20),
            {
                "noise_schedule": COSINE,
                "spacing": REGISTRY.create("spacing", "uniform", start=0.98),
                "sample": UNCLIPPED,
            },
        ),
        (create("euler_ode"), {"noise_schedule": EDM}),
        (create("euler_ode", steps=5), {"noise_schedule": FLOW}),
        (create("heun", variable="t"), {"noise_schedule": EDM}),
        (create("ddpm", variance="large", steps=7), {}),
    ],
)
def test_pairs_that_keep_the_spread_of_the_data_are_not_refused(scheduler, parts):
    assert scheduler.why_not(cell_with(REGISTRY, scheduler=scheduler, **parts)) is None


@pytest.mark.parametrize(
    "scheduler",
    [s for s in all_examples(REGISTRY, "scheduler") if hasattr(s, "moved") and getattr(s, "step_size", "") != "norm"],
    ids=lambda s: label(s, REGISTRY),
)
@pytest.mark.parametrize("schedule", [LINEAR, EDM, FLOW], ids=lambda s: s.component_name())
def test_the_variance_a_rule_goes_by_is_that_of_the_step(scheduler, schedule):
    """`moved` in closed form against the exact affine map of one step on Gaussian data of the same variance."""
    if getattr(scheduler, "variance", "large") != "large":
        scheduler = replace(scheduler, variance="large")
    if schedule.grid and getattr(scheduler, "variable", "") == "t":
        pytest.skip("not on a grid")
    data = GaussianData(schedule=schedule, std=0.5)
    for t, s in ((0.9, 0.8), (0.5, 0.3)):
        exact = affine_map(replace(scheduler, steps=1), Between(start=t, end=s, equal=True), data).pushed(0.0, 2.3)[1]
        assert replace(scheduler, steps=1).moved(schedule, 2.3, t, s) == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize("name", ["epsilon", "score"])
def test_noise_cannot_be_decoded_without_clipping_where_alpha_rises_steeply(name):
    """An error of eps_hat grows by alpha_s/alpha_t less sigma_s; clipping bounds x0_hat, and so the error."""
    parameterization, scheduler = REGISTRY.create("parameterization", name), create("ddim", steps=50)

    def reason(**parts):
        return parameterization.why_not(
            cell_with(REGISTRY, parameterization=parameterization, scheduler=scheduler, **parts)
        )

    assert f"{name} without clipping would multiply the network's errors by 632 in the step from t = 1;" in reason(
        noise_schedule=COSINE, sample=UNCLIPPED
    )
    assert (
        reason(noise_schedule=COSINE)
        is None
        is reason(noise_schedule=LINEAR, sample=UNCLIPPED)
        is reason(noise_schedule=EDM, sample=UNCLIPPED)
    )
    assert (
        reason(noise_schedule=COSINE, sample=UNCLIPPED, spacing=REGISTRY.create("spacing", "uniform", start=0.98))
        is None
    )
    assert "cannot be decoded at zero terminal SNR" in reason(noise_schedule=FLOW)
