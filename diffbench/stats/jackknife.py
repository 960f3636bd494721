"""The block jackknife: bias and interval of a statistic of samples. Used by metrics and by `frechet`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.errors import DataError

# Ends of the name of a value: what its interval adds, and why it has none, empty where it has one.
INTERVAL, NO_INTERVAL = ("_debiased", "_low", "_high"), "_no_interval"
BLOCKS = 20
FEWEST = 2 * BLOCKS                   # two samples a block: below it there is no interval
_T_QUANTILE = 2.093024054408263       # Student's t with BLOCKS - 1 degrees of freedom, 97.5 %
_Z_QUANTILE = 1.959963984540054       # standard normal, 97.5 %
_SAME = 1e-12                         # relative difference below which numbers are equal but for rounding
_MOST_UNEVEN = 0.06                   # see `unevenness`; above it the bias is not what the blocks show
_LARGEST_ERROR = 0.25                 # of a bias that is left, in standard errors


class Jackknife(NamedTuple):
    """A statistic with its block jackknife; `low` to `high` is the 95 % interval of `debiased`, not of `value`."""

    value: float
    debiased: float
    standard_error: float
    low: float
    high: float
    left_out: tuple[float, ...]       # the statistic without block 0, 1, ... 19; none where it needs no blocks


class NoInterval(NamedTuple):
    """A statistic whose bias and error cannot be estimated from the samples, with the reason."""

    value: float
    reason: str                       # why, and how many samples would do, in a sentence without its full stop


Measured = float | Jackknife | NoInterval          # a number of a metric, with what is known of its error


def jackknife_blocks(count: int, labels: Tensor | None = None) -> Tensor:
    """The block of each of `count` samples, int64 [count] in 0..19: position in the order of labels, mod 20.

    labels: int64 [count] or None, where the order is that of the samples. Labels of generated samples follow their
    shares in every prefix (with equal ones sample i has label i mod K), so i mod 20 itself would fill a block with one
    class where K divides 20; sorted, each block is a small copy of the whole, exactly so where `count` is a multiple of
    20 K, and not at all where a class has fewer samples than there are blocks: see `unevenness`. The error is then that
    of samples whose shares of classes are fixed: give no labels where the shares were drawn at random.
    """
    order = torch.arange(count) if labels is None else torch.argsort(labels.cpu(), stable=True)
    blocks = torch.empty(count, dtype=torch.int64)
    blocks[order] = torch.arange(count) % BLOCKS
    return blocks


def unevenness(labels: Tensor, blocks: Tensor) -> float:
    """The deviation of blocks from equal shares of each class, 0 to about 1.

    The variance of the counts of classes in blocks over that of counts that are drawn at random.
    """
    _, labels = labels.cpu().unique(return_inverse=True)
    table = torch.zeros(BLOCKS, int(labels.max()) + 1, dtype=torch.float64)                        # [20, K]
    table.index_put_((blocks, labels), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    shares = table.sum(0) / len(labels)
    expected = table.sum(1, keepdim=True) * shares
    at_random = float((expected * (1 - shares)).sum())
    return float((table - expected).square().sum()) / at_random if at_random else 0.0


def why_no_blocks(count: int, labels: Tensor | None) -> str:
    """The reason why so many samples cannot be put into blocks, with a number that can; "" where they can.

    labels: int64 [count] whose shares were fixed beforehand, or None. Where classes have so few samples that blocks
    cannot hold each in its share, leaving one out changes the shares, which sampling never does, and a bias read off
    the blocks is
    wrong: 40 % coverage with 4 samples of each of 100 classes.
    """
    if count < FEWEST:
        return f"{count} samples are too few for {BLOCKS} blocks of two: {FEWEST} would do"
    if labels is None or unevenness(labels, jackknife_blocks(count, labels)) <= _MOST_UNEVEN:
        return ""
    counts = labels.unique(return_counts=True)[1].double()
    classes, is_even = len(counts), bool(counts.max() - counts.min() <= 1)
    # A count in a block is off by a variance of at most 1/4; with even shares nothing is off at multiples of 20 K.
    at_most = BLOCKS * classes / 4 / float(1 - (counts / count).square().sum())
    would_do = BLOCKS * classes if is_even else rounded_up(at_most / _MOST_UNEVEN)
    return (f"{count:,} samples of {classes:,} classes do not fill {BLOCKS} blocks with each class in its share: "
            f"{would_do:,} would do")


def jackknifed(statistic: Callable[[Tensor], float], blocks: Tensor | str, count: int, *,
               is_biased: bool = True) -> Jackknife | NoInterval:
    """A statistic with its jackknife: of all samples, without each block, and of halves.

    blocks: from `blocks_of`; where it is the reason why there are none, that is the reason why there is no interval.
    """
    value = statistic(torch.ones(count, dtype=torch.bool))
    if isinstance(blocks, str):
        return NoInterval(value, blocks)
    left_out = torch.tensor([statistic(blocks != j) for j in range(BLOCKS)], dtype=torch.float64)
    if not is_biased:
        return jackknife(value, left_out, is_biased=False)
    halved = torch.tensor([statistic(half[blocks]) for half in halves()], dtype=torch.float64)
    return extrapolated(value, left_out, halved, count)


def jackknifed_mean(values: Tensor, blocks: Tensor | str) -> Jackknife | NoInterval:
    """The mean of one number per sample, [N], with its jackknife; it has no bias."""
    values = values.double()
    return jackknifed(lambda mask: float(values[mask].mean()), blocks, len(values), is_biased=False)


def jackknifed_share(hits: Tensor, blocks: Tensor | str) -> Jackknife:
    """The share of samples that hit, bool [N], N >= 1: without bias, with Wilson's interval, which needs no blocks.

    A jackknife of no hits at all would give an interval without width, and of few one that begins below 0. Where
    leaving out any block gives the same share, these values are not kept, so that a difference of two shares rests on
    their intervals. Samples count as independent: where classes differ in their shares and are asked for in turn, the
    interval is wider than it need be.
    """
    share, (low, high) = float(hits.double().mean()), wilson(int(hits.sum()), len(hits))
    of_blocks = jackknifed_mean(hits, blocks)
    if isinstance(of_blocks, Jackknife):
        return of_blocks._replace(low=low, high=high)
    return Jackknife(share, share, (share * (1 - share) / len(hits)) ** 0.5, low, high, ())


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, from k of n: where |p - k/n| = z sqrt(p (1 - p)/n). In [0, 1], with a width at
    k = 0 and k = n.

    Source: Wilson 1927, JASA 22(158), p. 209-212.
    """
    p, z2 = k / n, _Z_QUANTILE**2
    centre = p + z2 / (2 * n)
    half = _Z_QUANTILE * (p * (1 - p) / n + z2 / (4 * n**2)) ** 0.5
    # At k = 0 and k = n one end is 0 or 1 exactly, which rounding misses.
    return 0.0 if k == 0 else (centre - half) / (1 + z2 / n), 1.0 if k == n else (centre + half) / (1 + z2 / n)


def jackknife(value: float, left_out: Tensor, *, is_biased: bool = True) -> Jackknife | NoInterval:
    """Bias-corrected value = 20 θ - 19 mean(θ_-j), SE² = 19/20 Σ (θ_-j - mean)², interval = ± t_0.975(19) SE.

    value: θ, the statistic of all samples; left_out: θ_-j, float64 [20], the same without block j.
    Removes a bias that falls as 1/N; `extrapolated` asks whether it does. A bootstrap of the same statistic doubles the
    bias and covers nothing.
    is_biased: False where θ has no such bias, or where the number of samples is part of what it means: the interval is
    then that of θ itself. Where all θ_-j are equal but for rounding the blocks tell no error, and there is no interval.
    Source: Efron & Stein 1981, "The jackknife estimate of variance", with blocks for samples.
    """
    if len(left_out) != BLOCKS:
        raise DataError(f"the jackknife takes {BLOCKS} values, one per block left out, got {len(left_out)}")
    mean = left_out.mean()
    debiased = float(BLOCKS * value - (BLOCKS - 1) * mean) if is_biased else value
    standard_error = float(((BLOCKS - 1) / BLOCKS * (left_out - mean).square().sum()).sqrt())
    if standard_error <= _SAME * max(abs(value), float(left_out.abs().max())):
        return NoInterval(
            value, f"leaving out any of {BLOCKS} blocks of samples gives the same number, so that they do "
                   "not tell its error; more samples may")
    half = _T_QUANTILE * standard_error
    return Jackknife(value, debiased, standard_error, debiased - half, debiased + half, tuple(left_out.tolist()))


def extrapolated(value: float, left_out: Tensor, halved: Tensor, count: int,
                 ratio: float = 0.5) -> Jackknife | NoInterval:
    """A statistic whose bias is extrapolated to infinite samples: the parabola in 1/N through N, 19 N/20 and N/2, at 0.

    value: θ of all `count` samples; left_out: θ_-j, float64 [20], without block j; halved: float64 [38], of the blocks
    in `halves`. Averages in which all blocks count alike keep what is linear in the samples, and over these halves what
    depends on pairs, so a parabola has no more noise than a line.
    SE² = 19/20 Σ (θ_-j - mean)² - V/2 with V, what pairs of samples add to the variance: the variance over splits of
    the mean of both halves. The jackknife counts it twice; half of V is left to it, because both are estimated from 19
    numbers. The interval holds each D with (D - debiased)² <= t² (SE² + g (D - debiased)), g = 2 V/bias. The variance
    of a squared distance D whose samples vary by σ² along its few directions is 4 D σ²/N + 2 σ⁴/N² and grows with D:
    near 0 an estimate that is too small comes with an error that is too small.
    ratio: of the error of the parabola's end to the distance between it and the end of the line of `jackknife`. Where
    that error is more than a quarter of SE, higher powers of 1/N are not small either, and no interval is given.
    How often intervals hold the truth: docs/metrics.md.
    Source: Efron & Stein 1981; the extrapolation: Chong & Forsyth 2020, arXiv:1911.07023.
    """
    line = jackknife(value, left_out)
    if isinstance(line, NoInterval):
        return line
    heights = {1.0: value, BLOCKS / (BLOCKS - 1): float(left_out.mean()), 2.0: float(halved.mean())}     # by N/size
    debiased = sum(height * math.prod(other_ratio / (other_ratio - size_ratio) for other_ratio in heights
                                      if other_ratio != size_ratio) for size_ratio, height in heights.items())
    of_pairs, bias = float(halved.view(2, -1).mean(0).var()), value - debiased
    standard_error = max(line.standard_error**2 - of_pairs / 2, line.standard_error**2 / 2) ** 0.5
    error = ratio * abs(debiased - line.debiased) / standard_error
    if error > _LARGEST_ERROR:
        # The error falls as N³ and SE as N at most.
        would_do = rounded_up(count * (error / _LARGEST_ERROR) ** 0.5)
        return NoInterval(value, f"the bias of {count:,} samples does not fall as 1/N: what is left of it after "
                                 f"extrapolation is about {error:.1f} standard errors; about {would_do:,} samples "
                                 "would do")
    of_one_direction = (8 * of_pairs) ** 0.5
    growth = max(-of_one_direction, min(of_one_direction, 2 * of_pairs / bias)) if bias else 0.0
    middle = _T_QUANTILE**2 * growth / 2
    half = (middle**2 + (_T_QUANTILE * standard_error) ** 2) ** 0.5
    low, high = debiased + middle - half, debiased + middle + half
    return Jackknife(value, debiased, standard_error, low, high, tuple(left_out.tolist()))


def halves() -> Tensor:
    """38 halves of the 20 blocks, bool [38, 20]: r and r + 19 are the two of one split; two blocks share a side in 9 of
    19.

    Source: the Hadamard matrix of order 20 by Paley's construction, from the squares modulo 19; McCarthy 1969,
    "Pseudo-replication: half samples".
    """
    prime = BLOCKS - 1
    squares = {i * i % prime for i in range(prime)}                                # with 0: a block is on its own side
    sides = torch.tensor([[(j - r) % prime in squares for j in range(prime)] + [False] for r in range(prime)])
    return torch.cat([sides, ~sides])


def rounded_up(count: float) -> int:
    """The number rounded up to two digits."""
    unit = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return math.ceil(count / unit) * unit
