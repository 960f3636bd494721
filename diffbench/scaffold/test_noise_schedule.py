"""The conformance suite, and what is known of this schedule alone."""

import math

import pytest
from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_it_stays_on_the_circle(t):
    alpha, sigma = Newcomer().scales(t)
    assert alpha**2 + sigma**2 == pytest.approx(1.0, abs=1e-15)


def test_its_end_is_where_reach_says():
    assert Newcomer(reach=0.5).nsr(1.0) == pytest.approx(math.tan(math.pi / 4))
