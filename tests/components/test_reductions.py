"""Special cases in which one component equals another, exactly: a map of the field.

Each row of SCHEDULERS says: this scheduler, on this schedule and spacing, draws the same images as that one.
"""

from dataclasses import dataclass, replace

import pytest
import torch

import diffbench
from diffbench import Helpers, Level, Noised, Prediction
from diffbench.diffusion import noise, sampling
from diffbench.testing.oracles import GaussianData
from tests.conftest import REGISTRY

LINEAR = REGISTRY.create("noise_schedule", "linear")
COSINE = REGISTRY.create("noise_schedule", "cosine")
FLOW = REGISTRY.create("noise_schedule", "rectified_flow")
LINE = REGISTRY.create("noise_schedule", "edm", rho=1.0, sigma_max=20.0)      # sigma/alpha itself is a line in t
UNIFORM = REGISTRY.create("spacing", "uniform")
TRAILING = REGISTRY.create("spacing", "trailing")
SEEDS = noise.sample_seeds(7, 0, 6)
GAUSSIAN = REGISTRY.default("process")
HELPERS = Helpers(schedule=LINEAR)


@dataclass(frozen=True)
class Crooked:
    """A denoiser of no particular data: nonlinear, and consistent in x_0 and eps; `share` is its learned variance."""

    schedule: diffbench.NoiseSchedule
    share: float = 0.5

    def __call__(self, x_t, t):
        alpha, sigma = self.schedule.scales(t)
        x0 = torch.tanh(1.3 * x_t - 0.2) * 0.8
        return Prediction(x0=x0, eps=(x_t - alpha * x0) / sigma, variance=torch.full_like(x_t, self.share))


crooked = Crooked(LINEAR)


def draw(name, spacing=UNIFORM, denoise=crooked, schedule=LINEAR, **options):
    scheduler = REGISTRY.create("scheduler", name, **options)
    x_T = sampling.initial(schedule, spacing, scheduler.steps, SEEDS, (1, 3, 3)).double()
    return diffbench.sample(denoise, schedule, scheduler, x_T, spacing=spacing, seeds=SEEDS).x_0


def first_step(name, schedule=LINEAR, steps=20, **options):
    scheduler = REGISTRY.create("scheduler", name, steps=steps, **options)
    t, s = UNIFORM(schedule, steps)[:2].tolist()
    x_T = sampling.initial(schedule, UNIFORM, steps, SEEDS, (1, 3, 3)).double()
    return scheduler.step(Crooked(schedule), schedule, x_T, t, s, scheduler.init(), lambda draw=0: noise.normal(SEEDS, (1, 3, 3), draw).double())[0]


SCHEDULERS = [
    # this one, with these options             is that one, with these            on
    ("ddim", {"eta": 1.0}, "ddpm", {}, LINEAR),
    ("ddim", {"eta": 1.0}, "ddpm", {}, FLOW),
    ("deis", {"solver_order": 1}, "ddim", {}, LINEAR),
    ("deis", {"solver_order": 1, "variable": "t"}, "ddim", {}, FLOW),
    ("langevin_pc", {"corrector_steps": 0}, "euler_sde", {}, LINEAR),
    ("langevin_pc", {"corrector_steps": 0, "predictor": "ancestral"}, "ddpm", {}, LINEAR),
    ("euler_ode", {}, "ddim", {}, FLOW),
    ("euler_ode", {}, "ddim", {}, LINE),
    ("heun", {"variable": "t"}, "heun", {}, LINE),
    ("heun", {"s_churn": 10.0, "s_min": 1e5}, "heun", {}, LINEAR),
    ("deis", {"solver_order": 3, "variable": "t"}, "deis", {"solver_order": 3, "variable": "rho"}, LINE),
]


@pytest.mark.parametrize(("this", "options", "that", "others", "schedule"), SCHEDULERS)
def test_one_scheduler_is_another(this, options, that, others, schedule):
    mine, theirs = (draw(name, steps=20, schedule=schedule, denoise=Crooked(schedule), **chosen) for name, chosen in ((this, options), (that, others)))
    assert (mine - theirs).abs().max() < 1e-10


@pytest.mark.parametrize(("this", "options", "that", "others"), [row[:4] for row in SCHEDULERS if row[0] != row[2] and row[4] is LINEAR])
def test_the_plan_knows(this, options, that, others):
    """Where it holds on every schedule and spacing, equal cells run once."""
    assert REGISTRY.create("scheduler", this, steps=20, **options).equal_to() == REGISTRY.create("scheduler", that, steps=20, **others)


@pytest.mark.parametrize(("this", "options", "that", "others"), [
    ("dpm_solver_pp", {}, "ddim", {}),
    ("dpm_solver_pp", {"variant": "2m_sde"}, "ddpm", {}),
    ("unipc", {"solver_order": 3}, "ddim", {}),
    ("unipc", {"b": "bh1"}, "ddim", {}),
    ("deis", {"solver_order": 4}, "ddim", {}),
])
def test_a_multistep_scheduler_starts_as_a_single_step(this, options, that, others):
    assert (first_step(this, **options) - first_step(that, **others)).abs().max() < 1e-12


@pytest.mark.parametrize("name", ["ddpm", "ddim", "euler_sde", "euler_ode", "heun", "deis", "dpm_solver_pp", "unipc"])
def test_one_step_is_the_denoiser(name):
    x_T = sampling.initial(LINEAR, UNIFORM, 1, SEEDS, (1, 3, 3)).double()
    assert (draw(name, steps=1) - crooked(x_T, 1.0).x0).abs().max() < 1e-10


@pytest.mark.parametrize(("share", "variance"), [(0.0, "small"), (1.0, "large")])
def test_a_learned_variance_at_its_bounds_is_a_fixed_one(share, variance):
    learned = draw("ddpm", steps=20, variance="learned", denoise=Crooked(LINEAR, share))
    assert (learned - draw("ddpm", steps=20, variance=variance)).abs().max() < 1e-10


def test_ddim_is_euler_in_sigma_over_alpha():
    """d(x/alpha) = eps d(sigma/alpha): the probability flow in its own variables, stepped by Euler."""
    x = sampling.initial(LINEAR, UNIFORM, 20, SEEDS, (1, 3, 3)).double()
    times = UNIFORM(LINEAR, 20).tolist()
    for t, s in zip(times, times[1:], strict=False):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = LINEAR.scales(t), LINEAR.scales(s)
        x = alpha_s * (x / alpha_t + (sigma_s / alpha_s - sigma_t / alpha_t) * crooked(x, t).eps)
    assert (draw("ddim", steps=20) - x).abs().max() < 1e-12


def test_ddim_is_exact_in_one_step_for_a_point():
    point = GaussianData(schedule=LINEAR, std=0.0, mean=0.25)
    assert (draw("ddim", steps=1, denoise=point) - 0.25).abs().max() < 1e-12


def constant_eps(x_t, t):
    alpha, sigma = LINEAR.scales(t)
    return Prediction(x0=(x_t - sigma * 0.4) / alpha, eps=torch.full_like(x_t, 0.4))


@pytest.mark.parametrize(("name", "options"), [("pndm", {}), ("pndm", {"warmup": "plms"}), ("deis", {"solver_order": 3}), ("heun", {})])
def test_on_constant_eps_every_solver_of_the_flow_is_ddim(name, options):
    assert (draw(name, steps=10, denoise=constant_eps, **options) - draw("ddim", steps=10, denoise=constant_eps)).abs().max() < 1e-9


def constant_x0(x_t, t):
    alpha, sigma = LINEAR.scales(t)
    return Prediction(x0=torch.full_like(x_t, 0.4), eps=(x_t - alpha * 0.4) / sigma)


@pytest.mark.parametrize(("name", "options"), [("dpm_solver_pp", {}), ("dpm_solver_pp", {"variant": "2s"}), ("unipc", {}), ("unipc", {"solver_order": 3})])
def test_on_constant_x0_every_data_solver_is_ddim(name, options):
    """Compared before the last step, which is x0_hat for all of them."""
    spacing = REGISTRY.create("spacing", "karras")
    x_T = sampling.initial(LINEAR, spacing, 10, SEEDS, (1, 3, 3)).double()
    states = [list(diffbench.trajectory(constant_x0, LINEAR, REGISTRY.create("scheduler", n, steps=10, **o), x_T, spacing=spacing, seeds=SEEDS))[-2]
              for n, o in ((name, options), ("ddim", {}))]
    assert (states[0] - states[1]).abs().max() < 1e-12


def test_deis_with_equal_steps_has_the_weights_of_pndm():
    """Adams-Bashforth of order 4, (55, -59, 37, -9)/24, where sigma/alpha is a line in t."""
    from diffbench_components.schedulers.deis import _integrals
    from diffbench_components.schedulers.pndm import ADAMS_BASHFORTH

    times, s = (0.8, 0.85, 0.9, 0.95), 0.75
    h = LINE.nsr(s) - LINE.nsr(0.8)
    found = [w / h for w in _integrals(LINE, "rho", times, s)]
    assert found == pytest.approx(ADAMS_BASHFORTH[4][1:], rel=1e-9)


def test_the_first_step_of_plms_is_heun():
    x = sampling.initial(LINEAR, UNIFORM, 10, SEEDS, (1, 3, 3)).double()
    t, s = UNIFORM(LINEAR, 10)[:2].tolist()
    plms, heun = (REGISTRY.create("scheduler", *name, steps=10, **options) for name, options in ((("pndm",), {"warmup": "plms"}), (("heun",), {})))
    stepped = [scheduler.step(crooked, LINEAR, x, t, s, scheduler.init(), lambda draw=0: None)[0] for scheduler in (plms, heun)]
    assert (stepped[0] - stepped[1]).abs().max() < 1e-11


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50, 100, 1000])
def test_trailing_is_uniform_where_the_stride_is_whole(steps):
    assert (TRAILING(LINEAR, steps) - UNIFORM(LINEAR, steps)).abs().max() < 1e-12


def test_leading_of_every_grid_point_is_uniform():
    assert (REGISTRY.create("spacing", "leading")(LINEAR, 1000) - UNIFORM(LINEAR, 1000)).abs().max() < 1e-12


@pytest.mark.parametrize("schedule", [LINEAR, COSINE, FLOW])
def test_karras_with_a_huge_rho_is_log_snr(schedule):
    karras, log_snr = REGISTRY.create("spacing", "karras", rho=1e7), REGISTRY.create("spacing", "log_snr")
    assert (karras(schedule, 20) - log_snr(schedule, 20)).abs().max() < 1e-6


def test_karras_on_edm_is_uniform_but_for_its_last_step():
    edm = REGISTRY.create("noise_schedule", "edm")
    assert (REGISTRY.create("spacing", "karras")(edm, 20)[:-1] - torch.linspace(1, 1e-3, 20, dtype=torch.float64)).abs().max() < 1e-12


def test_every_schedule_on_beta_with_equal_ends_is_constant():
    t = torch.linspace(0.001, 1, 100, dtype=torch.float64)
    constant = REGISTRY.create("noise_schedule", "constant", beta=0.013)
    for name in ("linear", "scaled_linear", "quadratic", "sigmoid", "exponential"):
        same = REGISTRY.create("noise_schedule", name, beta_start=0.013, beta_end=0.013)
        assert torch.allclose(same.alpha(t), constant.alpha(t), rtol=1e-10), name


def test_linear_with_many_steps_is_vp():
    """The product of (1 - beta_i) tends to the exponential of the integral of beta."""
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    vp = REGISTRY.create("noise_schedule", "vp")
    gaps = [float((replace(LINEAR, timesteps=n).alpha(t).log() - vp.alpha(t).log()).abs().max()) for n in (1000, 10_000, 100_000)]
    assert gaps[0] / gaps[1] == pytest.approx(10, rel=0.1) and gaps[1] / gaps[2] == pytest.approx(10, rel=0.1)


X_0, EPS = torch.randn(2, 4, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
T = torch.tensor([0.05, 0.4, 0.7, 0.95], dtype=torch.float64)


def levels(schedule):
    return Level(*(part[:, None, None, None] for part in schedule.level(T)))


def target(name, schedule):
    return REGISTRY.create("parameterization", name).target(X_0, EPS, levels(schedule))


def test_score_is_epsilon_by_the_noise():
    assert torch.allclose(target("score", LINEAR), -target("epsilon", LINEAR) / levels(LINEAR).sigma)


def test_velocity_on_a_straight_flow_is_noise_minus_data():
    assert torch.allclose(target("velocity", FLOW), target("epsilon", FLOW) - target("x0", FLOW))


@pytest.mark.parametrize("schedule", [LINEAR, COSINE])
def test_velocity_on_a_variance_preserving_schedule_is_v_by_the_speed_of_the_angle(schedule):
    level = levels(schedule)
    speed = level.alpha * level.d_sigma - level.sigma * level.d_alpha
    assert torch.allclose(target("velocity", schedule), speed * target("v", schedule))


def test_edm_with_unit_data_is_minus_v_where_variance_is_preserved():
    """sigma_data = 1 and alpha² + sigma² = 1: F = sigma x_0 - alpha eps."""
    unit = REGISTRY.create("parameterization", "edm", sigma_data=1.0)
    assert torch.allclose(unit.target(X_0, EPS, levels(LINEAR)), -target("v", LINEAR))


OBJECTIVES = [
    (("mse", {"weighting": "snr"}), ("mse", {}), "epsilon"),
    (("mse", {"weighting": "edm"}), ("mse", {}), "edm"),
    (("mse", {"weighting": "min_snr", "min_snr_gamma": 1e12}), ("mse", {"weighting": "snr"}), "v"),
    (("mse", {"weighting": "p2", "p2_gamma": 1e-12}), ("mse", {"weighting": "snr"}), "v"),
    (("huber", {"delta": 1e6}), ("mse", {}), "epsilon"),
]


@pytest.mark.parametrize(("this", "that", "name"), OBJECTIVES)
def test_one_objective_is_another(this, that, name):
    level, parameterization = levels(LINEAR), REGISTRY.create("parameterization", name)
    noised = Noised(X_0, EPS, level.alpha * X_0 + level.sigma * EPS, level)
    out = parameterization.target(X_0, EPS, level) + 0.1 * EPS
    losses = [REGISTRY.create("objective", n, **options).loss(out, noised, LINEAR, parameterization) for n, options in (this, that)]
    assert torch.allclose(losses[0], losses[1], rtol=1e-8)
