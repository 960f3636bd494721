"""Guidance that equals another one, exactly: none, its inner conditioning, a line in its scale."""

import pytest
import torch

from diffbench import Condition, Prediction
from diffbench.diffusion import noise
from diffbench.diffusion.denoiser import clipped
from tests.components.test_reductions import HELPERS, LINEAR, SEEDS, crooked
from tests.conftest import REGISTRY


def fake_network(calls):
    """A network under a condition whose null prediction differs from the conditional one; it notes the rows it is sent."""
    def denoise(x_t, t, cond, drop):
        calls.append(len(x_t))
        shift = torch.where(drop, -0.3, 0.1 * cond.label.double())[:, None, None, None]
        x0 = torch.tanh(x_t) + shift
        alpha, sigma = LINEAR.scales(t)
        return Prediction(x0=x0, eps=(x_t - alpha * x0) / sigma)
    return denoise


COND = Condition(label=torch.tensor([0, 1, 2, 0, 1, 2]))
X_T = noise.normal(SEEDS, (1, 3, 3), 0).double()
FILM = REGISTRY.create("conditioning", "film")


def guided(name, **options):
    calls = []
    made = REGISTRY.create("conditioning", name, inner=FILM, **options)
    return made.guide(fake_network(calls), COND, HELPERS)(X_T, 0.5), calls


def plain():
    return FILM.guide(fake_network([]), COND, HELPERS)(X_T, 0.5)


@pytest.mark.parametrize(("name", "options"), [
    ("cfg", {"scale": 1.0}), ("cfg", {"scale": 5.0, "interval": (900.0, 901.0)}), ("classifier_guidance", {"scale": 0.0})])
def test_guidance_that_does_nothing_is_its_inner_and_one_pass(name, options):
    drawn, calls = guided(name, **options)
    assert torch.equal(drawn.x0, plain().x0) and torch.equal(drawn.eps, plain().eps) and calls == [6]


def test_cfg_at_0_is_unconditional_and_one_pass():
    drawn, calls = guided("cfg", scale=0.0)
    null = fake_network([])(X_T, 0.5, COND, torch.ones(6, dtype=torch.bool))
    assert torch.equal(drawn.x0, null.x0) and calls == [6]


def test_cfg_is_linear_in_its_scale_and_one_doubled_batch():
    (zero, _), (one, _), (three, calls) = (guided("cfg", scale=scale) for scale in (0.0, 1.0, 3.0))
    assert calls == [12]
    for part in ("x0", "eps"):
        at_0, at_1, at_3 = getattr(zero, part), getattr(one, part), getattr(three, part)
        assert (at_3 - (at_0 + 3 * (at_1 - at_0))).abs().max() < 1e-12


def test_guiding_x_0_is_guiding_eps():
    three, _ = guided("cfg", scale=3.0)
    alpha, sigma = LINEAR.scales(0.5)
    assert (alpha * three.x0 + sigma * three.eps - X_T).abs().max() < 1e-12


def test_clipping_changes_nothing_inside_the_range():
    inside = clipped(crooked, LINEAR, REGISTRY.default("process"))(X_T, 0.5)
    assert (inside.x0 - crooked(X_T, 0.5).x0).abs().max() < 1e-12 and (inside.eps - crooked(X_T, 0.5).eps).abs().max() < 1e-12


def test_clipping_re_derives_eps():
    def outside(x_t, t):
        return Prediction(x0=x_t * 5, eps=torch.zeros_like(x_t))
    clipped_prediction = clipped(outside, LINEAR, REGISTRY.default("process"))(X_T, 0.5)
    alpha, sigma = LINEAR.scales(0.5)
    assert clipped_prediction.x0.abs().max() <= 1
    assert (alpha * clipped_prediction.x0 + sigma * clipped_prediction.eps - X_T).abs().max() < 1e-12
