"""What steps are made of: sums of tensors, and the posterior q(x_s | x_t, x_0) of any Gaussian process,
which variational bounds need too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

Scale = float | Tensor
HALF_LEVEL = 1 / 255                  # half the width of one of 256 pixel values on [-1, 1]


def weighted_sum(*terms: tuple[Scale, Tensor]) -> Tensor:
    """a x + b y + ..., of (a, x), (b, y), ...; one pass over the data and no tensor of its own for each term after the
    first.

    Terms have the shape and dtype of the first; a scale is a float, or a tensor that broadcasts to it.
    """
    (scale, x), *rest = terms
    total = scale * x
    for scale, x in rest:
        total = torch.addcmul(total, scale, x) if isinstance(scale, Tensor) else total.add_(x, alpha=scale)
    return total


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(of_x x_t + of_x0 x_0, small), and the other bound of a reverse step's variance."""

    of_x: Scale
    of_x0: Scale
    small: Scale  # the posterior's own variance: exact where the data are one point
    large: Scale  # of q(x_t | x_s) scaled to x_s: DDPM's beta, exact for N(m, 1) under a VP schedule


def posterior(alpha_t: Scale, sigma_t: Scale, alpha_s: Scale, sigma_s: Scale) -> Posterior:
    """The posterior between two levels, t noisier than s; floats or tensors.

    With alpha_ts = alpha_t/alpha_s and var_ts = sigma_t² - alpha_ts² sigma_s²: mean alpha_ts sigma_s²/sigma_t² x_t +
    alpha_s var_ts/sigma_t² x_0, variance var_ts sigma_s²/sigma_t².
    Source: Kingma et al. 2021, arXiv:2107.00630, appendix A; Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7.
    """
    alpha_ts = alpha_t / alpha_s
    var_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    return Posterior(alpha_ts * sigma_s**2 / sigma_t**2, alpha_s * var_ts / sigma_t**2,
                     var_ts * sigma_s**2 / sigma_t**2, var_ts)


def step_divergence(x_0: Tensor, x0_hat: Tensor, of_x0: Scale, log_small: Tensor, log_variance: Tensor) -> Tensor:
    """KL(q(x_s | x_t, x_0) || N(mean, variance)), nats per pixel, where the mean is the posterior's with x0_hat for
    x_0.

    of_x0, log_small: of the posterior; log_variance: of the reverse step. Both means hold the same share of x_t, which
    cancels.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and 8.
    """
    gap = log_small - log_variance
    return 0.5 * (gap.exp() - 1 - gap + (of_x0 * (x_0 - x0_hat)) ** 2 * (-log_variance).exp())


def pixel_log_likelihood(x_0: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
    """log P of 8-bit pixels under N(mean, variance): its mass in the pixel's bucket, the buckets of 0 and 255 open
    outwards; nats per pixel.

    x_0: pixel values k/127.5 - 1, k = 0..255; mean and log_variance broadcast with it. Exact far out in the tails too:
    no mass is rounded to 0 in float64, whatever the pixel. A model of one pixel sums to 1 over the 256 values.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 13.
    """
    inverse = (-0.5 * log_variance).exp()
    below, above = (x_0 - HALF_LEVEL - mean) * inverse, (x_0 + HALF_LEVEL - mean) * inverse
    # In the upper tail both masses are near 1: taken from the other side, their difference keeps its digits.
    flipped = below + above > 0
    low, high = torch.where(flipped, -above, below), torch.where(flipped, -below, above)
    log_high = torch.special.log_ndtr(high)
    ratio = (log_high - torch.special.log_ndtr(low)).clamp(min=torch.finfo(x_0.dtype).tiny)
    inside = log_high + (-torch.expm1(-ratio)).log()
    inside = torch.where(x_0 > 1 - HALF_LEVEL, torch.special.log_ndtr(-below), inside)
    return torch.where(x_0 < -1 + HALF_LEVEL, torch.special.log_ndtr(above), inside)
