"""The Fréchet distance between two sets of features."""

from __future__ import annotations

from typing import NamedTuple, overload

import torch
from torch import Tensor

from diffbench.errors import DataError, Diverged
from diffbench.uncertainty import BLOCKS, FEWEST, Jackknife, jackknife


class Moments(NamedTuple):
    """All that the distance needs of a set of features: worked out once for a reference that many sets are compared with."""

    mean: Tensor                      # float64 [d]
    root: Tensor                      # float64 [min(N, d), d], rootᵀ root is the sample covariance (divisor N - 1)


def moments(features: Tensor) -> Moments:
    """Of finite features [N, d], N >= 2; raises as `frechet_distance` does."""
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"a Fréchet distance needs features [N, d] with N >= 2, got {list(features.shape)}")
    if not features.isfinite().all():
        raise Diverged("features are not finite: no Fréchet distance exists")
    x = features.double()
    mean = x.mean(0)
    return Moments(mean, torch.linalg.qr((x - mean) / (len(x) - 1) ** 0.5, mode="r").R)


@overload
def frechet_distance(x: Tensor, y: Tensor | Moments) -> float: ...
@overload
def frechet_distance(x: Tensor, y: Tensor | Moments, blocks: Tensor) -> Jackknife: ...
def frechet_distance(x: Tensor, y: Tensor | Moments, blocks: Tensor | None = None) -> float | Jackknife:
    """d² = |m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), with its jackknife over x where blocks are given.

    x: [N, d], y: [M, d] or its moments, finite, N, M >= 2, computed in float64; m the sample means, C the sample covariances (divisor N - 1),
    which may be rank-deficient (N <= d). blocks: int64 [N] from `jackknife_blocks`, N >= 40. Unit: that of the features, squared.
    A square, although called a distance. A negative number can only be rounding (-2e-13 for identical sets) and is given as 0;
    the debiased value estimates without bias, so it may be negative in earnest and is left so.
    The jackknife is over x; y is held fixed, so the bias of a finite reference (about c/M, the same for every x) stays.
    Raises DataError for sets that have no distance, Diverged for features that are not finite.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6. Bias: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    m_x, r_x = moments(x)                                                          # [d], [min(N, d), d]; C = rᵀ r
    m_y, r_y = y if isinstance(y, Moments) else moments(y)
    if len(m_x) != len(m_y):
        raise DataError(f"a Fréchet distance needs features of one length, got {len(m_x)} and {len(m_y)}")
    # tr (C_x C_y)^(1/2) is the sum of singular values of r_x r_yᵀ: no square root of a matrix that is not symmetric.
    trace = torch.linalg.svdvals(r_x @ r_y.T).sum()
    distance = max(0.0, float((m_x - m_y).square().sum() + r_x.square().sum() + r_y.square().sum() - 2 * trace))
    return distance if blocks is None else jackknife(distance, _left_out(x.double() - m_x, m_x - m_y, r_y, blocks))


def _left_out(a: Tensor, shift: Tensor, r_y: Tensor, blocks: Tensor) -> Tensor:
    """The distances without block j, float64 [20], from running sums: a decomposition each, and no product as large as the whole.

    a: x - m_x, [N, d]; centred first, so that sums of squares lose no digits. shift: m_x - m_y. With b = a r_yᵀ the singular values of
    r_x r_yᵀ are the roots of the eigenvalues of b's covariance.
    """
    count = len(a)
    if count < FEWEST or blocks.shape != (count,):
        raise DataError(f"a jackknife needs at least {FEWEST} samples and a block for each, got {count} samples and {len(blocks)} blocks")
    b = a @ r_y.T                                                                  # [N, min(M, d)]
    scatter, squares, trace_y = b.T @ b, a.square().sum(), r_y.square().sum()
    distances = []
    for j in range(BLOCKS):
        a_j, b_j = a[blocks == j], b[blocks == j]                                  # [n_j, d]
        rest = count - len(a_j)
        delta = -a_j.sum(0) / rest                                                 # how far the mean moves
        moved = delta @ r_y.T
        trace_x = (squares - a_j.square().sum() - rest * delta.square().sum()) / (rest - 1)
        eigenvalues = torch.linalg.eigvalsh((scatter - b_j.T @ b_j - rest * torch.outer(moved, moved)) / (rest - 1))
        # The root of a rounded zero is 1e-8, not 1e-16: where N <= d hundreds of them would add up.
        noise = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues.abs().max()
        trace = eigenvalues[eigenvalues > noise].sqrt().sum()
        distances.append((shift + delta).square().sum() + trace_x + trace_y - 2 * trace)
    return torch.stack(distances)
