"""The posterior q(x_s | x_t, x_0) of any Gaussian process, from which ancestral steps and variational bounds are made."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Scale = float | Tensor


class Posterior(NamedTuple):
    """q(x_s | x_t, x_0) = N(of_x x_t + of_x0 x_0, small), and the other bound of a reverse step's variance."""

    of_x: Scale
    of_x0: Scale
    small: Scale                      # the posterior's own variance: exact where the data are one point
    large: Scale                      # of q(x_t | x_s) scaled to x_s: DDPM's beta, exact for N(m, 1) under a VP schedule


def posterior(alpha_t: Scale, sigma_t: Scale, alpha_s: Scale, sigma_s: Scale) -> Posterior:
    """The posterior between two levels, t noisier than s; floats or tensors.

    With alpha_ts = alpha_t/alpha_s and var_ts = sigma_t² - alpha_ts² sigma_s²: mean alpha_ts sigma_s²/sigma_t² x_t + alpha_s var_ts/sigma_t² x_0,
    variance var_ts sigma_s²/sigma_t².
    Source: Kingma et al. 2021, arXiv:2107.00630, appendix A; Ho et al. 2020, arXiv:2006.11239, eq. 6 and 7.
    """
    alpha_ts = alpha_t / alpha_s
    var_ts = sigma_t**2 - alpha_ts**2 * sigma_s**2
    return Posterior(alpha_ts * sigma_s**2 / sigma_t**2, alpha_s * var_ts / sigma_t**2, var_ts * sigma_s**2 / sigma_t**2, var_ts)
