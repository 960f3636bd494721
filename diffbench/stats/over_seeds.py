"""Estimates over seeds: means with intervals, the parts of their spread, and differences of rows.

Used by `results` and `report`.

A number has two seeds: of the training and of the sampling noise. All rows share the noise by sample index, so that
differences are taken number by number: what both share falls out of them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy

from diffbench.stats.numbers_of_rows import CONFIDENCE, LEVEL, Number, Seeds, quantile

POWER = 0.80
_ROUNDING = 1e-9                      # share of a number below which its spread over seeds is rounding


class Spread(NamedTuple):
    """Variances between seeds.

    Estimates are unbiased, so they may be slightly negative; NaN where seeds cannot tell.
    """

    training: float = math.nan        # between trainings
    sampling: float = math.nan        # between sampling seeds, the training held fixed
    residual: float = math.nan        # what is left after both; only where the seeds are crossed


class Part(NamedTuple):
    """One independent part of the variance of a mean, with its degrees of freedom."""

    variance: float
    degrees: float


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean over seeds with its error, which is NaN where the data give none."""

    value: float                      # mean of the numbers as printed
    debiased: float                   # mean of those without bias
    parts: tuple[Part, ...]           # of the variance of `debiased`; their sum is the square of its standard error
    low: float                        # 95 % interval of `debiased`; of a single row the one that its metric gives
    high: float
    design: str                       # "one", "together", "training", "sampling" or "crossed": see `design_of`
    seeds: tuple[Seeds, ...]          # used
    spread: Spread

    @property
    def standard_error(self) -> float:
        """The standard error of `debiased`."""
        return math.sqrt(sum(part.variance for part in self.parts))

    @property
    def half_width(self) -> float:
        """The smallest difference from zero that would have been significant here."""
        return _half_width(self.parts, LEVEL)

    @property
    def degrees(self) -> float:
        """The degrees of freedom for which `half_width` is Student's quantile times `standard_error`."""
        from scipy.special import stdtridf

        if len(self.parts) == 1 or not self.standard_error > 0:
            return min(part.degrees for part in self.parts)
        return float(stdtridf(1 - LEVEL / 2, self.half_width / self.standard_error))

    @property
    def p(self) -> float:
        """Two-sided p-value of "there is no difference from zero"; NaN where there is no interval.

        It is the level at which the interval ends at zero: below 0.05 exactly where `low` to `high` leaves zero out,
        skewed intervals of shares included.
        """
        from scipy.special import stdtr

        if self.debiased == 0 == self.standard_error:
            return 1.0
        if math.isnan(self.standard_error):
            return math.nan
        if len(self.parts) == 1:
            to_zero = self.debiased - self.low if self.debiased > 0 else self.high - self.debiased
            return float(
                2 * stdtr(self.parts[0].degrees, -abs(self.debiased) * t_quantile(self.parts[0].degrees) / to_zero))
        # of the logarithm of p, by bisection: the half width falls as p rises
        low, high = math.log(sys.float_info.min), 0.0
        while high - low > 1e-9:
            middle = (low + high) / 2
            low, high = ((middle, high) if _half_width(self.parts, math.exp(middle)) > abs(self.debiased)
                         else (low, middle))
        return math.exp(high)

    @property
    def resolvable(self) -> float:
        """The true difference that an experiment like this one finds significant in 80 of 100 repeats."""
        from scipy.special import nctdtrinc

        degrees = min(self.degrees, 1e6)
        return float(nctdtrinc(degrees, 1 - POWER, t_quantile(degrees))) * self.standard_error

    @property
    def basis(self) -> str:
        """The basis of the interval, in words."""
        trainings, samplings = (len(set(s)) for s in zip(*self.seeds, strict=True))
        if math.isnan(self.standard_error):
            return ("one number, no interval" if len(self.seeds) == 1
                    else f"{len(self.seeds)} seeds that agree to the last digit, no interval")
        if self.design == "one":
            return ("block jackknife over samples" if math.isfinite(self.degrees)
                    else "intervals of both shares, unpaired")
        return {"together": f"{trainings} seeds", "training": f"{trainings} training seeds that share their noise, and "
                                                              "the block jackknife over samples",
                "sampling": f"{samplings} sampling seeds of one training",
                "crossed": f"{trainings} training x {samplings} sampling seeds"}[self.design]


def estimate(numbers: Mapping[Seeds, Number]) -> Estimate:
    """The mean of at least one number, with the error that the design of its seeds allows.

    "one": SE of the metric's own interval, t(19) where it is a block jackknife. "together": both seeds change at once:
    t over them; the sampling part of the spread is what the jackknife says of each, the training part the rest.
    "sampling": over sampling seeds, for this training alone. "training": over trainings that share one noise, to which
    the jackknife of the mean is added. "crossed": two-way random effects.

    No variance is taken to be smaller than what finitely many samples alone give the mean: two seeds of a share, which
    is a multiple of 1/n, often agree to the last digit, and their spread is then zero without any meaning. Where
    nothing but such a spread is known, there is no interval.
    """
    design, seeds = design_of(numbers)
    used_numbers = [numbers[s] for s in seeds]
    y = numpy.array([n.debiased for n in used_numbers])
    of_samples = float(numpy.mean([n.standard_error**2 for n in used_numbers]))
    n, total = len(y), float(y.var(ddof=1)) if len(y) > 1 else math.nan
    samples = _of_samples(seeds, numbers)
    if design == "one":
        parts, spread = [samples], Spread(sampling=of_samples)
    elif design == "together":
        parts, spread = ([Part(numpy.fmax(total / n, samples.variance), n - 1.0)],
                         Spread(training=total - of_samples, sampling=of_samples))
    elif design == "sampling":
        # spread over seeds and samples' own error are one quantity, the latter known better
        degrees = n - 1.0 if math.isnan(samples.variance) else samples.degrees
        parts, spread = [Part(numpy.fmax(total / n, samples.variance), degrees)], Spread(sampling=total)
    elif design == "training":
        parts = [Part(total / n, n - 1.0), *([] if math.isnan(samples.variance) else [samples])]
        spread = Spread(training=total, sampling=of_samples)
    else:
        variance, degrees, spread = _crossed(y.reshape(-1, len({s.sampling for s in seeds})))
        parts = [Part(numpy.fmax(variance, samples.variance), degrees)]
    middle = float(y.mean())
    if sum(part.variance for part in parts) <= (_ROUNDING * numpy.abs(y).max()) ** 2 and middle != 0:
        parts = [Part(math.nan, math.nan)]                # seeds that agree, and nothing known of the samples
    half = _half_width(parts, LEVEL)
    low, high = (used_numbers[0].low,
                 used_numbers[0].high) if design == "one" and not math.isnan(used_numbers[0].low) else (middle - half,
                                                                                                        middle + half)
    return Estimate(value=float(numpy.mean([n.value for n in used_numbers])), debiased=middle,
                    parts=tuple(Part(float(v), float(d)) for v, d in parts),
                    low=low, high=high, design=design, seeds=seeds, spread=spread)


def design_of(numbers: Iterable[Seeds]) -> tuple[str, tuple[Seeds, ...]]:
    """The design of the seeds, and the seeds that are used, sorted."""
    seeds = sorted(numbers)
    trainings, samplings = {s.training for s in seeds}, {s.sampling for s in seeds}
    if len(seeds) > 1 and len(trainings) == len(samplings) == len(seeds):
        return "together", tuple(seeds)
    having = {t: frozenset(s.sampling for s in seeds if s.training == t) for t in sorted(trainings)}
    columns = {*having.values(), frozenset.intersection(*having.values())} - {frozenset()}
    grids = [([t for t, has in having.items() if column <= has], sorted(column))
             for column in sorted(columns, key=sorted)]
    rows, column = max(grids, key=lambda grid: (len(grid[0]) * len(grid[1]), len(grid[0])))
    design = ("crossed" if len(rows) > 1 < len(column) else "training" if len(rows) > 1
              else "sampling" if len(column) > 1 else "one")
    return design, tuple(Seeds(t, s) for t in rows for s in column)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: one below 0.05 is a mistake in any of the comparisons in at most 5 % of cases.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, p. 65-70.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def may_be_best(to_best: Sequence[Estimate], higher_is_better: bool) -> list[bool]:
    """Whether each row may be the best one, by its difference to the row whose mean is best.

    One-sided at 5 % over the number of rows. Whichever row is truly best, it is left out only if some row seems better
    than it at that level, and there are so many others: the rows left, with the best, hold the truly best one in 95 %
    of cases, although the data chose what to compare with.
    Source: Hsu 1984, Annals of Statistics 12, p. 1136-1144 (multiple comparisons with the best), with Bonferroni's
    bound.
    """
    level = (1 - CONFIDENCE) / max(1, len(to_best))
    return [math.isnan(d.p) or (d.debiased >= 0) == higher_is_better or d.p / 2 >= level for d in to_best]


def pooled(spreads: Iterable[Spread]) -> Spread:
    """Standard deviations from the mean variances of many rows. A variance below zero counts as none."""
    parts = zip(*spreads, strict=True)
    finite = ([v for v in part if not math.isnan(v)] for part in parts)
    return Spread(*(math.sqrt(max(0.0, sum(part) / len(part))) if part else math.nan for part in finite))


def t_quantile(degrees: float) -> float:
    """The 97.5 % quantile of Student's t."""
    return quantile(degrees, LEVEL)


def _half_width(parts: Iterable[Part], level: float) -> float:
    """Half the interval of a mean whose variance has these parts: the parts' own half widths, added in squares.

    It holds the truth at least as often as it says whatever the shares of the parts are; one Student's t with
    Satterthwaite's degrees of freedom for their sum does not, where a part known by two or three seeds happens to come
    out small. Source: Banerjee 1960, Annals of Mathematical Statistics 31.
    """
    return math.sqrt(sum(quantile(part.degrees, level) ** 2 * part.variance for part in parts))


def _of_samples(seeds: Sequence[Seeds], numbers: Mapping[Seeds, Number]) -> Part:
    """The variance of the mean from finitely many samples alone; NaN where their error is not known.

    Numbers of one sampling seed share their noise, in which the mean of their left-out values moves as one; where there
    are none they count as moving together. Different sampling seeds are independent.
    """
    by_sampling: dict[int, list[Number]] = {}
    for s in seeds:
        by_sampling.setdefault(s.sampling, []).append(numbers[s])
    variances, degrees = [], 0.0
    for some in by_sampling.values():
        if some[0].left_out and len({len(n.left_out) for n in some}) == 1:
            mean = Number(0.0, 0.0, tuple(numpy.mean([n.left_out for n in some], axis=0)))
            variances.append(mean.standard_error**2)
            degrees += len(mean.left_out) - 1.0
        else:
            variances.append(float(numpy.mean([n.standard_error**2 for n in some])))
            degrees = math.inf
    return Part(sum(variances) / len(variances) ** 2, degrees)


def _crossed(y: numpy.ndarray) -> tuple[float, float, Spread]:
    """(variance of the mean, degrees of freedom, components) of y [training, sampling] = mean + training + sampling +
    residual.

    A component that is not above zero is left out, and its mean square joins the residual's. Simulated coverage is 94
    to 98 % from three seeds of each on, and 90 to 98 % with two (benchmarks/seed_comparisons.py).
    Source: Searle, Casella & McCulloch 1992, "Variance components"; Satterthwaite 1946, Biometrics Bulletin 2, p.
    110-114.
    """
    a, b = y.shape
    by_training, by_sampling = y.mean(1, keepdims=True), y.mean(0, keepdims=True)
    squares = (b * ((by_training - y.mean()) ** 2).sum(), a * ((by_sampling - y.mean()) ** 2).sum(),
               ((y - by_training - by_sampling + y.mean()) ** 2).sum())
    df = (a - 1, b - 1, (a - 1) * (b - 1))
    training, sampling, residual = (float(s / n) for s, n in zip(squares, df, strict=True))           # mean squares
    spread = Spread((training - residual) / b, (sampling - residual) / a, residual)
    if training > residual < sampling:
        combined = training + sampling - residual
        degrees = combined**2 / (training**2 / df[0] + sampling**2 / df[1] + residual**2 / df[2])
        return combined / (a * b), max(degrees, min(df[0], df[1])), spread
    if training > residual:
        return training / (a * b), df[0], spread
    if sampling > residual:
        return sampling / (a * b), df[1], spread
    return float(sum(squares)) / sum(df) / (a * b), sum(df), spread
