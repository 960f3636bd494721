"""The conformance suite, and what is known of this noise."""

import torch
from newcomer import Newcomer

import diffbench
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)
REGISTRY = diffbench.load_registry()


def test_without_an_offset_it_is_gaussian():
    n = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    level = REGISTRY.create("noise_schedule", "linear").at(1.0)
    gaussian = REGISTRY.create("process", "gaussian")
    assert torch.equal(Newcomer(offset=0.0).prior(n, level), gaussian.prior(n, level))


def test_the_mean_of_a_channel_has_the_variance_of_both_parts():
    """Of n alone it has 1/P, P = 64 pixels; what is added has a P-th of (8 offset)²: together (1 + 8 offset)²/64."""
    n = torch.randn(20_000, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    means = Newcomer(offset=0.5).step_noise(n).mean((2, 3))
    assert abs(float(means.var()) - 25 / 64) < 0.02
