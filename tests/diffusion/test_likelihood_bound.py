"""The variational bound on the likelihood against closed forms: exact steps, its terms, its prior, its drawn terms."""

import math

import pytest
import torch
from torch import Tensor

from diffbench import (
    draw_visits,
    pixel_log_likelihood,
    posterior,
    variational_bound,
)
from diffbench.testing.oracles import GaussianData, MixtureData
from tests.conftest import REGISTRY
from tests.diffusion.test_likelihood import MIXTURE, VALUES, create, images


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
        from diffbench.diffusion.noise import normal

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
