"""Special cases in which one component equals another, exactly: a map of the field."""

from dataclasses import replace

import pytest
import torch

import diffbench
from diffbench import Helpers, Level, Prediction, noise, sampling
from diffbench.denoiser import clipped
from diffbench.testing.oracles import GaussianData
from tests.conftest import REGISTRY

LINEAR = REGISTRY.create("noise_schedule", "linear")
COSINE = REGISTRY.create("noise_schedule", "cosine")
UNIFORM = REGISTRY.create("spacing", "uniform")
TRAILING = REGISTRY.create("spacing", "trailing")
SEEDS = noise.sample_seeds(7, 0, 6)
HELPERS = Helpers(schedule=LINEAR)


def crooked(x_t, t):
    """A denoiser of no particular data: nonlinear, and consistent in x_0 and eps."""
    alpha, sigma = LINEAR.scales(t)
    x0 = torch.tanh(1.3 * x_t - 0.2) * 0.8
    return Prediction(x0=x0, eps=(x_t - alpha * x0) / sigma)


def draw(name, spacing=UNIFORM, denoise=crooked, **options):
    scheduler = REGISTRY.create("scheduler", name, **options)
    x_T = sampling.initial(LINEAR, spacing, scheduler.steps, SEEDS, (1, 3, 3)).double()
    return diffbench.sample(denoise, LINEAR, scheduler, x_T, spacing=spacing, seeds=SEEDS).x_0


def test_ddim_at_eta_1_is_ddpm_with_the_small_variance():
    assert (draw("ddim", steps=20, eta=1.0) - draw("ddpm", steps=20)).abs().max() < 1e-12
    assert REGISTRY.create("scheduler", "ddim", steps=20, eta=1.0).equal_to() == REGISTRY.create("scheduler", "ddpm", steps=20)


def test_ddim_is_euler_in_sigma_over_alpha():
    """d(x/alpha) = eps d(sigma/alpha): the probability flow in its own variables, stepped by Euler."""
    scheduler = REGISTRY.create("scheduler", "ddim", steps=20)
    x = sampling.initial(LINEAR, UNIFORM, 20, SEEDS, (1, 3, 3)).double()
    times = UNIFORM(LINEAR, 20).tolist()
    for t, s in zip(times, times[1:], strict=False):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = LINEAR.scales(t), LINEAR.scales(s)
        x = alpha_s * (x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * crooked(x, t).eps)
    assert (draw("ddim", steps=scheduler.steps) - x).abs().max() < 1e-12


def test_ddim_is_exact_in_one_step_for_a_point():
    point = GaussianData(schedule=LINEAR, std=0.0, mean=0.25)
    assert (draw("ddim", steps=1, denoise=point) - 0.25).abs().max() < 1e-12


def test_one_step_of_ddpm_ddim_and_euler_sde_is_the_denoiser():
    x_T = sampling.initial(LINEAR, UNIFORM, 1, SEEDS, (1, 3, 3)).double()
    for name in ("ddpm", "ddim", "euler_sde"):
        assert (draw(name, steps=1) - crooked(x_T, 1.0).x0).abs().max() < 1e-10


def test_pndm_on_constant_eps_is_ddim():
    """Every set of Adams-Bashforth weights sums to 1, so a constant eps is moved by DDIM's map."""
    def constant(x_t, t):
        alpha, sigma = LINEAR.scales(t)
        return Prediction(x0=(x_t - sigma * 0.4) / alpha, eps=torch.full_like(x_t, 0.4))
    for warmup in ("prk", "plms"):
        assert (draw("pndm", steps=10, denoise=constant, warmup=warmup) - draw("ddim", steps=10, denoise=constant)).abs().max() < 1e-9


def test_two_steps_of_plms_start_with_heun():
    """The first PLMS step is Heun's method in sigma/alpha, up to the point its second evaluation is made at."""
    scheduler = REGISTRY.create("scheduler", "pndm", steps=10, warmup="plms")
    x = sampling.initial(LINEAR, UNIFORM, 10, SEEDS, (1, 3, 3)).double()
    t, s = UNIFORM(LINEAR, 10)[:2].tolist()
    stepped, _ = scheduler.step(crooked, LINEAR, x, t, s, scheduler.init(), lambda draw=0: None)
    (alpha_t, sigma_t), (alpha_s, sigma_s) = LINEAR.scales(t), LINEAR.scales(s)
    change = sigma_s / alpha_s - sigma_t / alpha_t
    slope = crooked(x, t).eps
    euler = alpha_s * (x / alpha_t + change * slope)
    heun = alpha_s * (x / alpha_t + change * (slope + crooked(euler, s).eps) / 2)
    assert (stepped - heun).abs().max() < 1e-11


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 100, 1000])
def test_trailing_is_uniform_where_the_stride_is_whole(steps):
    assert (TRAILING(LINEAR, steps) - UNIFORM(LINEAR, steps)).abs().max() < 1e-12


def test_leading_of_every_grid_point_is_uniform():
    leading = REGISTRY.create("spacing", "leading")
    assert (leading(LINEAR, 1000) - UNIFORM(LINEAR, 1000)).abs().max() < 1e-12


def test_epsilon_and_v_meet_where_x_0_is_zero():
    """v = alpha eps - sigma x_0: for x_0 = 0 it is alpha times the noise."""
    level = Level(0.5, 0.6, 0.8, 0.0, 0.0)
    eps = torch.ones(1, 1, 2, 2)
    epsilon, v = REGISTRY.create("parameterization", "epsilon"), REGISTRY.create("parameterization", "v")
    assert torch.allclose(v.target(0 * eps, eps, level), level.alpha * epsilon.target(0 * eps, eps, level))


def fake_network(calls):
    """A network under a condition whose null prediction differs from the conditional one; it notes the rows it is sent."""
    def denoise(x_t, t, cond, drop):
        calls.append(len(x_t))
        shift = torch.where(drop, -0.3, 0.1 * cond.double())[:, None, None, None]
        x0 = torch.tanh(x_t) + shift
        alpha, sigma = LINEAR.scales(t)
        return Prediction(x0=x0, eps=(x_t - alpha * x0) / sigma)
    return denoise


COND = torch.tensor([0, 1, 2, 0, 1, 2])
X_T = noise.normal(SEEDS, (1, 3, 3), 0).double()


def guided(scale):
    calls = []
    cfg = REGISTRY.create("conditioning", "cfg", inner=REGISTRY.create("conditioning", "film"), scale=scale)
    return cfg.guide(fake_network(calls), COND, HELPERS)(X_T, 0.5), calls


def test_cfg_at_1_is_its_inner_and_one_pass():
    drawn, calls = guided(1.0)
    plain = REGISTRY.create("conditioning", "film").guide(fake_network([]), COND, HELPERS)(X_T, 0.5)
    assert torch.equal(drawn.x0, plain.x0) and torch.equal(drawn.eps, plain.eps) and calls == [6]


def test_cfg_at_0_is_unconditional_and_one_pass():
    drawn, calls = guided(0.0)
    null = fake_network([])(X_T, 0.5, COND, torch.ones(6, dtype=torch.bool))
    assert torch.equal(drawn.x0, null.x0) and calls == [6]


def test_cfg_is_linear_in_its_scale_and_one_doubled_batch():
    (zero, _), (one, _), (three, calls) = guided(0.0), guided(1.0), guided(3.0)
    assert calls == [12]
    for part in ("x0", "eps"):
        at_0, at_1, at_3 = getattr(zero, part), getattr(one, part), getattr(three, part)
        assert (at_3 - (at_0 + 3 * (at_1 - at_0))).abs().max() < 1e-12


def test_guiding_x_0_is_guiding_eps():
    three, _ = guided(3.0)
    alpha, sigma = LINEAR.scales(0.5)
    assert (alpha * three.x0 + sigma * three.eps - X_T).abs().max() < 1e-12


def test_clipping_changes_nothing_inside_the_range():
    inside = clipped(crooked, LINEAR)(X_T, 0.5)
    assert (inside.x0 - crooked(X_T, 0.5).x0).abs().max() < 1e-12 and (inside.eps - crooked(X_T, 0.5).eps).abs().max() < 1e-12


def test_clipping_re_derives_eps():
    def outside(x_t, t):
        return Prediction(x0=x_t * 5, eps=torch.zeros_like(x_t))
    clipped_prediction = clipped(outside, LINEAR)(X_T, 0.5)
    alpha, sigma = LINEAR.scales(0.5)
    assert clipped_prediction.x0.abs().max() <= 1
    assert (alpha * clipped_prediction.x0 + sigma * clipped_prediction.eps - X_T).abs().max() < 1e-12


def test_a_schedule_sampled_at_its_grid_is_the_table():
    made = replace(COSINE, timesteps=10)
    assert [made.at(i / 10).alpha ** 2 for i in range(1, 11)] == pytest.approx(made.alpha_bar().tolist(), abs=1e-12)
