"""Every parameterization decodes its own target exactly, and all describe the same model."""

import pytest
import torch

from diffbench import Level
from tests.conftest import REGISTRY, all_of

GENERATOR = torch.Generator().manual_seed(0)
X_0, EPS = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=GENERATOR)
LEVELS = [Level(0.001, 0.9999, 0.0141, -0.1, 7.0), Level(0.5, 0.6, 0.8, -1.2, 0.9), Level(0.999, 0.00635, 0.99998, -0.06, 0.0004),
          Level(0.5, 1.0, 3.0, 0.0, 14.0)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("parameterization", all_of("parameterization"))
def test_decoding_the_target_gives_x_0_and_eps(parameterization, level):
    x_t = level.alpha * X_0 + level.sigma * EPS
    decoded = parameterization.decode(parameterization.target(X_0, EPS, level), x_t, level)
    assert (decoded.x0 - X_0).abs().max() < 1e-10
    assert (decoded.eps - EPS).abs().max() < 1e-10


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("parameterization", all_of("parameterization"))
def test_a_prediction_lies_on_x_t(parameterization, level):
    """alpha x0_hat + sigma eps_hat = x_t for any network output: one number too many would let a sampler drift."""
    x_t = level.alpha * X_0 + level.sigma * EPS
    decoded = parameterization.decode(torch.full_like(x_t, 0.7), x_t, level)
    assert (level.alpha * decoded.x0 + level.sigma * decoded.eps - x_t).abs().max() < 1e-10


@pytest.mark.parametrize("parameterization", all_of("parameterization"))
def test_the_network_sees_unit_variance(parameterization):
    for level in LEVELS:
        x_t = level.alpha * X_0 + level.sigma * EPS
        assert 0.7 < float((parameterization.c_in(level) * x_t).std()) < 1.3


def test_v_is_finite_at_both_ends():
    v = REGISTRY.create("parameterization", "v")
    for level in (Level(0.0, 1.0, 0.0, 0.0, 1.0), Level(1.0, 0.0, 1.0, -1.0, 0.0)):
        decoded = v.decode(v.target(X_0, EPS, level), level.alpha * X_0 + level.sigma * EPS, level)
        assert decoded.x0.isfinite().all() and decoded.eps.isfinite().all()
