"""The same step in diffusers and here: same grid, same schedule, same network, largest difference below 1e-5.

Both sides run in float64 on the same table: diffusers' float32 table alone makes its DDIM return NaN at eta 1 on the cosine
schedule's last index, and differ by 1e-4 elsewhere. `test_their_tables_are_ours` compares the tables.

Where the peer is known to be wrong (its DDIM ignores the grid where N does not divide T; PNDM on v) the grids here avoid it:
`test_schedulers.py` proves ours on every grid instead.
"""

import pytest
import torch

import diffbench
from diffbench import Prediction, noise, sampling
from tests.conftest import REGISTRY

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'diffbench[parity]'")

SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
SEEDS = noise.sample_seeds(11, 0, 3)
SHAPE = (2, 4, 4)


def network(x, t):
    """Some smooth function of image and level, in the range of a trained epsilon network."""
    return 0.9 * torch.tanh(x * (0.5 + t / 2000)) + 0.05 * torch.cos(3 * x)


def ours(scheduler, schedule, spacing):
    def denoise(x_t, t):
        level = schedule.at(t)
        eps = network(x_t, 1000 * t - 1)                  # diffusers counts levels from 0
        x0 = ((x_t - level.sigma * eps) / level.alpha).clamp(-1, 1)
        return Prediction(x0=x0, eps=(x_t - level.alpha * x0) / level.sigma)
    x_T = sampling.initial(schedule, spacing, scheduler.steps, SEEDS, SHAPE).double()
    return list(diffbench.trajectory(denoise, schedule, scheduler, x_T, spacing=spacing, seeds=SEEDS))


def theirs(peer, schedule, steps, monkeypatch, **step_options):
    in_float64(peer, schedule)
    peer.set_timesteps(steps)
    x = noise.normal(SEEDS, SHAPE, noise.INITIAL).double()
    drawn = []
    for index, t in enumerate(peer.timesteps):
        shared = noise.normal(SEEDS, SHAPE, index).double()    # both sides add the same noise
        monkeypatch.setattr(f"{type(peer).__module__}.randn_tensor", lambda *a, shared=shared, **k: shared)
        x = peer.step(network(x, float(t)), t, x, **step_options).prev_sample
        drawn.append(x)
    return drawn


def in_float64(peer, schedule):
    peer.alphas_cumprod = schedule.alpha_bar()
    peer.final_alpha_cumprod = peer.one = torch.tensor(1.0, dtype=torch.float64)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [2, 5, 10, 50])
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(name, spacing, steps, variance, monkeypatch):
    if variance == "large" and spacing == "trailing":
        # diffusers adds noise on the last step unless its index is 0, so a trailing grid ends noisy; compare up to there.
        last = -1
    else:
        last = None
    peer = diffusers.DDPMScheduler(variance_type=f"fixed_{variance}", timestep_spacing=spacing, clip_sample=True, **SCHEDULES[name])
    scheduler = REGISTRY.create("scheduler", "ddpm", steps=steps, variance=variance)
    schedule = REGISTRY.create("noise_schedule", name)
    mine = ours(scheduler, schedule, REGISTRY.create("spacing", spacing))[1:]
    for a, b in list(zip(mine, theirs(peer, schedule, steps, monkeypatch), strict=True))[:last]:
        assert (a - b).abs().max() < 1e-5


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 5, 10, 50])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim(name, spacing, steps, eta, monkeypatch):
    peer = diffusers.DDIMScheduler(timestep_spacing=spacing, clip_sample=True, set_alpha_to_one=True, **SCHEDULES[name])
    scheduler = REGISTRY.create("scheduler", "ddim", steps=steps, eta=eta)
    schedule = REGISTRY.create("noise_schedule", name)
    mine = ours(scheduler, schedule, REGISTRY.create("spacing", spacing))[1:]
    drawn = theirs(peer, schedule, steps, monkeypatch, eta=eta, use_clipped_model_output=True)
    for a, b in zip(mine, drawn, strict=True):
        assert (a - b).abs().max() < 1e-5


@pytest.mark.parametrize("warmup", ["prk", "plms"])
@pytest.mark.parametrize("steps", [5, 10, 50])
def test_pndm(steps, warmup, monkeypatch):
    """The peer never clips and takes raw network output, so neither do we here; half-steps need an even stride."""
    schedule = REGISTRY.create("noise_schedule", "linear")
    peer = diffusers.PNDMScheduler(timestep_spacing="trailing", skip_prk_steps=warmup == "plms", set_alpha_to_one=True, **SCHEDULES["linear"])
    scheduler = REGISTRY.create("scheduler", "pndm", steps=steps, warmup=warmup)

    def denoise(x_t, t):
        level = schedule.at(t)
        # The level t = 0 has no index in the peer, which asks its network at index -1 there.
        eps = network(x_t, 1000 * t - 1)
        return Prediction(x0=(x_t - level.sigma * eps) / level.alpha, eps=eps)
    spacing = REGISTRY.create("spacing", "uniform")
    x_T = sampling.initial(schedule, spacing, steps, SEEDS, SHAPE)
    mine = diffbench.sample(denoise, schedule, scheduler, x_T.double(), spacing=spacing, seeds=SEEDS).x_0
    in_float64(peer, schedule)
    peer.set_timesteps(steps)
    x = noise.normal(SEEDS, SHAPE, noise.INITIAL).double()
    for t in peer.timesteps:
        x = peer.step(network(x, float(t)), t, x).prev_sample
    assert (mine - x).abs().max() < 1e-5


def test_their_tables_are_ours():
    for name, options in SCHEDULES.items():
        peer = diffusers.DDPMScheduler(**options)
        assert (peer.alphas_cumprod.double() - REGISTRY.create("noise_schedule", name).alpha_bar()).abs().max() < 1e-5
