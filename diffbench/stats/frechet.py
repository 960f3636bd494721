"""The Fréchet distance between two sets of features, with an interval. Used by metrics."""

from __future__ import annotations

import math
from typing import NamedTuple, overload

import torch
from torch import Tensor

from diffbench.errors import DataError, Diverged
from diffbench.stats.jackknife import BLOCKS, FEWEST, Jackknife, Measured, NoInterval, extrapolated, halves, rounded_up


class Moments(NamedTuple):
    """Mean and root of the covariance of a set of features: computed once for a reference."""

    mean: Tensor                      # float64 [d]
    root: Tensor                      # float64 [min(N, d), d], rootᵀ root is the sample covariance (divisor N - 1)


def moments(features: Tensor) -> Moments:
    """The moments of finite features [N, d], N >= 2. Raises as `frechet_distance` does."""
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
def frechet_distance(x: Tensor, y: Tensor | Moments, blocks: Tensor | str) -> Jackknife | NoInterval: ...
def frechet_distance(x: Tensor, y: Tensor | Moments, blocks: Tensor | str | None = None) -> Measured:
    """d² = |m_x - m_y|² + tr(C_x + C_y - 2 (C_x C_y)^(1/2)); with its interval, or why there is none, given blocks.

    x: [N, d], y: [M, d] or its moments, finite, N, M >= 2, computed in float64; m the sample means, C the sample
    covariances (divisor N - 1), which may be rank-deficient (N <= d). blocks: from `blocks_of`. Unit: that of the
    features, squared. A square, although called a distance. A negative number can only be rounding (-2e-13 for
    identical sets) and is given as 0; the debiased value estimates without bias, so it may be negative in earnest and
    is left so. The interval is over x; y is held fixed, so the bias of a finite reference (about c/M, the same for
    every x) stays. It is given where N is at least twice the effective number of features of the reference and the bias
    falls as 1/N (`jackknife.extrapolated`).
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
    if blocks is None:
        return distance
    if isinstance(blocks, str):
        return NoInterval(distance, blocks)
    if len(x) < FEWEST or blocks.shape != (len(x),):
        raise DataError(f"a jackknife needs at least {FEWEST} samples and a block for each, got {len(x)} samples and "
                        f"{len(blocks)} blocks")
    effective = effective_features(r_y)
    if len(x) < fewest_samples(effective):
        return NoInterval(distance, f"{len(x):,} samples are too few for features that vary in about {effective:.0f} "
                                    f"directions: {fewest_samples(effective):,} might do")
    subsets = torch.cat([~torch.eye(BLOCKS, dtype=torch.bool), halves()])[:, blocks]
    of_some = _subset_distances(x.double() - m_x, m_x - m_y, r_y, subsets)
    return extrapolated(distance, of_some[:BLOCKS], of_some[BLOCKS:], len(x), ratio=effective / len(x))


def effective_features(root: Tensor) -> float:
    """The effective number of directions in which features vary: (Σ s)²/Σ s², in [1, d], or 0 where none vary.

    s: the singular values of a root of their covariance. d where all vary alike, about 4 d/log d where variances fall
    as 1/i, and 28 of 512 where they fall as 1/i².
    """
    spread = torch.linalg.svdvals(root)
    return float(spread.sum().square() / spread.square().sum()) if float(spread.sum()) else 0.0


def fewest_samples(effective: float) -> int:
    """The samples from which on an interval is tried, for features with so many effective directions."""
    return max(FEWEST, math.ceil(2 * effective))


def enough_samples(features: int) -> int:
    """The samples, rounded up, with which so many features have an interval for any spectrum: 0.6 d^(3/2).

    What a bias leaves after extrapolation is about d³/(16 N²) where all features vary alike, and SE about d/N; the
    factor is from 64 and 256 features. Features with few directions need far fewer.
    """
    return max(FEWEST, rounded_up(0.6 * features**1.5))


def _subset_distances(a: Tensor, shift: Tensor, r_y: Tensor, subsets: Tensor) -> Tensor:
    """The distances of subsets of the samples, float64 [S].

    From sums over the samples or over those left out, whichever are fewer. a: x - m_x, [N, d]; centred first, so that
    sums of squares lose no digits. shift: m_x - m_y. subsets: bool [S, N]. With b = a r_yᵀ the singular values of r_x
    r_yᵀ are the roots of the eigenvalues of b's covariance, or of its Gram matrix where that is smaller.
    """
    b, squares, trace_y = a @ r_y.T, a.square().sum(1), r_y.square().sum()         # [N, min(M, d)], [N]
    scatter, distances = b.T @ b, []
    for is_in_subset in subsets:
        count, mean = int(is_in_subset.sum()), a[is_in_subset].mean(0)
        moved = mean @ r_y.T
        if count < b.shape[1]:
            centred = b[is_in_subset] - moved
            square = centred @ centred.T
        else:
            inner = (b[is_in_subset].T @ b[is_in_subset]
                     if 2 * count <= len(a) + BLOCKS else scatter - b[~is_in_subset].T @ b[~is_in_subset])
            square = inner - count * torch.outer(moved, moved)
        eigenvalues = torch.linalg.eigvalsh(square / (count - 1))
        # The root of a rounded zero is 1e-8, not 1e-16: where N <= d hundreds of them would add up.
        rounding = len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues.abs().max()
        trace_x = (squares[is_in_subset].sum() - count * mean.square().sum()) / (count - 1)
        trace = eigenvalues[eigenvalues > rounding].sqrt().sum()
        distances.append((shift + mean).square().sum() + trace_x + trace_y - 2 * trace)
    return torch.stack(distances)
