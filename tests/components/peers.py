"""What the parity tests share: one smooth network, seen by a peer and by us as the same denoiser."""

import torch

from diffbench import Prediction
from diffbench.diffusion import noise, sampling
from tests.conftest import REGISTRY

SEEDS = noise.sample_seeds(11, 0, 3)
SHAPE = (2, 4, 4)
STEPS = [1, 2, 5, 10, 50]
CLOSE = 1e-5                          # largest difference anywhere in the loop


def network(x, t):
    """Some smooth function of image and level, in the range of a trained epsilon network."""
    return 0.9 * torch.tanh(x * (0.5 + t / 2000)) + 0.05 * torch.cos(3 * x)


def as_denoiser(schedule, clip=False):
    """The network as a denoiser; diffusers counts levels from 0."""
    def denoise(x_t, t):
        alpha, sigma = schedule.scales(t)
        eps = network(x_t, 1000 * t - 1)
        x0 = (x_t - sigma * eps) / alpha
        if clip:
            x0 = x0.clamp(-1, 1)
            eps = (x_t - alpha * x0) / sigma
        return Prediction(x0=x0, eps=eps)
    return denoise


def start(schedule, spacing, steps):
    """x_T in float64."""
    return sampling.initial(schedule, spacing, steps, SEEDS, SHAPE).double()


def shared_noise(step, draw=0):
    """The noise of a step, for both sides."""
    return noise.normal(SEEDS, SHAPE, step, draw).double()


def ours(name, schedule, spacing, steps, clip=False, **options):
    """Every state of our sampler, x_T first; of pairs that are refused too, for a peer runs them."""
    scheduler = REGISTRY.create("scheduler", name, steps=steps, **options)
    return list(sampling.states(as_denoiser(schedule, clip), schedule, scheduler, start(schedule, spacing, steps), spacing, REGISTRY.default("process"), SEEDS))


def largest_difference(mine, theirs):
    assert len(mine) == len(theirs)
    return max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))
