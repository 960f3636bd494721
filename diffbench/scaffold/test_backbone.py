"""The conformance suite, and what is known of this backbone alone."""

import torch
from newcomer import Newcomer

from diffbench import Io, Signals
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_a_pixel_is_seen_as_far_as_the_blocks_reach():
    network = Newcomer(width=8, depth=2).build(Io(shape=(1, 16, 16), signal_width=8))
    x = torch.zeros(1, 1, 16, 16, requires_grad=True)
    network(x, torch.tensor([500.0]), Signals())[0, 0, 8, 8].backward()
    seen = x.grad[0, 0].abs().sum(0).nonzero()
    assert (int(seen.min()), int(seen.max())) == (8 - 4, 8 + 4), (
        "two blocks and two further convolutions reach four pixels")
