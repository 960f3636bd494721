"""Every spacing: strictly decreasing, ends clean, and where it coincides with what others publish."""

import pytest
import torch

from tests.conftest import REGISTRY, all_of


@pytest.mark.parametrize("schedule", all_of("noise_schedule"))
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50, 64, 1000])
@pytest.mark.parametrize("spacing", all_of("spacing"))
def test_decreases_to_the_clean_level(spacing, steps, schedule):
    times = spacing(schedule, steps)
    assert times.shape == (steps + 1,) and times.dtype == torch.float64
    assert (times[1:] < times[:-1]).all() and times[-1] == 0 and times[0] <= 1


def test_leading_and_trailing_visit_the_published_indices():
    """0-based indices as in diffusers for ten steps of 1000: leading 900, 800, ..., 0; trailing 999, 899, ..., 99."""
    schedule = REGISTRY.create("noise_schedule", "linear")
    leading = REGISTRY.create("spacing", "leading")(schedule, 10)[:-1] * 1000 - 1
    trailing = REGISTRY.create("spacing", "trailing")(schedule, 10)[:-1] * 1000 - 1
    assert leading.round().tolist() == list(range(900, -1, -100))
    assert trailing.round().tolist() == list(range(999, 0, -100))


def test_uniform_can_start_below_the_noisiest_level():
    times = REGISTRY.create("spacing", "uniform", start=0.9)(None, 3)
    assert times.tolist() == pytest.approx([0.9, 0.6, 0.3, 0.0])
