"""The conformance suite, and both limits of this loss."""

import pytest
import torch
from newcomer import Newcomer

import diffbench
from diffbench import Level, Noised
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


@pytest.mark.parametrize(("d", "expected"), [(1e-3, 1e-6 / (2 * 0.1)), (50.0, 50.0 - 0.1)])
def test_it_is_a_square_near_0_and_an_absolute_value_far_away(d, expected):
    registry = diffbench.load_registry()
    schedule, epsilon = registry.create("noise_schedule", "linear"), registry.create("parameterization", "epsilon")
    x_0, level = torch.zeros(1, 1, 2, 2, dtype=torch.float64), schedule.at(0.5)
    noised = Noised(x_0, x_0, x_0, Level(*level))
    assert float(Newcomer().loss(x_0 + d, noised, schedule, epsilon)) == pytest.approx(expected, rel=2e-4)
