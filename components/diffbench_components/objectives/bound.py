"""What `vlb` and `hybrid` share: one term of the variational bound, with a learned variance and the decoder
of 8-bit pixels.
"""

import math

import torch
from torch import Tensor

from diffbench import Noised, NoiseSchedule, Parameterization, pixel_log_likelihood, posterior, step_divergence

# of a pixel's log-likelihood: below it a pixel has no gradient, as in the released code
LEAST = math.log(1e-12)


def needs_grid(name: str, cell) -> str | None:
    """Why a bound cannot be trained in this cell, or None."""
    if cell.noise_schedule.grid is None:
        return (f"{name} sums over the steps of a discrete schedule, and {cell.noise_schedule.component_name()} is "
                "continuous")
    return None


def bound(mean_out: Tensor, share: Tensor, noised: Noised, schedule: NoiseSchedule,
          parameterization: Parameterization) -> Tensor:
    """The bound's term at each sample's level, bits per dimension, [B].

    KL(q(x_s | x_t, x_0) || p(x_s | x_t)) where s is the next cleaner grid point, -log p(x_0 | x_t) where s is clean.
    mean_out: the network's F, [B, C, H, W]; share: place of the learned variance between log small (0) and log large
    (1), [B, C, H, W].
    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 4 to 7 and 15.
    """
    x_0, _, x_t, level = noised[:4]
    (alpha_t, sigma_t), (alpha_s, sigma_s) = ((part.double() for part in at[1:3]) for at in (level, noised.previous))
    q = posterior(alpha_t, sigma_t, alpha_s, sigma_s)                              # [B, 1, 1, 1] each
    is_last = sigma_s == 0
    # The step to the clean level has no small variance of its own; the paper's code gives it that of the step before.
    before = posterior(*schedule.scales(2 / schedule.grid), *schedule.scales(1 / schedule.grid))
    small = torch.where(is_last, before.small, q.small)
    x0_hat = parameterization.decode(mean_out, x_t, level).x0
    mean = q.of_x * x_t + q.of_x0 * x0_hat
    log_variance = share * q.large.log() + (1 - share) * small.log()               # eq. 15
    decoded = pixel_log_likelihood(x_0.double(), mean, log_variance).clamp(min=LEAST)
    kl = step_divergence(x_0, x0_hat, q.of_x0, small.log(), log_variance)
    nats = torch.where(is_last, -decoded, kl)                                      # [B, C, H, W]
    return (nats / math.log(2)).flatten(1).mean(1).to(x_0.dtype)
