"""The block jackknife: a statistic of samples without its bias, and how sure it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from diffbench.errors import DataError

if TYPE_CHECKING:
    from diffbench.values import Evidence

BLOCKS = 20
FEWEST = 2 * BLOCKS                   # two samples a block: below it there is no interval
_T_QUANTILE = 2.093024054408263       # Student's t with BLOCKS - 1 degrees of freedom, 97.5 %
_Z_QUANTILE = 1.959963984540054       # standard normal, 97.5 %


class Jackknife(NamedTuple):
    """A statistic with its block jackknife; `low` to `high` is the 95 % interval of `debiased`, not of `value`."""

    value: float
    debiased: float
    standard_error: float
    low: float
    high: float
    left_out: tuple[float, ...]       # the statistic without block 0, 1, ... 19


def jackknife_blocks(count: int, labels: Tensor | None = None) -> Tensor:
    """The block of each of `count` samples, int64 [count] in 0..19: position in the order of labels, mod 20.

    labels: int64 [count] or None, where the order is that of the samples. Labels of generated samples go round (sample i has
    label i mod K), so i mod 20 itself would fill a block with one class where K divides 20; sorted, each block is a small copy
    of the whole, exactly so where `count` is a multiple of 20 K. The error is then that of samples whose shares of classes are
    fixed: give no labels where the shares were drawn at random.
    """
    order = torch.arange(count) if labels is None else torch.argsort(labels.cpu(), stable=True)
    blocks = torch.empty(count, dtype=torch.int64)
    blocks[order] = torch.arange(count) % BLOCKS
    return blocks


def blocks_of(generated: Evidence) -> Tensor | None:
    """The blocks of a set of images, int64 [N]; None where there are fewer than 40, too few for an interval.

    Stratified by class where the shares of classes were fixed beforehand, as for generated samples, whose labels go round. Real images
    drawn at random vary in their shares too, and stratified blocks would hide that part of bias and error (measured on ten
    Gaussian classes: 37 % coverage instead of 97 %).
    """
    if len(generated.features) < FEWEST:
        return None
    counts = None if generated.labels is None else generated.labels.unique(return_counts=True)[1]
    is_by_design = counts is not None and int(counts.max() - counts.min()) <= 1
    return jackknife_blocks(len(generated.features), generated.labels if is_by_design else None)


def jackknifed(statistic: Callable[[Tensor], float], blocks: Tensor | None, count: int, *, is_biased: bool = True) -> float | Jackknife:
    """A statistic of those samples that a mask, bool [count], keeps: of all, and without each block in turn."""
    everything = torch.ones(count, dtype=torch.bool)
    value = statistic(everything)
    if blocks is None:
        return value
    return jackknife(value, torch.tensor([statistic(blocks != j) for j in range(BLOCKS)], dtype=torch.float64), is_biased=is_biased)


def jackknifed_mean(values: Tensor, blocks: Tensor | None) -> float | Jackknife:
    """The mean of one number per sample, [N]: without bias."""
    values = values.double()
    return jackknifed(lambda kept: float(values[kept].mean()), blocks, len(values), is_biased=False)


def jackknifed_share(hits: Tensor, blocks: Tensor | None) -> float | Jackknife:
    """The share of samples that hit, bool [N]: without bias, with Wilson's interval.

    A jackknife of no hits at all would give an interval without width, and of few one that begins below 0.
    Samples count as independent: where classes differ in their shares and are asked for in turn, the interval is wider than it need be.
    """
    share = jackknifed_mean(hits, blocks)
    if not isinstance(share, Jackknife):
        return share
    low, high = wilson(int(hits.sum()), len(hits))
    return share._replace(low=low, high=high)


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from k of n: where |p - k/n| = z sqrt(p (1 - p)/n). In [0, 1], with a width at k = 0 and k = n.

    Source: Wilson 1927, JASA 22(158), p. 209-212.
    """
    p, z2 = k / n, _Z_QUANTILE**2
    centre = p + z2 / (2 * n)
    half = _Z_QUANTILE * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5
    # At k = 0 and k = n one end is 0 or 1 exactly, which rounding misses.
    return 0.0 if k == 0 else (centre - half) / (1 + z2 / n), 1.0 if k == n else (centre + half) / (1 + z2 / n)


def jackknife(value: float, left_out: Tensor, *, is_biased: bool = True) -> Jackknife:
    """Bias-corrected value = 20 θ - 19 mean(θ_-j), SE² = 19/20 Σ (θ_-j - mean)², interval = ± t_0.975(19) SE.

    value: θ, the statistic of all samples; left_out: θ_-j, float64 [20], the same without block j.
    Removes a bias that falls as 1/N. A bootstrap of the same statistic doubles the bias and covers nothing.
    is_biased: False where θ has no such bias, or where the number of samples is part of what it means: the interval is then that of θ itself.
    Source: Efron & Stein 1981, "The jackknife estimate of variance", with blocks for samples.
    """
    if len(left_out) != BLOCKS:
        raise DataError(f"the jackknife takes {BLOCKS} values, one per block left out, got {len(left_out)}")
    mean = left_out.mean()
    debiased = float(BLOCKS * value - (BLOCKS - 1) * mean) if is_biased else value
    standard_error = float(((BLOCKS - 1) / BLOCKS * (left_out - mean).square().sum()).sqrt())
    return Jackknife(value, debiased, standard_error, debiased - _T_QUANTILE * standard_error, debiased + _T_QUANTILE * standard_error,
                     tuple(left_out.tolist()))
