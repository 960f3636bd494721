"""Schedulers against closed forms of their own; order, clean end, evaluations and batches are in `test_conformance.py`."""

import math
from dataclasses import replace

import pytest
import torch

import diffbench
from diffbench import Prediction
from diffbench.contracts.settings import Sample
from diffbench.diffusion import sampling
from diffbench.testing.oracles import GaussianData, MixtureData, NotAffine, affine_map, distance
from diffbench.testing.stand_ins import Between, all_examples, cell_with
from tests.conftest import REGISTRY

LINEAR = REGISTRY.create("noise_schedule", "linear")
EDM = REGISTRY.create("noise_schedule", "edm")
FLOW = REGISTRY.create("noise_schedule", "rectified_flow")
COSINE = REGISTRY.create("noise_schedule", "cosine")
KARRAS = REGISTRY.create("spacing", "karras")
UNCLIPPED = Sample(count=2, clip=False)
UNIFORM = REGISTRY.create("spacing", "uniform")


def create(name, **options):
    return REGISTRY.create("scheduler", name, **options)


def test_the_wrong_sign_before_the_score_would_be_seen():
    """Euler-Maruyama must converge to the data's variance; with a minus before the score it diverges."""
    right = GaussianData(schedule=LINEAR, std=0.5)

    def wrong(x_t, t):
        exact = right(x_t, t)
        return Prediction(x0=exact.x0, eps=-exact.eps)
    scheduler = create("euler_sde", steps=200)
    x_T = sampling.initial(LINEAR, UNIFORM, 200, range(500), (1, 2, 2)).double()
    stepped = list(diffbench.trajectory(wrong, LINEAR, scheduler, x_T, spacing=UNIFORM))[-2]
    assert stepped.std() > 100
    good = list(diffbench.trajectory(right, LINEAR, scheduler, x_T, spacing=UNIFORM))[-1]
    assert abs(float(good.std()) - 0.5) < 0.05


@pytest.mark.parametrize(("variance", "std"), [("large", 1.0), ("small", 0.0)])
def test_ddpm_variances_are_exact_where_they_should_be(variance, std):
    """Large for N(m, 1) under a VP schedule, small for a point; the other way round they miss."""
    data = GaussianData(schedule=LINEAR, std=std, mean=0.4)
    for chosen in ("large", "small"):
        mean, spread = affine_map(create("ddpm", steps=7, variance=chosen), Between(start=1.0, end=0.3, equal=True), data).pushed(*data.marginal(1.0))
        exact_mean, exact_spread = data.marginal(0.3)
        assert abs(mean - exact_mean) < 1e-12
        assert (abs(spread - exact_spread) < 1e-12) == (chosen == variance)


@pytest.mark.parametrize("std", [0.4, 1.7])
@pytest.mark.parametrize("scheduler", [{"ddpm": {"steps": 20}}, {"ddim": {"steps": 20, "eta": 0.5}}, {"euler_sde": {"steps": 40}}])
def test_a_carried_density_of_one_gaussian_is_that_of_its_moments(scheduler, std):
    """W1 of two Gaussians of one mean is |std - std'| sqrt(2/pi)."""
    ((name, options),) = scheduler.items()
    made, spacing = create(name, **options), Between(even=True, end=0.15)
    data = GaussianData(schedule=COSINE, std=std)
    _, reached = affine_map(made, spacing, data).pushed(*data.marginal(spacing.start))
    expected = abs(math.sqrt(reached) - math.sqrt(data.marginal(spacing.end)[1])) * math.sqrt(2 / math.pi)
    assert distance(made, spacing, MixtureData(schedule=COSINE, means=(0.0,), weights=(1.0,), std=std)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("scheduler", "said"), [("dpm_solver_pp", "keeps a state"), ("heun", "asks the network after"), ("langevin_pc", "more than once")])
def test_a_density_that_no_kernel_moves_is_not_carried(scheduler, said):
    options = {"dpm_solver_pp": {"variant": "2m_sde"}, "heun": {"s_churn": 10}}.get(scheduler, {})
    with pytest.raises(NotAffine, match=said):
        distance(create(scheduler, **options), Between(even=True, end=0.15), MixtureData(schedule=COSINE))


def test_the_flow_of_unit_gaussians_is_the_identity():
    """Under a VP schedule N(0, 1) stays what it is: a solver's gain is its error, and DDIM's is 0.77 in ten steps."""
    data = GaussianData(schedule=LINEAR, std=1.0)
    gains = {name: affine_map(create(name, steps=10), UNIFORM, data).gain for name in ("ddim", "heun", "dpm_solver_pp", "unipc")}
    assert 0.6 < gains["ddim"] < 0.9
    assert all(abs(1 - gain) < abs(1 - gains["ddim"]) for name, gain in gains.items() if name != "ddim"), gains


@pytest.mark.parametrize("snr", [0.1, 0.2])
@pytest.mark.parametrize("schedule", all_examples(REGISTRY, "noise_schedule"), ids=lambda s: s.component_name() + "*" * getattr(s, "zero_terminal_snr", False))
def test_langevin_has_its_stationary_variance(schedule, snr):
    """At one level, N(0, v): x' = (1 - e/v) x + sqrt(2 e) z has the stationary variance v/(1 - e/(2 v)), not v."""
    t = schedule.time_of(1.0)
    data = GaussianData(schedule=schedule, std=0.5)
    _, v = data.marginal(t)
    e = 2 * (snr * schedule.at(t).sigma) ** 2
    scheduler = create("langevin_pc", steps=1, corrector_steps=1, snr=snr)
    one = torch.tensor([[[[0.0]]], [[[1.0]]], [[[0.0]]]], dtype=torch.float64)
    pulse = torch.tensor([[[[0.0]]], [[[0.0]]], [[[1.0]]]], dtype=torch.float64)
    shift, moved, noised = scheduler._corrected(data, schedule, one, t, pulse).flatten().tolist()
    gain, added = moved - shift, (noised - shift) ** 2
    assert added / (1 - gain**2) == pytest.approx(v / (1 - e / (2 * v)), rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["ve", "linear", "cosine", "rectified_flow"])
@pytest.mark.parametrize("step_size", ["marginal", "norm"])
def test_annealed_langevin_finds_the_data(step_size, schedule):
    """Corrector only, from pure noise: 40 levels of 30 steps bring N(0.3, 0.5²) back within the rule's bias, on every kind of schedule."""
    schedule, spacing = REGISTRY.create("noise_schedule", schedule), REGISTRY.create("spacing", "log_snr", nsr_max=40.0)
    scheduler = create("langevin_pc", steps=40, corrector_steps=30, predictor="none", snr=0.2, step_size=step_size)
    x_T = sampling.initial(schedule, spacing, 40, range(64), (1, 16, 16))
    drawn = diffbench.sample(GaussianData(schedule=schedule, std=0.5, mean=0.3), schedule, scheduler, x_T, spacing=spacing, seeds=range(64))
    assert drawn.nfe == 40 * 30 + 1
    assert abs(float(drawn.x_0.mean()) - 0.3) < 0.05 and abs(float(drawn.x_0.std()) - 0.5) < 0.05


def test_a_corrector_mends_what_a_coarse_predictor_breaks():
    """Ten Euler-Maruyama steps end with the wrong spread; Langevin steps at each level bring it nearer to the truth."""
    data = GaussianData(schedule=LINEAR, std=0.5)
    spread = {n: affine_map(create("langevin_pc", steps=30, corrector_steps=n), Between(equal=True), data).pushed(*data.marginal(0.95))[1] for n in (0, 1, 4)}
    exact = data.marginal(0.05)[1]
    assert abs(spread[4] - exact) < abs(spread[1] - exact) < abs(spread[0] - exact)


def test_churn_never_leaves_the_schedule_and_stays_off_outside_its_range():
    scheduler = create("heun", steps=5, s_churn=100.0)
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert scheduler._churned(EDM, x, 1.0, lambda draw=0: x)[1] == 1.0
    raised, t_hat = scheduler._churned(EDM, x, 0.5, lambda draw=0: x)
    assert EDM.nsr(t_hat) == pytest.approx(math.sqrt(2) * EDM.nsr(0.5)) and float(raised) == pytest.approx(1 + EDM.nsr(0.5))
    assert replace(scheduler, s_min=1e3)._churned(EDM, x, 0.5, lambda draw=0: x)[1] == 0.5


def test_temperature_scales_the_injected_noise_only():
    """At 0 a stochastic scheduler is its own mean; a deterministic one does not change; x_T is left as it is."""
    data = GaussianData(schedule=LINEAR, std=0.5)
    x_T = sampling.initial(LINEAR, UNIFORM, 20, range(4), (1, 3, 3)).double()

    def draw(name, temperature):
        return diffbench.sample(data, LINEAR, create(name, steps=20), x_T, spacing=UNIFORM, temperature=temperature).x_0
    none, half, full = (draw("ddpm", temperature) for temperature in (0.0, 0.5, 1.0))
    assert torch.allclose(half, (none + full) / 2) and not torch.allclose(none, full)
    assert torch.equal(draw("ddim", 0.0), draw("ddim", 1.0))


@pytest.mark.parametrize(("name", "options", "said"), [
    ("ddim", {"eta": -0.5}, r"eta must be a number in \[0.*, 1.*\], got -0.5"),
    ("pndm", {"steps": 3}, "steps must be at least 4 with warmup 'prk'"),
    ("deis", {"solver_order": 5}, r"solver_order must be an integer in \[1, 4\], got 5"),
    ("unipc", {"b": "bh3"}, "b must be one of 'bh1', 'bh2', got 'bh3'"),
    ("heun", {"steps": 0}, "steps must be an integer >= 1, got 0"),
    ("langevin_pc", {"snr": 0.0}, "snr must be a number > 0, got 0.0"),
    ("langevin_pc", {"predictor": "none", "corrector_steps": 0}, "corrector_steps must be at least 1 with predictor 'none'"),
    ("heun", {"s_min": 2.0, "s_max": 1.0}, "s_max must not be below s_min, got 1.0 and 2.0"),
])
def test_nonsense_is_refused(name, options, said):
    with pytest.raises(diffbench.OptionError, match=said):
        create(name, **options)


def test_plms_takes_two_steps():
    assert create("pndm", steps=3, warmup="plms").steps == 3


@pytest.mark.parametrize(
    ("scheduler", "parts", "said"),
    [
        (
            create("pndm"),
            {"spacing": REGISTRY.create("spacing", "karras")},
            "hold for equal steps, and karras spacing with 50 steps has steps of",
        ),
        (create("pndm"), {"noise_schedule": FLOW}, "pndm cannot start at zero terminal SNR"),
        (create("heun"), {"noise_schedule": FLOW}, "heun cannot start at zero terminal SNR"),
        (
            create("pndm"),
            {"noise_schedule": COSINE},
            "pndm would multiply errors by 632 in its first step, as alpha rises from 4.9e-05 to 0.031",
        ),
        (create("heun"), {"noise_schedule": COSINE}, "heun would multiply errors by"),
        (create("heun", variable="t"), {}, "those of linear jump at its grid points"),
        (create("euler_sde"), {"noise_schedule": FLOW}, "euler_sde cannot start at zero terminal SNR"),
        (
            create("langevin_pc"),
            {"noise_schedule": FLOW},
            "langevin_pc cannot start at zero terminal SNR with predictor 'euler_maruyama'",
        ),
        (create("dpm_solver_pp", variant="2s"), {"noise_schedule": FLOW}, "2s cannot start at zero terminal SNR"),
        (
            create("euler_sde", steps=50),
            {"noise_schedule": COSINE, "sample": UNCLIPPED},
            "on uniform spacing of cosine would take images to 69.1 times",
        ),
        (create("langevin_pc", steps=50), {"noise_schedule": COSINE, "sample": UNCLIPPED}, "or 'sample: {clip: true}'"),
        (
            create("euler_sde", steps=7),
            {"noise_schedule": EDM, "spacing": KARRAS},
            "would end at 579 times the spread of the data: its steps are too long",
        ),
        (create("euler_ode", steps=20), {"noise_schedule": EDM}, "would lose the spread of the data: it keeps"),
        (
            create("heun", variable="t", steps=7),
            {"noise_schedule": EDM},
            "heun in t with 7 steps on uniform spacing of edm would end at",
        ),
        (
            create("ddpm", variance="large", steps=2),
            {"noise_schedule": EDM},
            "ddpm with the large variance with 2 steps",
        ),
        (create("langevin_pc", predictor="none", steps=50), {}, "use more steps, more corrector_steps or a predictor"),
        (
            create("langevin_pc", predictor="none", steps=50),
            {"noise_schedule": COSINE},
            "would end at 7.15e+03 times the spread of the data",
        ),
        (
            create("langevin_pc", predictor="none", corrector_steps=5, steps=20, step_size="norm"),
            {"noise_schedule": COSINE},
            "times the spread of the data",
        ),
        (
            create("ddpm", variance="learned"),
            {},
            "learned variance is trained by hybrid or vlb, and the objective is mse",
        ),
    ],
)
def test_impossible_pairs_have_a_reason(scheduler, parts, said):
    assert said in scheduler.why_not(cell_with(REGISTRY, scheduler=scheduler, **parts))


def test_a_learned_variance_must_be_predicted():
    with pytest.raises(ValueError, match="learned variance needs a denoiser that predicts it"):
        create("ddpm", variance="learned", steps=2).step(lambda x, t: Prediction(x0=x, eps=x), LINEAR, torch.ones(1, 1, 1, 1), 1.0, 0.5, None, None)
