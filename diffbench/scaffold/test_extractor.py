"""The conformance suite, and images whose features are known."""

import torch
from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_a_half_that_is_white_has_mean_one_half_and_deviation_one_half():
    image = torch.zeros(1, 1, 4, 4, dtype=torch.uint8)
    image[..., :2] = 255
    assert Newcomer(cells=1).features({}, image, torch.device("cpu")).tolist() == [[0.5, 0.5]]
    assert Newcomer(cells=2).features({}, image, torch.device("cpu")).tolist() == [[1, 0, 1, 0, 0, 0, 0, 0]]
