"""The same step in azula and here, in float64, on its own uniform grid and on ours: largest difference below 1e-5.

azula's eta multiplies the variance, ours (and the paper's) its root. Its Heun divides by sigma_s and is undefined on the step to the clean
level, so it is compared up to there.
"""

import math
from types import SimpleNamespace

import pytest
import torch

from tests.components.peers import CLOSE, STEPS, as_denoiser, largest_difference, ours, shared_noise, start
from tests.conftest import REGISTRY

azula = pytest.importorskip("azula.sample", reason="azula is not installed: pip install 'diffbench[parity]'")

SCHEDULES = ["linear", "cosine", "vp", "ve", "edm"]
SPACINGS = ["uniform", "karras", "quadratic"]


class Denoiser:
    """Ours in azula's form: a schedule of tensors and a posterior with a mean."""

    def __init__(self, schedule):
        self.ours = schedule
        self.denoise = as_denoiser(schedule)

    def schedule(self, t):
        return self.ours.alpha(t), self.ours.sigma(t)

    def __call__(self, x_t, t):
        return SimpleNamespace(mean=self.denoise(x_t, float(t)).x0)


def theirs(sampler, schedule, spacing, steps, monkeypatch):
    x = start(schedule, spacing, steps)
    states, times = [x], spacing(schedule, steps)
    for step, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        monkeypatch.setattr(torch, "randn_like", lambda x, step=step: shared_noise(step))
        states.append(sampler.step(states[-1], t, s))
    return states


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("steps", STEPS)
class TestEverywhere:
    def compare(self, name, sampler, schedule, spacing, steps, monkeypatch, last=None, **options):
        schedule, spacing = REGISTRY.create("noise_schedule", schedule), REGISTRY.create("spacing", spacing)
        peer = sampler(Denoiser(schedule))
        mine, drawn = ours(name, schedule, spacing, steps, **options), theirs(peer, schedule, spacing, steps, monkeypatch)
        scale = max(1.0, float(mine[0].abs().max()))      # an exploding schedule starts at 50 to 80
        assert largest_difference(mine[:last], drawn[:last]) < CLOSE * scale

    def test_ddpm(self, schedule, spacing, steps, monkeypatch):
        self.compare("ddpm", lambda d: azula.DDPMSampler(d, silent=True), schedule, spacing, steps, monkeypatch)

    @pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
    def test_ddim(self, schedule, spacing, steps, eta, monkeypatch):
        self.compare("ddim", lambda d: azula.DDIMSampler(d, eta=eta**2, silent=True), schedule, spacing, steps, monkeypatch, eta=eta)

    def test_euler_is_ddim(self, schedule, spacing, steps, monkeypatch):
        self.compare("ddim", lambda d: azula.EulerSampler(d, silent=True), schedule, spacing, steps, monkeypatch)

    def test_heun(self, schedule, spacing, steps, monkeypatch):
        self.compare("heun", lambda d: azula.HeunSampler(d, silent=True), schedule, spacing, steps, monkeypatch, last=-1)


def test_their_schedules_are_ours():
    """azula's VP and rectified schedules have other end points; with ours they agree."""
    from azula import noise

    t = torch.linspace(0.001, 0.999, 50, dtype=torch.float64)
    for name, peer in (("rectified_flow", noise.RectifiedSchedule(alpha_min=0.0, sigma_min=0.0)), ("ve", noise.VESchedule(sigma_min=0.01, sigma_max=50.0))):
        mine = REGISTRY.create("noise_schedule", name)
        alpha, sigma = peer(t)
        sigma = (sigma**2 - 0.01**2).sqrt() if name == "ve" else sigma      # theirs is not clean at t = 0: see our docstring
        assert torch.allclose(alpha, mine.alpha(t)) and torch.allclose(sigma, mine.sigma(t), rtol=1e-6), name
    assert math.isclose(float(REGISTRY.create("noise_schedule", "rectified_flow").sigma(t[3])), float(t[3]))
