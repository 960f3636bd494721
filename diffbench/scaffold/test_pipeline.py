"""The conformance suite, and the mean that samples are."""

import torch
from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_a_sample_is_the_mean_of_the_runs():
    def sampler(run=0):
        return torch.full((3, 1, 2, 2), float(run))
    assert torch.equal(Newcomer(count=4).run(sampler, {}, range(3)), torch.full((3, 1, 2, 2), 1.5))
    assert torch.equal(Newcomer(count=1).run(sampler, {}, range(3)), sampler())
