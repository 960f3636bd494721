"""Likelihoods against densities known in closed form: the decoder, the variational bound, the probability flow and its solver."""

import math

import pytest
import torch
from scipy import special
from torch import Tensor

from diffbench import (
    Diverged,
    NoiseSchedule,
    Prediction,
    flow_likelihood,
    flow_log_density,
    image_seeds,
    pixel_log_likelihood,
    variational_bound,
)
from diffbench.diffusion import ode
from diffbench.registry.describing import label
from diffbench.testing.oracles import GaussianData, MixtureData
from diffbench.testing.stand_ins import all_examples
from tests.conftest import REGISTRY

SCHEDULES = all_examples(REGISTRY, "noise_schedule")
VALUES = torch.arange(256, dtype=torch.float64) / 127.5 - 1
MIXTURE = {"means": (-0.5, 0.1, 0.6), "weights": (0.3, 0.5, 0.2), "std": 0.15}


def create(name, **options) -> NoiseSchedule:
    return REGISTRY.create("noise_schedule", name, **options)


def images(count, side=4, seed=0):
    return torch.randint(0, 256, (count, 1, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def log_normal(x, mean, variance):
    return -0.5 * ((x - mean) ** 2 / variance + math.log(2 * math.pi * variance))


def log_mixture(x: Tensor, mixture: MixtureData, nsr: float) -> Tensor:
    """Of x_t/alpha where sigma/alpha = nsr."""
    parts = [math.log(w) + log_normal(x, m, mixture.std**2 + nsr**2) for m, w in zip(mixture.means, mixture.weights, strict=True)]
    return torch.stack(parts).logsumexp(0)


class TestDecoder:
    @pytest.mark.parametrize("mean", [0.3, -1.2, 0.99, 1.0, -1.0, 5.0, 1 / 255])
    @pytest.mark.parametrize("log_variance", [-14.0, -8.0, -3.0, 2.0, 8.0])
    def test_the_probabilities_of_the_256_values_sum_to_one(self, mean, log_variance):
        mass = pixel_log_likelihood(VALUES, torch.tensor(mean, dtype=torch.float64), torch.tensor(log_variance, dtype=torch.float64)).exp()
        assert abs(float(mass.sum()) - 1) < 1e-12

    def test_it_is_the_mass_of_a_bucket_and_the_outer_ones_are_open(self):
        mean, std = 0.1, 0.4
        found = pixel_log_likelihood(VALUES, torch.tensor(mean, dtype=torch.float64), torch.tensor(2 * math.log(std), dtype=torch.float64)).exp()
        edges = (VALUES[1:] + VALUES[:-1]) / 2
        cdf = special.ndtr(((edges - mean) / std).numpy())
        expected = [cdf[0], *(cdf[1:] - cdf[:-1]), 1 - cdf[-1]]
        assert found.tolist() == pytest.approx(expected, rel=1e-12)

    def test_far_in_either_tail_it_keeps_its_digits(self):
        """Where both ends of a bucket have mass 1 in float64, and where both have mass 0: against log_ndtr of the nearer end."""
        variance = torch.tensor(2 * math.log(0.002), dtype=torch.float64)
        for pixel, mean in ((100, 0.9), (100, -1.0)):
            found = float(pixel_log_likelihood(VALUES[pixel], torch.tensor(mean, dtype=torch.float64), variance))
            nearer = (abs(mean - float(VALUES[pixel])) - 1 / 255) / 0.002
            assert nearer > 100 and found == pytest.approx(float(special.log_ndtr(-nearer)), rel=1e-12)


class TestFlow:
    @pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: label(s, REGISTRY))
    def test_a_gaussian_has_its_exact_density_on_every_schedule(self, schedule):
        """The flow is affine: y_1 = mean_1 + std_1/std_0 (y_0 - mean_0); what samplers start from decides the rest."""
        x, mean, std = torch.linspace(-1, 1, 160, dtype=torch.float64).view(10, 1, 4, 4), 0.2, 0.4
        found, evaluations, start = flow_log_density(GaussianData(schedule=schedule, mean=mean, std=std), schedule, x, [torch.ones_like(x)], 1e-8, 1e-3)
        assert start == (pytest.approx(1e-3) if schedule.grid is None else max(1e-3, schedule.nsr(1 / schedule.grid)))
        alpha, sigma = schedule.scales(1.0)
        norm = math.hypot(alpha, sigma)
        gain = math.sqrt((alpha * std) ** 2 + sigma**2) / math.sqrt(std**2 + start**2) / norm
        exact = (log_normal(alpha * mean / norm + gain * (x - mean), 0.0, 1.0) + math.log(gain)).flatten(1).sum(1)
        assert float((found - exact).abs().max()) / 16 < 2e-7 and evaluations < 300
        if alpha == 0:
            assert torch.allclose(found, log_normal(x, mean, std**2 + start**2).flatten(1).sum(1), rtol=0, atol=16 * 2e-7)

    def test_smaller_tolerances_are_kept(self):
        flow, x = create("rectified_flow"), torch.linspace(-1, 1, 160, dtype=torch.float64).view(10, 1, 4, 4)
        mixture = MixtureData(schedule=flow, **MIXTURE)
        exact = log_mixture(x, mixture, 1e-3).flatten(1).sum(1)
        errors = [float((flow_log_density(mixture, flow, x, [torch.ones_like(x)], tolerance, 1e-3)[0] - exact).abs().max()) / 16
                  for tolerance in (1e-3, 1e-5, 1e-7)]
        assert errors[0] < 2e-2 and errors[1] < 2e-4 and errors[2] < 2e-6

    @pytest.mark.parametrize("name", ["vp", "linear", "edm"])
    def test_a_mixture_has_its_exact_density(self, name):
        """The flow of one pixel keeps its quantile: dy_1/dx = p(x)/p_1(y_1), and the density at the end is that of the start of sampling."""
        schedule = create(name)
        mixture = MixtureData(schedule=schedule, **MIXTURE)
        x = torch.linspace(-0.9, 0.9, 32, dtype=torch.float64).view(8, 1, 2, 2)
        found, _, start = flow_log_density(mixture, schedule, x, [torch.ones_like(x)], 1e-8, 0.02)
        first, (alpha, sigma) = schedule.time_of(start), schedule.scales(1.0)
        norm = math.hypot(alpha, sigma)
        x_1 = mixture.flow(schedule.at(first).alpha * x, first, 1.0)
        gain = log_mixture(x, mixture, start) - (log_mixture(x_1 / alpha, mixture, sigma / alpha) - math.log(alpha))      # log dx_1/dx
        exact = (log_normal(x_1 / norm, 0.0, 1.0) + gain - math.log(norm)).flatten(1).sum(1)
        assert float((found - exact).abs().max()) / 4 < 1e-6

    @pytest.fixture
    def correlated(self):
        """Pixels of N(0, C), C far from diagonal: (denoiser on the straight flow, C, images)."""
        flow, generator = create("rectified_flow"), torch.Generator().manual_seed(0)
        root = torch.randn(4, 4, dtype=torch.float64, generator=generator) / 4 + 0.2
        C = root @ root.T + 0.01 * torch.eye(4, dtype=torch.float64)

        def denoise(x_t, t):
            alpha, sigma = flow.scales(t)
            white = torch.linalg.solve(alpha**2 * C + sigma**2 * torch.eye(4, dtype=torch.float64), x_t.flatten(1).T).T
            return Prediction(x0=(alpha * white @ C).view_as(x_t), eps=(sigma * white).view_as(x_t))
        x = (torch.randn(6, 4, dtype=torch.float64, generator=generator) @ root.T).view(6, 1, 2, 2)
        return denoise, flow, C, x

    def test_unit_vectors_give_the_exact_trace(self, correlated):
        denoise, flow, C, x = correlated
        probes = [2 * torch.eye(4, dtype=torch.float64)[i].view(1, 1, 2, 2).expand_as(x) for i in range(4)]
        found = flow_log_density(denoise, flow, x, probes, 1e-8, 1e-3)[0]
        exact = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), C + 1e-6 * torch.eye(4)).log_prob(x.flatten(1))
        assert torch.allclose(found, exact, rtol=0, atol=1e-6)

    def test_random_probes_give_it_within_their_own_standard_error(self, correlated):
        denoise, flow, C, x = correlated
        again = x[:1].expand(400, 1, 2, 2)
        z = (torch.randint(0, 2, again.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1).double()
        found = flow_log_density(denoise, flow, again, [z], 1e-6, 1e-3)[0]
        exact = torch.distributions.MultivariateNormal(torch.zeros(4, dtype=torch.float64), C + 1e-6 * torch.eye(4)).log_prob(x[:1].flatten(1))
        error = float(found.std()) / 20
        assert error > 0.01 and abs(float(found.mean() - exact)) < 3 * error
        both = flow_log_density(denoise, flow, again[:200], [z[:200], z[200:]], 1e-6, 1e-3)[0]
        assert float(both.mean()) == pytest.approx(float(found.mean()), abs=1e-4), "two probes at once are the mean of each"

    def test_uniform_noise_has_eight_bits(self):
        """x uniform on the 256 buckets; E[x_0 | x_t] is the mean of a truncated normal. Unit, sign and the width of a pixel value at once."""
        flow, edge = create("rectified_flow"), 256 / 255

        def denoise(x_t, t):
            alpha, sigma = flow.scales(t)
            if alpha == 0:
                return Prediction(x0=0 * x_t, eps=x_t)
            n, m = sigma / alpha, x_t / alpha
            low, high = (-edge - m) / n, (edge - m) / n
            density = torch.exp(-(low**2) / 2) - torch.exp(-(high**2) / 2)
            mass = math.sqrt(2 * math.pi) * (torch.special.ndtr(high) - torch.special.ndtr(low))
            x0_hat = m + n * density / mass
            return Prediction(x0=x0_hat, eps=(x_t - alpha * x0_hat) / sigma)
        pixels = images(8, seed=3).clamp(40, 215)                                     # clear of the edges, where the noise takes mass outside
        found = flow_likelihood(denoise, flow, pixels, range(8), tolerance=1e-6, least_noise=1e-3)
        assert found.total.tolist() == pytest.approx([8.0] * 8, abs=1e-4)

    def test_an_image_draws_the_same_in_every_batch(self):
        vp, pixels, seeds = create("vp"), images(6), image_seeds(3, torch.tensor([0, 5, 2, 9, 1, 7]))
        assert seeds == [(3 << 32) | row for row in (0, 5, 2, 9, 1, 7)]
        data = MixtureData(schedule=vp, **MIXTURE)
        whole = flow_likelihood(data, vp, pixels, seeds, tolerance=1e-7, least_noise=1e-3).total
        alone = flow_likelihood(data, vp, pixels[2:3], seeds[2:3], tolerance=1e-7, least_noise=1e-3).total
        assert float(alone) == pytest.approx(float(whole[2]), abs=1e-5)
        bounds = [variational_bound(data, vp, pixels[rows], seeds[rows], 50, [(2, 20), (30, 29)]).total for rows in (slice(6), slice(2, 3))]
        assert torch.equal(bounds[0][2:3], bounds[1])


class TestSolver:
    def test_it_keeps_its_tolerance_and_its_order(self):
        """dy/du = y cos u: y = exp(sin u)."""
        asked = []
        for tolerance in (1e-4, 1e-9):
            y, count = ode.integrate(lambda u, y: y * math.cos(u), torch.ones(1, 1, dtype=torch.float64), 0.0, 10.0, tolerance, lambda e: e.abs()[:, 0])
            assert float(y) == pytest.approx(math.exp(math.sin(10.0)), rel=50 * tolerance)
            asked.append(count)
        assert asked[1] / asked[0] < 14, "five decades cost 10 in an order of 5"

    def test_the_worst_of_a_batch_decides(self):
        rates = torch.tensor([[1.0], [60.0]], dtype=torch.float64)
        y, _ = ode.integrate(lambda u, y: -rates * (y - math.cos(u)), torch.zeros(2, 1, dtype=torch.float64), 0.0, 3.0, 1e-7, lambda e: e.abs()[:, 0])
        exact = (rates**2 * math.cos(3) + rates * math.sin(3) - rates**2 * (-3 * rates).exp()) / (rates**2 + 1)
        assert torch.allclose(y, exact, atol=2e-6)

    def test_what_runs_away_is_said(self):
        with pytest.raises(Diverged, match="could not be followed past u = "):
            ode.integrate(lambda u, y: y**2, torch.ones(1, 1, dtype=torch.float64), 0.0, 2.0, 1e-6, lambda e: e.abs()[:, 0])
