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
    draw_visits,
    flow_likelihood,
    flow_log_density,
    image_seeds,
    ode,
    pixel_log_likelihood,
    posterior,
    variational_bound,
)
from diffbench.specs import label
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


def pixels_of(mixture: MixtureData, count: int, side: int = 8) -> tuple[Tensor, float]:
    """(uint8 images of a mixture's quantiles, rounded and shuffled, so that the data bring no noise of their own; their exact bits per pixel)."""
    u = (torch.arange(count * side**2, dtype=torch.float64) + 0.5) / (count * side**2)
    low, high = torch.full_like(u, -2.0), torch.full_like(u, 2.0)
    for _ in range(60):
        middle = (low + high) / 2
        is_below = sum(w * torch.special.ndtr((middle - m) / mixture.std) for m, w in zip(mixture.means, mixture.weights, strict=True)) < u
        low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
    pixels = ((low.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)[torch.randperm(len(u), generator=torch.Generator().manual_seed(0))]
    variance = torch.tensor(2 * math.log(mixture.std), dtype=torch.float64)
    masses = [w * pixel_log_likelihood(VALUES, torch.tensor(m, dtype=torch.float64), variance).exp() for m, w in zip(mixture.means, mixture.weights, strict=True)]
    return pixels.view(count, 1, side, side), float(-sum(masses).log2()[pixels.long()].mean())


def everything(steps):
    return [(i, 1) for i in range(2, steps + 1)]


def mean_and_error(bits: Tensor) -> tuple[float, float]:
    return float(bits.mean()), float(bits.std()) / math.sqrt(len(bits))


class TestBound:
    gaussian = {"means": (0.1,), "weights": (1.0,), "std": 0.25}

    @pytest.mark.parametrize(("name", "options", "steps"), [("vp", {}, 4), ("vp", {}, 60), ("rectified_flow", {}, 10), ("linear", {"timesteps": 30}, 30),
                                                            ("cosine", {"timesteps": 40, "zero_terminal_snr": True}, 40), ("ve", {"sigma_min": 0.05}, 50)])
    def test_it_is_the_likelihood_itself_where_reverse_steps_are_exact(self, name, options, steps):
        """Gaussian data: x_s given x_t is Gaussian, and its true variance lies between the two; the bound is then tight at any T."""
        schedule, std = create(name, **options), 0.25
        data, before = GaussianData(schedule=schedule, mean=0.1, std=std), posterior(*schedule.scales(2 / steps), *schedule.scales(1 / steps))

        def exact(x_t, t):
            (alpha, sigma), i = schedule.scales(t), round(t * steps)
            q = posterior(alpha, sigma, *schedule.scales((i - 1) / steps))
            small = before.small if i == 1 else q.small
            true = q.small + q.of_x0**2 * std**2 * sigma**2 / (alpha**2 * std**2 + sigma**2)
            return data(x_t, t)._replace(variance=torch.full_like(x_t, math.log(true / small) / math.log(q.large / small)))
        pixels, true = pixels_of(MixtureData(schedule=schedule, **self.gaussian), 60)
        bits = variational_bound(exact, schedule, pixels, range(60), steps, everything(steps), clip=False).total
        found, error = mean_and_error(bits)
        assert error < 0.005 * true and abs(found - true) < 4 * error
        for share in (0.0, 1.0):
            fixed = GaussianData(schedule=schedule, mean=0.1, std=std, share=share)
            excess, error = mean_and_error(variational_bound(fixed, schedule, pixels, range(60), steps, everything(steps), clip=False).total - bits)
            assert excess > 4 * error, "any other variance is worse, under the same noise"

    @pytest.mark.parametrize("data", [gaussian, MIXTURE], ids=["Gaussian", "mixture"])
    def test_it_lies_above_the_likelihood_and_falls_to_it_as_steps_grow(self, data):
        """The large variance is right in the limit of small steps; what is left falls like 1/T. One schedule that always ends at the same noise."""
        schedule = create("edm", sigma_min=0.03)
        mixture = MixtureData(schedule=schedule, **data)
        pixels, true = pixels_of(mixture, 40)
        gaps = []
        for steps in (60, 200, 600):
            bound = variational_bound(lambda x, t: mixture(x, t)._replace(variance=None), schedule, pixels, range(40), steps, everything(steps), share=1.0)
            found, error = mean_and_error(bound.total)
            gaps.append(found - true)
            assert gaps[-1] > -3 * error and error < 0.01 * true
        assert gaps == sorted(gaps, reverse=True) and gaps[-1] < 0.03 * true and gaps[1] < 0.45 * gaps[0]

    def test_its_terms_are_those_that_vlb_trains_on(self):
        """T times the objective's term at each level, same noise, with and without the learned share: another road to the same numbers."""
        from diffbench import Level, Noised
        from diffbench.noise import normal

        schedule, pixels, seeds = create("linear", timesteps=12), images(3), [4, 5, 6]
        data = GaussianData(schedule=schedule, mean=0.0, std=0.5, share=0.3)
        x_0, total = pixels.double() / 127.5 - 1, 0.0
        for i in range(1, 13):
            level, previous = (Level(*(torch.full((3, 1, 1, 1), float(part), dtype=torch.float64) for part in schedule.at(j / 12))) for j in (i, i - 1))
            eps = normal(seeds, (1, 4, 4), i).double()
            x_t = level.alpha * x_0 + level.sigma * eps
            out = torch.cat([data(x_t, i / 12).x0, torch.full_like(x_t, 2 * 0.3 - 1)], dim=1)
            total = total + REGISTRY.create("objective", "vlb").loss(out, Noised(x_0, eps, x_t, level, previous), schedule, REGISTRY.create("parameterization", "x0")) / 12
        found = variational_bound(data, schedule, pixels, seeds, 12, everything(12), clip=False)
        assert torch.allclose(found.total - found.prior, total, rtol=1e-9)
        clipped = variational_bound(data, schedule, pixels, seeds, 12, everything(12))
        assert not torch.equal(clipped.total, found.total) and torch.equal(clipped.prior, found.prior)

    def test_without_a_learned_variance_it_is_the_small_one(self):
        vp, pixels = create("vp"), images(3)
        fixed = GaussianData(schedule=vp, std=0.5)
        small = variational_bound(GaussianData(schedule=vp, std=0.5, share=0.0), vp, pixels, range(3), 20, everything(20)).total
        plain = variational_bound(lambda x, t: fixed(x, t)._replace(variance=None), vp, pixels, range(3), 20, everything(20)).total
        assert torch.allclose(small, plain, rtol=1e-12)

    @pytest.mark.parametrize("name", ["vp", "constant", "rectified_flow", "ve"])
    def test_the_prior_is_the_divergence_from_what_samplers_start_from(self, name):
        schedule, pixels = create(name), images(3)
        alpha, sigma = schedule.scales(1.0)
        q = torch.distributions.Normal(alpha * (pixels.double() / 127.5 - 1), sigma)
        p = torch.distributions.Normal(torch.tensor(0.0, dtype=torch.float64), math.hypot(alpha, sigma))
        exact = torch.distributions.kl_divergence(q, p).flatten(1).mean(1) / math.log(2)
        found = variational_bound(GaussianData(schedule=schedule, std=0.5), schedule, pixels, range(3), 20, [(2, 19)]).prior
        assert torch.allclose(found, exact, rtol=1e-9, atol=1e-12)

    def test_every_term_is_drawn_as_often_as_it_counts(self):
        generator, total = torch.Generator().manual_seed(0), torch.zeros(201, dtype=torch.float64)
        for _ in range(2000):
            drawn = draw_visits(200, 30, generator)
            assert sum(weight for _, weight in drawn) == 199 and 20 < len(drawn) <= 30
            for i, weight in drawn:
                total[i] += weight
        expected = total[2:] / 2000
        longest = max(weight for _, weight in draw_visits(200, 30, generator))
        assert float(total[:2].sum()) == 0 and float((expected - 1).abs().max()) < 5 * math.sqrt(longest / 2000)
        assert draw_visits(200, 199, generator) == everything(200) and draw_visits(2, 1, generator) == [(2, 1)]

    def test_drawn_terms_are_right_on_average(self):
        vp, pixels, generator = create("vp"), images(1), torch.Generator().manual_seed(0)
        data = GaussianData(schedule=vp, std=0.5)
        full = float(variational_bound(data, vp, pixels, [1], 200, everything(200)).total)
        drawn = torch.cat([variational_bound(data, vp, pixels, [1], 200, draw_visits(200, 10, generator)).total for _ in range(300)])
        assert float(drawn.std()) > 0.01 and abs(float(drawn.mean()) - full) < 4 * float(drawn.std()) / math.sqrt(300)
