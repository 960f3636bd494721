"""Verdicts on whether one version is slower, from laps in turns: a ratio and an exact rank test must agree.

Used by `twice`.

Laps come in pairs, one of each version just after the other, and pairs of laps in pairs of processes. The ratio, the
median over pairs of processes of the median over their pairs of laps, keeps differences that matter to nobody from
being said; the rank test keeps luck from being said.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from diffbench.stats.over_seeds import holm

THRESHOLD = 1.03                      # a ratio that is worth saying
SIGNIFICANT = 0.01                    # of all cases of one comparison together, by Holm


@dataclass(frozen=True, kw_only=True)
class Laps:
    """Seconds of one run by lap, of one case, in one pair of processes; the i-th laps of both stood side by side."""

    there: tuple[float, ...]          # the other version
    here: tuple[float, ...]

    @property
    def ratio(self) -> float:
        """Median of here over there."""
        return statistics.median(b / a for a, b in zip(self.there, self.here, strict=True))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one case."""

    name: str
    clock: str                        # "wall", or "processor": the time the process had a processor
    there_seconds: float              # median of all laps, of one run
    here_seconds: float
    ratio: float                      # here over there: above 1 is slower
    ratios: tuple[float, ...]         # by pair of processes
    p_slower: float                   # one-sided, exact, adjusted for the number of cases
    p_faster: float
    threshold: float

    @property
    def is_slower(self) -> bool:
        return self.ratio > self.threshold and self.p_slower < SIGNIFICANT

    @property
    def is_faster(self) -> bool:
        return self.ratio < 1 / self.threshold and self.p_faster < SIGNIFICANT

    @property
    def word(self) -> str:
        return "slower" if self.is_slower else "faster" if self.is_faster else "no difference found"


def judge(measured: dict[tuple[str, str], list[Laps]], threshold: float = THRESHOLD) -> list[Verdict]:
    """A verdict for each case, in order; `measured` holds, by case and clock, the laps of each pair of processes.

    A case that differs by one clock differs. The processor's is told where there is no more to say: on a busy machine
    it is the steadier one, and only the wall's sees a process wait.
    """
    differences = {key: [math.log(b / a) for laps in pairs for a, b in zip(laps.there, laps.here, strict=True)]
                   for key, pairs in measured.items()}
    slower = holm([signed_rank_p(d) for d in differences.values()])
    faster = holm([signed_rank_p([-x for x in d]) for d in differences.values()])
    verdicts: dict[str, Verdict] = {}
    for ((name, clock), pairs), p_slower, p_faster in zip(measured.items(), slower, faster, strict=True):
        ratios = tuple(laps.ratio for laps in pairs)
        verdict = Verdict(
            name=name, clock=clock, ratio=statistics.median(ratios), ratios=ratios, p_slower=p_slower,
            p_faster=p_faster, threshold=threshold,
            there_seconds=statistics.median(s for laps in pairs for s in laps.there),
            here_seconds=statistics.median(s for laps in pairs for s in laps.here))
        before = verdicts.get(name)
        rank = (verdict.is_slower, verdict.is_faster, verdict.clock == "processor")
        if before is None or rank > (before.is_slower, before.is_faster, False):
            verdicts[name] = verdict
    return list(verdicts.values())


def signed_rank_p(differences: Sequence[float]) -> float:
    """P(W >= observed) of Wilcoxon's signed-rank statistic where signs are as good as coins: small where differences
    are above 0. Exact, ties included.

    differences: any number; zeros are left out, equal sizes share their mean rank. 1 where none is left.
    Source: Wilcoxon 1945; with ties it is the permutation test on the observed ranks.
    """
    nonzero = sorted((d for d in differences if d), key=abs)
    doubled: list[int] = []                               # twice the mean ranks, which are whole
    while len(doubled) < len(nonzero):
        first = len(doubled)
        equal = sum(abs(d) == abs(nonzero[first]) for d in nonzero)
        doubled += [2 * first + 1 + equal] * equal
    observed = sum(rank for d, rank in zip(nonzero, doubled, strict=True) if d > 0)
    # The coefficient of x^w in the product of (1 + x^rank) is the number of sign patterns with that sum: a polynomial
    # packed into one integer.
    width = len(nonzero) // 8 + 1                         # bytes of a coefficient, which is at most 2^n
    patterns = 1
    for rank in doubled:
        patterns += patterns << (8 * rank * width)
    packed = patterns.to_bytes((sum(doubled) + 1) * width, "little")
    return sum(int.from_bytes(packed[w * width : (w + 1) * width], "little")
               for w in range(observed, sum(doubled) + 1)) / 2 ** len(nonzero)
