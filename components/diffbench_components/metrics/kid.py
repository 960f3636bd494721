"""The kernel distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffbench import DataError, Evidence, Extractor, Measured, NoInterval, Real, SampleMetric, blocks_of, jackknife
from diffbench_components.metrics.features import in_rows, pair_of

BLOCKS = 20


@dataclass(frozen=True, kw_only=True)
class Kid(SampleMetric):
    """Kernel distance of features: squared MMD under the kernel (x·y/d + 1)³; lower is better.

    It is of all samples at once: no subsets and no random numbers.
    The column is `kid` on Inception-v3 in its published weights, else `kid_<extractor>`. "": the estimate that has no
    bias for independent samples; it may be slightly negative. Samples whose classes were asked for in turn are not
    independent: pairs of one class are rarer, and the estimate is low by about c/N. "_debiased" is without that, "_low"
    and "_high" are its 95 % interval over generated samples (measured on ten Gaussian classes in turn: 99 % coverage,
    and 4 % around "" itself). They need 40 samples and, of each class whose share was fixed, a multiple of 20 or about
    80. What other tools print beside theirs is the spread between subsets, which is no error of the estimate (eight
        times too large at 1,000 samples in subsets of 100).
    Cost: the kernel of N x N, N x M and M x M pairs, in rows that fit the memory.
    Source: Bińkowski et al. 2018, arXiv:1801.01401, section 4; the estimator: Gretton et al. 2012, JMLR 13, lemma 6.
    """

    prefers_copies: ClassVar[bool] = True
    removes_bias: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return f"kid{extractor.column_suffix}"

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        x, y = pair_of(generated, real.reference, "a kernel distance")
        blocks = blocks_of(generated)
        if isinstance(blocks, str):
            return {"": NoInterval(kernel_distance(x, y)[0], blocks)}
        value, left_out = kernel_distance(x, y, blocks)
        return {"": jackknife(value, left_out)}


def kernel_distance(x: Tensor, y: Tensor, blocks: Tensor | None = None) -> tuple[float, Tensor | None]:
    """(the unbiased estimate of MMD², the same without each block of x, float64 [20]);
    x [N, d], y [M, d] float64, N, M >= 2.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise DataError(f"a kernel distance needs at least two samples on both sides, got {n} and {m}")
    belongs = torch.zeros(n, BLOCKS, dtype=torch.float64)                # [N, 20], one row per sample
    belongs[torch.arange(n), torch.zeros(n, dtype=torch.int64) if blocks is None else blocks] = 1
    xx = torch.zeros(BLOCKS, BLOCKS, dtype=torch.float64)                # sums of the kernel over pairs of blocks
    xy = torch.zeros(BLOCKS, dtype=torch.float64)
    for rows, part in in_rows(x, n + m):
        k = kernel(part, x)
        k[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = 0          # no sample with itself
        xx += belongs[rows].T @ k @ belongs
        xy += belongs[rows].T @ kernel(part, y).sum(1)
    yy = -kernel_of_itself(y)
    for _, part in in_rows(y, m):
        yy += float(kernel(part, y).sum())

    def estimate(xx: Tensor, xy: Tensor, n: Tensor | int) -> Tensor:
        return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)
    value = float(estimate(xx.sum(), xy.sum(), n))
    if blocks is None:
        return value, None
    left = n - belongs.sum(0)
    return value, estimate(xx.sum() - 2 * xx.sum(1) + xx.diagonal(), xy.sum() - xy, left)


def kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x·y/d + 1)³, [N, M]."""
    return (x @ y.T).div_(x.shape[1]).add_(1).pow_(3)


def kernel_of_itself(x: Tensor) -> float:
    """The sum of k(x_i, x_i)."""
    return float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
