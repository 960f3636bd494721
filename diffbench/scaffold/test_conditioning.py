"""The conformance suite, and what is known of this conditioning alone."""

import torch
from newcomer import Newcomer

from diffbench import Condition, Io
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_every_label_and_their_absence_have_a_vector_of_their_own():
    module = Newcomer().build(Io(shape=(1, 8, 8), signal_width=16, classes=5))
    vectors = module(Condition(label=torch.arange(6) % 5), torch.tensor([False] * 5 + [True])).vector
    assert vectors.shape == (6, 16) and len(vectors.unique(dim=0)) == 6
