"""Every noise schedule: the one equation, the inverse, the published tables."""

import math

import pytest
import torch

from tests.conftest import REGISTRY, all_of

T = torch.linspace(0, 1, 2001, dtype=torch.float64)


@pytest.mark.parametrize("schedule", all_of("noise_schedule"))
class TestEverySchedule:
    def test_starts_clean(self, schedule):
        assert schedule.at(0.0)[:3] == (0.0, 1.0, 0.0)

    def test_noise_to_signal_rises_strictly(self, schedule):
        nsr = schedule.sigma(T) / schedule.alpha(T)
        assert (nsr[1:] > nsr[:-1]).all()

    def test_t_of_nsr_is_the_inverse(self, schedule):
        nsr = schedule.sigma(T[1:]) / schedule.alpha(T[1:])
        assert (schedule.t_of_nsr(nsr) - T[1:]).abs().max() < 1e-10

    def test_is_float64_and_keeps_the_shape(self, schedule):
        t = torch.rand(2, 3, dtype=torch.float64)
        for value in (schedule.alpha(t), schedule.sigma(t), schedule.f(t), schedule.g2(t)):
            assert value.shape == t.shape and value.dtype == torch.float64

    def test_rates_are_the_derivatives(self, schedule):
        """f = d log alpha/dt and g² = d sigma²/dt - 2 f sigma², against central differences inside one grid interval."""
        count = schedule.grid or 1000
        t = (torch.arange(1, 1000, 7, dtype=torch.float64) * count // 1000 + 0.5) / count
        h = 1e-3 / count
        f = (schedule.alpha(t + h).log() - schedule.alpha(t - h).log()) / (2 * h)
        g2 = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h) - 2 * f * schedule.sigma(t) ** 2
        assert torch.allclose(schedule.f(t), f, rtol=1e-4)
        assert torch.allclose(schedule.g2(t), g2, rtol=1e-4)
        assert (schedule.g2(t) > 0).all()

    def test_training_times_are_the_grid(self, schedule):
        t = schedule.snapped(1 - torch.rand(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
        assert t.min() > 0 and t.max() <= 1
        if schedule.grid:
            index = t * schedule.grid
            assert (index - index.round()).abs().max() < 1e-9 and len(index.round().unique()) > 0.9 * min(schedule.grid, 10_000)

    def test_times_outside_are_refused(self, schedule):
        for t in (-0.1, 1.1, math.nan):
            with pytest.raises(ValueError, match=r"t must be in \[0, 1\]"):
                schedule.at(t)


def test_linear_is_the_published_table():
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    table = torch.cumprod(1 - beta, 0)
    schedule = REGISTRY.create("noise_schedule", "linear")
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert (schedule.alpha(t) ** 2 - table).abs().max() < 1e-12
    assert abs(schedule.at(1.0).alpha ** 2 - 4.04e-5) < 1e-7          # the terminal signal of DDPM


@pytest.mark.parametrize("timesteps", [50, 100, 1000, 4000])
def test_linear_ends_near_zero_for_every_length(timesteps):
    assert REGISTRY.create("noise_schedule", "linear", timesteps=timesteps).at(1.0).alpha ** 2 < 1e-4


def test_cosine_is_the_published_table():
    def f(t):
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    alpha_bar, table = 1.0, []
    for i in range(1000):
        alpha_bar *= 1 - min(1 - f((i + 1) / 1000) / f(i / 1000), 0.999)
        table.append(alpha_bar)
    schedule = REGISTRY.create("noise_schedule", "cosine")
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert (schedule.alpha(t) ** 2 - torch.tensor(table, dtype=torch.float64)).abs().max() < 1e-12
    assert abs(schedule.at(1.0).alpha ** 2 / 2.43e-9 - 1) < 0.01
