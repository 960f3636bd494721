"""The conformance suite, and the cases in which these times are known."""

import torch
from newcomer import Newcomer

import diffbench
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)
REGISTRY = diffbench.load_registry()
LINEAR = REGISTRY.create("noise_schedule", "linear")


def test_without_b_it_is_uniform():
    torch.testing.assert_close(Newcomer(b=0.0)(LINEAR, 7), REGISTRY.create("spacing", "uniform")(LINEAR, 7))


def test_it_is_as_close_at_one_end_as_at_the_other():
    times = Newcomer(b=1.0)(LINEAR, 10)
    torch.testing.assert_close(times + times.flip(0), torch.ones_like(times))
