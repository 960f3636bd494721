"""Losses against their definition: weights, laws of t, the bound with a learned variance."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from diffbench import Level, Noised, posterior
from diffbench.testing.stand_ins import all_examples, cell_with
from tests.conftest import REGISTRY

LINEAR = REGISTRY.create("noise_schedule", "linear")
T = torch.tensor([0.9, 0.5, 0.2, 0.001], dtype=torch.float64)
X_0 = (torch.rand(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255).round() / 127.5 - 1
EPS = torch.randn(4, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def create(name, **options):
    return REGISTRY.create("objective", name, **options)


def parameterization(name):
    return REGISTRY.create("parameterization", name)


def images(level):
    return Level(*(part[:, None, None, None] for part in level))


def noised(schedule=LINEAR, t=T):
    level, previous = images(schedule.level(t)), images(schedule.level((t - 1e-3).clamp(min=0)))
    return Noised(X_0, EPS, level.alpha * X_0 + level.sigma * EPS, level, previous)


def wrong_by(parameterization, error, batch):
    """The output of a network whose x0_hat is off by `error` everywhere."""
    return parameterization.target(*batch[:2], batch.level) + error / parameterization.c_out(batch.level)


WEIGHTS = {
    "snr": lambda snr: snr,
    "min_snr": lambda snr: snr.clamp(max=5.0),
    "p2": lambda snr: snr / (1 + snr),
    "edm": lambda snr: (1 / snr + 0.25) / (0.25 / snr),             # (sigma² + sd²)/(sigma sd)²
}


@pytest.mark.parametrize("weighting", WEIGHTS)
@pytest.mark.parametrize("name", ["epsilon", "x0", "v", "score", "velocity", "edm"])
def test_a_weight_is_one_loss_of_x_0_whatever_the_network_predicts(name, weighting):
    batch, p = noised(), parameterization(name)
    found = create("mse", weighting=weighting).loss(wrong_by(p, 0.1, batch), batch, LINEAR, p)
    snr = (batch.level.alpha / batch.level.sigma).flatten() ** 2
    assert torch.allclose(found, 0.01 * WEIGHTS[weighting](snr), rtol=1e-6)


def test_sigmoid_is_the_integral_over_log_snr():
    """int w(lambda) |eps error|² dlambda/2 with w = sigmoid(bias - lambda), by changing the variable; t uniform, so -dlambda/dt."""
    vp, p = REGISTRY.create("noise_schedule", "vp"), parameterization("epsilon")
    t = torch.linspace(0.001, 1, 200_001, dtype=torch.float64)
    level = vp.level(t)
    weight = create("mse", weighting="sigmoid", bias=-1.0).weight(level, p)
    lam = 2 * (level.alpha / level.sigma).log()
    by_lambda = torch.trapezoid((-1.0 - lam).sigmoid() / 2, -lam)
    assert float(torch.trapezoid(weight, t)) == pytest.approx(float(by_lambda), rel=1e-4)


def test_weights_that_are_one():
    """snr on epsilon, edm on edm: the papers' own pairs need no weight on the network's output."""
    level = noised().level
    for weighting, name in (("snr", "epsilon"), ("edm", "edm")):
        assert torch.allclose(create("mse", weighting=weighting).weight(level, parameterization(name)), torch.ones(4, 1, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize(("name", "gamma"), [("epsilon", "min(snr, 5)/snr"), ("v", "min(snr, 5)/(snr + 1)")])
def test_min_snr_as_the_paper_writes_it(name, gamma):
    level = noised().level
    snr = (level.alpha / level.sigma) ** 2
    expected = snr.clamp(max=5.0) / (snr if name == "epsilon" else snr + 1)
    assert torch.allclose(create("mse", weighting="min_snr").weight(level, parameterization(name)), expected), gamma


def test_options_that_are_not_read_make_no_other_training():
    assert create("mse", p2_gamma=2.0, spread=3.0).equal_to() == create("mse")
    assert create("mse", weighting="p2", p2_gamma=2.0, bias=1.0).equal_to() == create("mse", weighting="p2", p2_gamma=2.0)
    assert create("huber", delta=2.0, sigma_data=0.1).equal_to() == create("huber", delta=2.0)


def test_zero_terminal_snr_has_finite_weights():
    flow = REGISTRY.create("noise_schedule", "rectified_flow")
    level = images(flow.level(torch.tensor([1.0], dtype=torch.float64)))
    for objective in all_examples(REGISTRY, "objective"):
        if hasattr(objective, "weighting"):
            for name in ("x0", "v", "velocity", "edm"):
                assert torch.as_tensor(objective.weight(level, parameterization(name))).isfinite().all(), (objective, name)


def test_huber_is_mse_below_delta_and_grows_like_l1_above():
    batch, p = noised(), parameterization("v")
    small, large = (wrong_by(p, 0.0, batch) + error for error in (0.3, 50.0))
    assert torch.allclose(create("huber").loss(small, batch, LINEAR, p), create("mse").loss(small, batch, LINEAR, p))
    assert torch.allclose(create("huber").loss(large, batch, LINEAR, p), 2 * create("l1").loss(large, batch, LINEAR, p) - 1)


def draws(law, schedule=LINEAR, batches=2000, **options):
    u = torch.rand(batches, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    return create("mse", law=law, **options).times(u, schedule)


@pytest.mark.parametrize(("law", "options", "normal"), [
    ("logit_normal", {"location": 0.5, "spread": 0.8}, lambda t, s: torch.logit(t)),
    ("lognormal", {"location": -1.2, "spread": 1.2}, lambda t, s: (s.sigma(t) / s.alpha(t)).log()),
])
def test_laws_of_t_are_normal_where_they_say(law, options, normal):
    edm = REGISTRY.create("noise_schedule", "edm")
    z = (normal(draws(law, edm, **options).flatten(), edm) - options["location"]) / options["spread"]
    assert abs(float(z.mean())) < 0.02 and abs(float(z.std()) - 1) < 0.02 and abs(float((z < 1).double().mean()) - 0.8413) < 0.01


def test_uniform_and_low_discrepancy():
    uniform, spread = draws("uniform"), draws("low_discrepancy")
    for t in (uniform, spread):
        assert abs(float(t.mean()) - 0.5) < 0.01 and abs(float(t.std()) - 12**-0.5) < 0.01
    assert float(spread.mean(1).std()) == pytest.approx(12**-0.5 / 64, rel=0.05) and float(uniform.mean(1).std()) == pytest.approx(12**-0.5 / 8, rel=0.05)
    index = (spread * 64).ceil().clamp(1, 64).sort(dim=1).values
    assert (index.diff(dim=1) <= 2).all()                          # one draw in each 64th of [0, 1], give or take the grid


class TestBound:
    share = torch.linspace(0.1, 0.9, 36, dtype=torch.float64).view(1, 1, 6, 6).expand(4, 1, 6, 6)

    def reference(self, x0_hat, batch):
        """The same term by torch.distributions, level by level."""
        terms = []
        small_first = posterior(*LINEAR.scales(0.002), *LINEAR.scales(0.001)).small
        for i in range(4):
            q = posterior(*(float(part[i]) for part in batch.level[1:3]), *(float(part[i]) for part in batch.previous[1:3]))
            small = q.small or small_first
            std = (self.share[i] * math.log(q.large) + (1 - self.share[i]) * math.log(small)).exp().sqrt()
            p = Normal(q.of_x * batch.x_t[i] + q.of_x0 * x0_hat[i], std)
            if q.small > 0:
                nats = kl_divergence(Normal(q.of_x * batch.x_t[i] + q.of_x0 * X_0[i], math.sqrt(q.small)), p)
            else:
                above = torch.where(X_0[i] > 0.999, 1.0, p.cdf(X_0[i] + 1 / 255))
                below = torch.where(X_0[i] < -0.999, 0.0, p.cdf(X_0[i] - 1 / 255))
                nats = -(above - below).clamp(min=1e-12).log()
            terms.append(nats.mean() / math.log(2))
        return torch.stack(terms)

    @pytest.mark.parametrize("name", ["epsilon", "x0", "v"])
    def test_vlb_is_the_sum_of_divergences(self, name):
        batch, p = noised(), parameterization(name)
        out = torch.cat([wrong_by(p, 0.02, batch), 2 * self.share - 1], dim=1)
        expected = 1000 * self.reference(X_0 + 0.02, batch)
        assert torch.allclose(create("vlb").loss(out, batch, LINEAR, p), expected, rtol=1e-5)

    def test_hybrid_teaches_the_mean_by_the_squared_error_alone(self):
        batch, p = noised(), parameterization("epsilon")
        mean, variance = wrong_by(p, 0.05, batch).requires_grad_(), (2 * self.share - 1).clone().requires_grad_()
        create("hybrid").loss(torch.cat([mean, variance], dim=1), batch, LINEAR, p).sum().backward()
        alone = mean.detach().clone().requires_grad_()
        create("mse").loss(alone, batch, LINEAR, p).sum().backward()
        assert torch.allclose(mean.grad, alone.grad) and variance.grad.abs().min() > 0

    @pytest.mark.parametrize("name", ["vlb", "hybrid"])
    def test_continuous_schedules_are_refused(self, name):
        cell = cell_with(REGISTRY, objective=create(name), noise_schedule=REGISTRY.create("noise_schedule", "vp"))
        assert create(name).why_not(cell) == f"{name} sums over the steps of a discrete schedule, and vp is continuous"


def test_the_best_learned_variance_is_the_true_one():
    """Data N(0, std²): the true variance of q(x_s | x_t) lies between the two bounds, and the bound is least where the network says so."""
    std, t, s = 0.5, 0.5, 0.499
    (a_t, s_t), (a_s, s_s) = LINEAR.scales(t), LINEAR.scales(s)
    q = posterior(a_t, s_t, a_s, s_s)
    true = q.small + q.of_x0**2 * std**2 * s_t**2 / (a_t**2 * std**2 + s_t**2)
    best = (math.log(true) - math.log(q.small)) / (math.log(q.large) - math.log(q.small))
    assert 0 < best < 1
    generator = torch.Generator().manual_seed(0)
    x_0 = std * torch.randn(4000, 1, 4, 4, dtype=torch.float64, generator=generator)
    x_t = a_t * x_0 + s_t * torch.randn(x_0.shape, dtype=torch.float64, generator=generator)
    level, previous = (images(LINEAR.level(torch.full((4000,), time, dtype=torch.float64))) for time in (t, s))
    x0_hat = a_t * std**2 / (a_t**2 * std**2 + s_t**2) * x_t
    batch = Noised(x_0, (x_t - a_t * x_0) / s_t, x_t, level, previous)
    losses = {share: float(create("vlb").loss(torch.cat([x0_hat, torch.full_like(x0_hat, 2 * share - 1)], dim=1), batch, LINEAR, parameterization("x0")).mean())
              for share in (best - 0.2, best, best + 0.2)}
    assert min(losses, key=losses.get) == best

