"""The conformance suite, and the case in which this parameterization equals another one."""

import torch
from newcomer import Newcomer

import diffbench
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_on_a_rectified_flow_it_is_the_velocity():
    registry = diffbench.load_registry()
    level = registry.create("noise_schedule", "rectified_flow").at(0.3)
    velocity = registry.create("parameterization", "velocity")
    x_0, eps, out, x_t = torch.randn(4, 2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(Newcomer().target(x_0, eps, level), velocity.target(x_0, eps, level))
    torch.testing.assert_close(Newcomer().decode(out, x_t, level).x0, velocity.decode(out, x_t, level).x0)
