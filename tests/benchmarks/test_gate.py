"""The gate of speed: the rank test against its definition, verdicts, and what is measured twice."""

import itertools
import math
import random

import pytest
import scipy.stats

from benchmarks.speed import gate, twice
from benchmarks.speed.gate import Laps
from benchmarks.speed.pairs import Measurements, Request, Version
from diffbench.errors import DiffbenchError


class TestRankTest:
    def test_it_is_scipys_exact_one_where_no_two_sizes_are_equal(self):
        draw = random.Random(0)
        for n in (1, 2, 5, 12, 30):
            for shift in (-0.5, 0.0, 0.5):
                differences = [draw.gauss(shift, 1) for _ in range(n)]
                assert gate.signed_rank_p(differences) == pytest.approx(scipy.stats.wilcoxon(differences, alternative="greater", method="exact").pvalue, rel=1e-12)

    def test_with_ties_and_zeros_it_is_the_share_of_sign_patterns_that_are_as_far(self):
        differences = [0.0, 1.0, -1.0, 2.0, 2.0, 2.0, -3.0, 5.0]
        kept = [d for d in differences if d]
        ranks = scipy.stats.rankdata([abs(d) for d in kept])
        observed = sum(r for r, d in zip(ranks, kept, strict=True) if d > 0)
        sums = [sum(r for r, plus in zip(ranks, signs, strict=True) if plus) for signs in itertools.product((False, True), repeat=len(kept))]
        assert gate.signed_rank_p(differences) == sum(s >= observed for s in sums) / len(sums)

    def test_its_ends(self):
        assert gate.signed_rank_p([]) == gate.signed_rank_p([0.0]) == gate.signed_rank_p([-1.0, -2.0]) == 1.0
        assert gate.signed_rank_p([1.0] * 36) == 2.0**-36


def laps(ratio, seed, noise=0.02, count=12):
    draw = random.Random(seed)
    there = [draw.gauss(1, noise) for _ in range(count)]
    return Laps(there=tuple(there), here=tuple(a * ratio * math.exp(draw.gauss(0, noise)) for a in there))


class TestVerdict:
    def verdict(self, *ratios, **more):
        (found,) = gate.judge({("x", "wall"): [laps(ratio, seed) for seed, ratio in enumerate(ratios)]}, **more)
        return found

    def test_a_slowdown_and_a_speedup_are_said_with_their_size(self):
        assert self.verdict(1.1, 1.1, 1.1).word == "slower" and self.verdict(1.1, 1.1, 1.1).ratio == pytest.approx(1.1, abs=0.02)
        assert self.verdict(0.9, 0.9, 0.9).word == "faster"

    def test_a_significant_difference_that_matters_to_nobody_is_not_said(self):
        found = self.verdict(*[1.015] * 20)
        assert found.p_slower < gate.SIGNIFICANT and found.word == "no difference found"
        assert self.verdict(*[1.015] * 20, threshold=1.005).word == "slower"

    def test_a_large_ratio_that_may_be_luck_is_not_said(self):
        (found,) = gate.judge({("x", "wall"): [Laps(there=(1.0, 1.0), here=(1.2, 1.2)) for _ in range(3)]})
        assert found.ratio == pytest.approx(1.2) and found.p_slower == 2.0**-6 > gate.SIGNIFICANT and not found.is_slower

    def test_one_bad_pair_of_processes_is_outvoted(self):
        assert self.verdict(1.0, 1.5, 1.0).word == "no difference found"

    def test_each_of_many_cases_needs_more_evidence(self):
        def measured(n):
            return {(f"{i}", "wall"): [laps(1.0, 3 * i + j) for j in range(3)] for i in range(n - 1)} | {("x", "wall"): [Laps(there=(1.0,) * 3, here=(1.1,) * 3)] * 3}
        assert gate.judge(measured(1))[-1].is_slower and not gate.judge(measured(100))[-1].is_slower

    @pytest.mark.parametrize(("wall", "processor", "word", "clock"), [
        (1.0, 1.0, "no difference found", "processor"), (1.2, 1.0, "slower", "wall"), (1.0, 1.2, "slower", "processor"), (0.8, 1.0, "faster", "wall"),
        (1.2, 1.2, "slower", "processor"), (0.8, 1.2, "slower", "processor"), (1.2, 0.8, "slower", "wall")])
    def test_slower_by_one_clock_is_slower(self, wall, processor, word, clock):
        measured = {("x", "wall"): [laps(wall, i) for i in range(3)], ("x", "processor"): [laps(processor, 10 + i) for i in range(3)]}
        (found,) = gate.judge(measured)
        assert (found.word, found.clock) == (word, clock)


class TestTwice:
    def compare(self, monkeypatch, first, second):
        asked_again = []

        def measure(there, here, asked, pairs, only=None, **more):
            asked_again.append(only)
            chosen = first if only is None else {name: second[name] for name in only}
            return Measurements(laps={(name, "wall"): [laps(ratio, 10 * i + len(asked_again)) for i in range(3)]
                                      for name, ratio in chosen.items()})
        monkeypatch.setattr(twice, "measure", measure)
        verdicts, _ = twice.compare(Version(name="a"), Version(name="b"), Request(), 3, 1.03)
        return {v.name: v.word for v in verdicts}, asked_again

    def test_what_is_found_once_is_measured_again_and_the_second_stands(self, monkeypatch):
        words, asked = self.compare(monkeypatch, {"same": 1.0, "by chance": 1.2, "slow": 1.2}, {"by chance": 1.0, "slow": 1.2})
        assert words == {"same": "no difference found", "by chance": "no difference found", "slow": "slower"}
        assert asked == [None, ["by chance", "slow"]]

    def test_nothing_suspect_is_measured_once(self, monkeypatch):
        assert self.compare(monkeypatch, {"same": 1.0}, {})[1] == [None]

    def test_nothing_to_compare_is_said(self, monkeypatch):
        monkeypatch.setattr(twice, "measure", lambda *a, **k: Measurements(left_out={"x": "a has no such case"}))
        with pytest.raises(DiffbenchError, match="nothing can be compared: x: a has no such case"):
            twice.compare(Version(name="a"), Version(name="b"), Request(), 3, 1.03)
