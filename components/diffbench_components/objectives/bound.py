"""What `vlb` and `hybrid` share: one term of the variational bound, with a learned variance and the decoder of 8-bit pixels."""

import math

import torch
from torch import Tensor

from diffbench import Noised, NoiseSchedule, Parameterization, posterior

HALF_BUCKET = 1 / 255                 # half the width of one of 256 pixel values on [-1, 1]


def needs_grid(name: str, cell) -> str | None:
    """Why a bound cannot be trained in this cell, or None."""
    if cell.noise_schedule.grid is None:
        return f"{name} sums over the steps of a discrete schedule, and {cell.noise_schedule.component_name()} is continuous"
    return None


def bound(mean_out: Tensor, share: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
    """The bound's term at each sample's level, bits per dimension, [B].

    KL(q(x_s | x_t, x_0) || p(x_s | x_t)) where s is the next cleaner grid point, -log p(x_0 | x_t) where s is clean.
    mean_out: the network's F, [B, C, H, W]; share: place of the learned variance between log small (0) and log large (1), [B, C, H, W].
    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 4 to 7 and 15.
    """
    x_0, _, x_t, level = noised[:4]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((part.double() for part in at[1:3]) for at in (level, noised.previous))
    q = posterior(alpha_t, sigma_t, alpha_s, sigma_s)                              # [B, 1, 1, 1] each
    is_last = sigma_s == 0
    # The step to the clean level has no small variance of its own; the paper's code gives it that of the step before.
    before = posterior(*schedule.scales(2 / schedule.grid), *schedule.scales(1 / schedule.grid))
    small = torch.where(is_last, before.small, q.small)
    mean = q.of_x * x_t + q.of_x0 * parameterization.decode(mean_out, x_t, level).x0
    log_variance = share * q.large.log() + (1 - share) * small.log()               # eq. 15
    true_mean = q.of_x * x_t + q.of_x0 * x_0
    gap = small.log() - log_variance
    kl = 0.5 * (gap.exp() - 1 - gap + (true_mean - mean) ** 2 * (-log_variance).exp())
    nats = torch.where(is_last, -log_likelihood(x_0, mean, log_variance), kl)      # [B, C, H, W]
    return (nats / math.log(2)).flatten(1).mean(1).to(x_0.dtype)


def log_likelihood(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log P of 8-bit pixels x_0 in [-1, 1] under a Gaussian: its mass in the pixel's bucket, the buckets of 0 and 255 open outwards; nats.

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 13.
    """
    centred, inverse = x_0 - mean, (-0.5 * log_variance).exp()
    above = torch.where(x_0 > 1 - HALF_BUCKET, torch.inf, (centred + HALF_BUCKET) * inverse)
    below = torch.where(x_0 < -1 + HALF_BUCKET, -torch.inf, (centred - HALF_BUCKET) * inverse)
    # In the upper tail both masses are near 1: take them from the other side, where their difference keeps its digits.
    flipped = below > 0
    above, below = torch.where(flipped, -below, above), torch.where(flipped, -above, below)
    mass = torch.special.ndtr(above) - torch.special.ndtr(below)
    return mass.clamp(min=1e-12).log()
