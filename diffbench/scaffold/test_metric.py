"""The conformance suite, and a case in which the number is known."""

import pytest
import torch
from newcomer import Newcomer

from diffbench import Evidence, Real
from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_a_shift_of_the_features_is_found_squared():
    features = torch.randn(40, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def seen(shift):
        images = torch.zeros(40, 1, 2, 2, dtype=torch.uint8)
        return Evidence(images=images, labels=None, features=features + torch.tensor(shift, dtype=torch.float64),
                        predicted=None)
    score = Newcomer().measure(seen([0.0, 3.0, 4.0]), Real(reference=seen([0.0, 0.0, 0.0]),
                                                           held_out=seen([0.0, 0.0, 0.0])))[""]
    assert float(getattr(score, "value", score)) == pytest.approx(25.0)
