"""Numbers of a row made again beside those of the first one."""

import pytest

from diffbench.results import reproduced


def test_a_half_width_is_that_of_the_column_s_own_interval():
    row = {"x": 5.0, "x_debiased": 4.0, "x_low": 3.0, "x_high": 5.0, "x_of_held_out": 1.0, "y": 1.0, "n": 3}
    halves = {n.column: n.half_width for n in reproduced.numbers(row, row)}
    assert halves == {"x": None, "x_debiased": 1.0, "x_low": None, "x_high": None, "x_of_held_out": None, "y": None, "n": None}, "the biased value has none"
    share = {"s": 0.5, "s_debiased": 0.5, "s_low": 0.4, "s_high": 0.7}
    assert {n.column: n.half_width for n in reproduced.numbers(share, share)}["s"] == pytest.approx(0.15), "without a bias it is one number"
    (number,) = reproduced.numbers({"n": 3}, {"n": 3.0})
    assert not number.is_equal and number.is_within is False, "another type is another number"
    (number,) = reproduced.numbers({"x": 1.0}, {})
    assert not number.is_equal and number.is_within is False, "a number that is gone does not agree"
