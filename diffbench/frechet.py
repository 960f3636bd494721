"""The Fréchet distance between two sets of features."""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

from diffbench.errors import DataError, Diverged
from diffbench.uncertainty import BLOCKS, FEWEST, Jackknife, jackknife


@overload
def frechet_distance(x: Tensor, y: Tensor) -> float: ...
@overload
def frechet_distance(x: Tensor, y: Tensor, blocks: Tensor) -> Jackknife: ...
def frechet_distance(x: Tensor, y: Tensor, blocks: Tensor | None = None) -> float | Jackknife:
    """d² = |m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with its jackknife over x where blocks are given.

    x: [N, d], y: [M, d], finite, N, M >= 2, computed in float64; m the sample means, C the sample covariances (divisor N - 1),
    which may be rank-deficient (N <= d). blocks: int64 [N] from `jackknife_blocks`, N >= 40. Unit: that of the features, squared.
    A square, although called a distance. A negative number can only be rounding (-2e-13 for identical sets) and is given as 0;
    the debiased value estimates without bias, so it may be negative in earnest and is left so.
    The jackknife is over x; y is held fixed, so the bias of a finite reference (about c/M, the same for every x) stays.
    Raises DataError for sets that have no distance, Diverged for features that are not finite.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6. Bias: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    x, y = _checked(x, y)
    m_x, m_y = x.mean(0), y.mean(0)                                                # [d]
    r_x, r_y = _root(x - m_x), _root(y - m_y)                                      # C = rᵀ r
    # tr (C_x C_y)^(1/2) is the sum of singular values of r_x r_yᵀ: no square root of a matrix that is not symmetric.
    trace = torch.linalg.svdvals(r_x @ r_y.T).sum()
    distance = max(0.0, float((m_x - m_y).square().sum() + r_x.square().sum() + r_y.square().sum() - 2 * trace))
    return distance if blocks is None else jackknife(distance, _left_out(x - m_x, m_x - m_y, r_y, blocks))


def _left_out(a: Tensor, shift: Tensor, r_y: Tensor, blocks: Tensor) -> Tensor:
    """The distances without block j, float64 [20], from running sums: the cost does not grow with 20 N.

    a: x - m_x, [N, d]; centred first, so that sums of squares lose no digits. shift: m_x - m_y.
    """
    count = len(a)
    if count < FEWEST or blocks.shape != (count,):
        raise DataError(f"a jackknife needs at least {FEWEST} samples and a block for each, got {count} samples and {len(blocks)} blocks")
    scatter, trace_y = a.T @ a, r_y.square().sum()
    distances = []
    for j in range(BLOCKS):
        a_j = a[blocks == j]                                                       # [n_j, d]
        rest = count - len(a_j)
        delta = -a_j.sum(0) / rest                                                 # how far the mean moves
        c_x = (scatter - a_j.T @ a_j - rest * torch.outer(delta, delta)) / (rest - 1)
        eigenvalues = torch.linalg.eigvalsh(r_y @ c_x @ r_y.T)                     # squares of the singular values
        # The root of a rounded zero is 1e-8, not 1e-16: where N <= d hundreds of them would add up.
        noise = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues.abs().max()
        trace = eigenvalues[eigenvalues > noise].sqrt().sum()
        distances.append((shift + delta).square().sum() + c_x.trace() + trace_y - 2 * trace)
    return torch.stack(distances)


def _root(centred: Tensor) -> Tensor:
    """r with rᵀ r = the sample covariance, [min(N, d), d]."""
    return torch.linalg.qr(centred / (len(centred) - 1) ** 0.5, mode="r").R


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(f"a Fréchet distance needs features [N, d] and [M, d] with N, M >= 2, got {list(x.shape)} and {list(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise Diverged("features are not finite: no Fréchet distance exists")
    return x.double(), y.double()
