"""Every scheduler against closed forms: order, clean end, evaluations, noise by sample."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

import diffbench
from diffbench import Prediction, noise, sampling
from diffbench.testing.oracles import GaussianData, affine_map
from tests.conftest import REGISTRY, all_of

SCHEDULES = all_of("noise_schedule")
UNIFORM = REGISTRY.create("spacing", "uniform")


def configurations() -> list:
    """Every scheduler in each of its discrete forms: every choice of a Literal option, both ends of a share."""
    found = []
    for name, options in [("ddim", {}), ("ddim", {"eta": 0.5}), ("ddim", {"eta": 1.0}), ("ddpm", {}), ("ddpm", {"variance": "large"}),
                          ("euler_sde", {}), ("pndm", {}), ("pndm", {"warmup": "plms"})]:
        found.append(pytest.param(REGISTRY.create("scheduler", name, **options), id=f"{name}-{options or 'default'}"))
    named = {p.values[0].component_name() for p in found}
    return found + [p for p in all_of("scheduler") if p.values[0].component_name() not in named]


@dataclass(frozen=True)
class UniformTo:
    """Equal steps between two times, to keep a schedule's singular ends out of a measurement of order."""

    start: float
    end: float

    def __call__(self, schedule, steps):
        return torch.linspace(self.start, self.end, steps + 1, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scheduler", configurations())
def test_converges_at_the_claimed_order(scheduler, schedule):
    """Gaussian data, the exact affine map: gain of a deterministic sampler, variance of a stochastic one."""
    data = GaussianData(schedule=schedule, std=0.5, mean=0.3)
    start, end = 0.95, 0.05
    errors = []
    for steps in (160, 320):
        found = affine_map(replace(scheduler, steps=steps), UniformTo(start, end), data)
        mean, variance = found.pushed(*data.marginal(start))
        exact_mean, exact_variance = data.marginal(end)
        exact_gain = data.flow(1.0, start, end) - data.flow(0.0, start, end)
        errors.append(max(abs(mean - exact_mean), abs(variance - exact_variance)) if scheduler.is_stochastic else abs(found.gain - exact_gain))
    slope = math.log2(errors[0] / errors[1])
    assert abs(slope - scheduler.order) < 0.15, f"errors {errors}, slope {slope:.3f}, claimed {scheduler.order}"


@pytest.mark.parametrize("spacing", all_of("spacing"))
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("scheduler", configurations())
def test_ends_clean(scheduler, steps, spacing):
    """Data that are one point: whatever noise is left in the result is the sampler's fault."""
    for schedule in (p.values[0] for p in SCHEDULES):
        made = replace(scheduler, steps=steps)
        if not is_accepted(made, schedule, spacing):
            continue
        found = affine_map(made, spacing, GaussianData(schedule=schedule, std=0.0, mean=0.3))
        mean, variance = found.pushed(0.0, 1.0)
        assert variance**0.5 < 1e-3 and abs(mean - 0.3) < 1e-3


@pytest.mark.parametrize("scheduler", configurations())
def test_counts_the_evaluations_it_claims(scheduler):
    schedule = SCHEDULES[0].values[0]
    for steps in (max(4, scheduler.min_steps), 20):
        made = replace(scheduler, steps=steps)
        drawn = diffbench.sample(GaussianData(schedule=schedule, std=0.5), schedule, made, torch.zeros(3, 1, 2, 2, dtype=torch.float64), spacing=UNIFORM)
        assert drawn.nfe == made.nfe(steps)


@pytest.mark.parametrize("scheduler", configurations())
def test_images_do_not_depend_on_the_batch(scheduler):
    schedule = SCHEDULES[0].values[0]
    made = replace(scheduler, steps=10)
    seeds = noise.sample_seeds(0, 0, 64)

    def draw(part):
        x_T = sampling.initial(schedule, UNIFORM, 10, part, (1, 4, 4))
        return diffbench.sample(GaussianData(schedule=schedule, std=0.5), schedule, made, x_T, spacing=UNIFORM, seeds=part).x_0
    whole = draw(seeds)
    for batch in (1, 7):
        parts = torch.cat([draw(seeds[i : i + batch]) for i in range(0, 64, batch)])
        assert (whole - parts).abs().max() < 1e-5


@pytest.mark.parametrize("scheduler", configurations())
def test_asks_for_noise_only_if_it_says_so_and_never_for_the_last_step(scheduler):
    schedule = SCHEDULES[0].values[0]
    asked = []

    def count(draw=0):
        asked.append(draw)
        return torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    made, data = replace(scheduler, steps=10), GaussianData(schedule=schedule, std=0.5)
    x, state = torch.ones(1, 1, 1, 1, dtype=torch.float64), made.init()
    times = UNIFORM(schedule, 10).tolist()
    for t, s in zip(times, times[1:], strict=False):
        before = len(asked)
        x, state = made.step(data, schedule, x, t, s, state, count)
        if s == 0:
            assert len(asked) == before
    assert bool(asked) == made.is_stochastic


@pytest.mark.parametrize("scheduler", configurations())
def test_every_parameterization_of_one_model_gives_the_same_sample(scheduler):
    """An exact model written as each network output; a scheduler that mixed raw outputs would tell them apart."""
    schedule = SCHEDULES[-1].values[0]
    data = GaussianData(schedule=schedule, std=0.5, mean=0.3)
    made = replace(scheduler, steps=20)
    x_T = noise.normal(range(5), (1, 2, 2), 0).double()
    spacing = REGISTRY.create("spacing", "uniform", start=0.98)

    def through(parameterization):
        def denoise(x_t, t) -> Prediction:
            level = schedule.at(t)
            exact = data(x_t, t)
            return parameterization.decode(parameterization.target(exact.x0, exact.eps, level), x_t, level)
        return diffbench.sample(denoise, schedule, made, x_T, spacing=spacing).x_0
    drawn = [through(p.values[0]) for p in all_of("parameterization")]
    for other in drawn[1:]:
        assert (drawn[0] - other).abs().max() < 1e-10


def test_the_wrong_sign_before_the_score_would_be_seen():
    """Euler-Maruyama must converge to the data's variance; with a minus before the score it diverges."""
    schedule = SCHEDULES[0].values[0]
    right = GaussianData(schedule=schedule, std=0.5)

    def wrong(x_t, t):
        exact = right(x_t, t)
        return Prediction(x0=exact.x0, eps=-exact.eps)
    scheduler = REGISTRY.create("scheduler", "euler_sde", steps=200)
    x_T = sampling.initial(schedule, UNIFORM, 200, range(500), (1, 2, 2)).double()
    stepped = list(diffbench.trajectory(wrong, schedule, scheduler, x_T, spacing=UNIFORM))[-2]
    assert stepped.std() > 100
    good = list(diffbench.trajectory(right, schedule, scheduler, x_T, spacing=UNIFORM))[-1]
    assert abs(float(good.std()) - 0.5) < 0.05


def test_large_variance_is_exact_for_unit_gaussians_and_small_for_a_point():
    schedule = SCHEDULES[0].values[0]
    for variance, std in (("large", 1.0), ("small", 0.0)):
        scheduler = REGISTRY.create("scheduler", "ddpm", steps=7, variance=variance)
        data = GaussianData(schedule=schedule, std=std, mean=0.4)
        for end in (0.3,):
            mean, spread = affine_map(scheduler, UniformTo(1.0, end), data).pushed(*data.marginal(1.0))
            exact_mean, exact_spread = data.marginal(end)
            assert abs(mean - exact_mean) < 1e-12 and abs(spread - exact_spread) < 1e-12


def test_pndm_refuses_what_its_weights_do_not_hold_for():
    with pytest.raises(diffbench.OptionError, match="steps must be at least 4"):
        REGISTRY.create("scheduler", "pndm", steps=3)
    assert REGISTRY.create("scheduler", "pndm", steps=3, warmup="plms").steps == 3


def is_accepted(scheduler, schedule, spacing) -> bool:
    """Whether a scheduler takes this grid: what the plan would skip is not tested."""
    class Point:
        pass
    point = Point()
    point.scheduler, point.noise_schedule, point.spacing = scheduler, schedule, spacing
    return scheduler.why_not(point) is None and spacing.why_not(point) is None
