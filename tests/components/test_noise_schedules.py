"""Noise schedules against the published tables and formulas; that each is a schedule at all is in `test_conformance.py`."""

import math
from functools import reduce

import pytest
import torch

from diffbench import OptionError
from diffbench.testing.stand_ins import all_examples
from tests.conftest import REGISTRY

GRID = torch.arange(1, 1001, dtype=torch.float64) / 1000


def create(name, **options):
    return REGISTRY.create("noise_schedule", name, **options)


def product(betas):
    """alpha_bar by the definition, in Python floats."""
    return reduce(lambda table, beta: [*table, (table[-1] if table else 1.0) * (1 - beta)], betas, [])


def cosine_betas():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return [min(1 - f((i + 1) / 1000) / f(i / 1000), 0.999) for i in range(1000)]


def line(first, last):
    return [first + (last - first) * i / 999 for i in range(1000)]


PUBLISHED = {
    "linear": line(1e-4, 0.02),
    "scaled_linear": [r * r for r in line(math.sqrt(8.5e-4), math.sqrt(0.012))],
    "quadratic": [1e-4 + (0.02 - 1e-4) * (i / 1000) ** 2 for i in range(1, 1001)],
    "sigmoid": [1e-4 + (0.02 - 1e-4) / (1 + math.exp(-x)) for x in line(-6.0, 6.0)],
    "exponential": [1e-4 * (0.02 / 1e-4) ** (i / 999) for i in range(1000)],
    "constant": [0.01] * 1000,
    "cosine": cosine_betas(),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_grid_is_the_published_table(name):
    table = torch.tensor(product(PUBLISHED[name]), dtype=torch.float64)
    assert (create(name).alpha(GRID) ** 2 - table).abs().max() < 1e-12


def test_every_table_is_compared():
    assert set(PUBLISHED) == {s.component_name() for s in all_examples(REGISTRY, "noise_schedule") if s.grid}


TERMINAL = {"linear": 4.04e-5, "scaled_linear": 4.66e-3, "constant": 4.32e-5, "sigmoid": 3.97e-5, "exponential": 2.28e-2, "cosine": 2.43e-9, "quadratic": 1.13e-3}


@pytest.mark.parametrize(("name", "alpha_bar"), TERMINAL.items(), ids=TERMINAL)
def test_terminal_signal(name, alpha_bar):
    assert create(name).at(1.0).alpha ** 2 == pytest.approx(alpha_bar, rel=5e-3)


@pytest.mark.parametrize("timesteps", [50, 100, 1000, 4000])
def test_linear_ends_near_zero_for_every_length(timesteps):
    assert create("linear", timesteps=timesteps).at(1.0).alpha ** 2 < 1e-4


@pytest.mark.parametrize("name", PUBLISHED)
def test_zero_terminal_snr_is_algorithm_1(name):
    """Shifted so that the last root is 0, scaled so that the first is what it was."""
    root = torch.tensor(product(PUBLISHED[name]), dtype=torch.float64).sqrt()
    rescaled = (root - root[-1]) * root[0] / (root[0] - root[-1])
    schedule = create(name, zero_terminal_snr=True)
    assert (schedule.alpha(GRID) - rescaled).abs().max() < 1e-12
    assert schedule.scales(1.0) == (0.0, 1.0) and schedule.nsr(1.0) == math.inf


def test_vp_is_the_integral():
    """log alpha = -1/2 int beta/2 ..., by quadrature; and where the discrete product and the integral differ."""
    vp = create("vp")
    s = torch.linspace(0, 0.7, 100_001, dtype=torch.float64)
    integral = float(torch.trapezoid(0.1 + 19.9 * s, s))
    assert vp.at(0.7).alpha == pytest.approx(math.exp(-integral / 2), rel=1e-9)
    assert vp.at(1.0).alpha ** 2 == pytest.approx(4.32e-5, rel=2e-3)
    assert vp.rates(0.7)[0] == pytest.approx(-(0.1 + 19.9 * 0.7) / 2) and vp.rates(0.7)[1] == pytest.approx(0.1 + 19.9 * 0.7)


def test_ve_is_geometric_but_for_its_first_level():
    ve, t = create("ve"), torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose((ve.sigma(t) ** 2 + 0.01**2).sqrt(), 0.01 * 5000.0**t, rtol=1e-12)
    assert (ve.sigma(torch.tensor(0.24)) / (0.01 * 5000**0.24) - 1).abs() < 0.01        # what the docstring says


@pytest.mark.parametrize("steps", [5, 18, 40])
def test_edm_is_the_papers_grid(steps):
    """Its time steps, eq. 5, from karras spacing; and from equal steps in t between the same levels."""
    i = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    eq_5 = (80 ** (1 / 7) + i * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    edm = create("edm")
    times = REGISTRY.create("spacing", "karras")(edm, steps)
    assert torch.allclose(edm.sigma(times), torch.cat([eq_5, torch.zeros(1, dtype=torch.float64)]), rtol=1e-10)
    assert (times[:-1].diff().diff().abs() < 1e-12).all()


def test_rectified_flow_is_a_line():
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    flow = create("rectified_flow")
    assert torch.equal(flow.alpha(t), 1 - t) and torch.equal(flow.sigma(t), t) and flow.time_of(math.inf) == 1.0


@pytest.mark.parametrize(("name", "options", "said"), [
    ("vp", {"beta_min": 2.0, "beta_max": 1.0}, "beta_max must be above beta_min, got 1.0 and 2.0"),
    ("ve", {"sigma_max": 0.001}, "sigma_max must be above sigma_min, got 0.001 and 0.01"),
    ("edm", {"sigma_max": 0.001}, "sigma_max must be above sigma_min, got 0.001 and 0.002"),
    ("linear", {"timesteps": 1}, r"timesteps must be an integer in \[2, 1000000\], got 1"),
    ("linear", {"beta_start": 0.9, "beta_end": 0.9}, "makes no schedule: its alpha_bar must fall from entry to entry"),
    ("cosine", {"zero_terminal_snr": 1}, "zero_terminal_snr must be true or false, got 1"),
])
def test_nonsense_is_refused(name, options, said):
    with pytest.raises(OptionError, match=said):
        create(name, **options)


def test_the_sum_of_betas_is_kept_for_every_length_and_alpha_stays_near_zero():
    """The figures of `DiscreteNoiseSchedule.per_length`; of ten betas of linear five are capped."""
    ends = {T: float(REGISTRY.create("noise_schedule", "linear", timesteps=T).alpha_bar()[-1]) for T in (1000, 20, 10)}
    assert ends == pytest.approx({1000: 4.04e-5, 20: 5.6e-11, 10: 1.44e-17}, rel=5e-3)


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_a_rate_at_a_grid_point_is_that_of_the_interval_below_it(name):
    """The figures of the `sigmoid` weighting."""
    schedule = REGISTRY.create("noise_schedule", name)

    def rate(t):
        _, alpha, sigma, d_alpha, d_sigma = schedule.at(t)
        return d_sigma / sigma - d_alpha / alpha
    above = [rate(i / 1000) / rate(i / 1000 + 1e-6) - 1 for i in (1, 2, 100, 500)]
    assert 0.26 < above[0] < above[1] < 0.64 and abs(above[2]) < 0.01 and abs(above[3]) < 0.01
    assert rate(0.1) == pytest.approx(rate(0.1 - 1e-6), rel=1e-4)
