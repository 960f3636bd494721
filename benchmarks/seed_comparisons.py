"""How often comparisons over seeds are wrong: python benchmarks/seed_comparisons.py [--repeats 1000] [--only TEXT].

Rows are shares of n images, all truly equal but for the best one, which is 0.0001 better. In each seed an image is
judged from a random number that all rows share (with probability 0.8 where "shared" says so, as common noise does) or
that is the row's own. "spread" is the standard deviation of a row's share between trainings. Two promises are counted,
each at 5 %:

- family-wise false alarm: any of the rows is called different from a fixed baseline, after Holm's correction;
- best kept: the truly best row is the one with the best mean or is marked as perhaps the best.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import numpy

from diffbench.stats.jackknife import wilson
from diffbench.stats.numbers_of_rows import Number, Seeds, differences
from diffbench.stats.over_seeds import estimate, holm, may_be_best

BETTER = 1e-4                         # by which the best row's share is above the others'


class Setting(NamedTuple):
    """One line of the table."""

    design: str                       # as in diffbench.stats.over_seeds.design_of
    rows: int
    share: float
    images: int
    seeds: int
    shared: float = 0.0
    spread: float = 0.0

    def __str__(self) -> str:
        return (f"{self.design} | {self.rows} | {self.share} | {self.images} | {self.seeds} | {self.shared:g} | "
                f"{self.spread:g}")


SETTINGS = [
    *(Setting("together", rows, share, n, seeds, shared) for rows, share, n, seeds, shared in (
        (8, 0.98, 400, 2, 0.0), (16, 0.98, 400, 2, 0.0), (16, 0.98, 400, 2, 0.8), (32, 0.98, 400, 2, 0.8),
        (16, 0.99, 200, 2, 0.0), (16, 0.9, 400, 2, 0.0),
        (16, 0.9, 1000, 2, 0.0), (32, 0.5, 100, 2, 0.0), (16, 0.999, 100, 2, 0.0), (16, 1.0, 100, 2, 0.0),
        (16, 0.98, 400, 3, 0.0), (16, 0.98, 400, 3, 0.8),
        (32, 0.99, 100, 3, 0.8), (16, 0.98, 400, 5, 0.8), (32, 0.5, 1000, 5, 0.0))),
    *(Setting("together", 16, 0.98, 400, seeds, shared, spread) for seeds, shared, spread in (
        (2, 0.0, 0.005), (3, 0.0, 0.005), (2, 0.8, 0.02), (3, 0.8, 0.02), (5, 0.0, 0.02))),
    *(Setting("sampling", 16, share, n, seeds, shared) for share, n, seeds, shared in (
        (0.98, 400, 2, 0.0), (0.98, 400, 2, 0.8), (0.999, 100, 3, 0.0), (0.5, 100, 2, 0.0), (0.9, 1000, 5, 0.8))),
    *(Setting("training", 16, share, n, seeds, 0.0, spread) for share, n, seeds, spread in (
        (0.98, 400, 2, 0.0), (0.98, 400, 2, 0.02), (0.9, 1000, 3, 0.01), (0.99, 100, 5, 0.005))),
    *(Setting("one", rows, share, n, 1, shared) for rows, share, n, shared in (
        (16, 0.98, 400, 0.0), (16, 0.98, 400, 0.8), (32, 0.999, 100, 0.0), (32, 0.5, 100, 0.0), (8, 0.99, 1000, 0.0))),
]


def draw_rows(setting: Setting, rng: numpy.random.Generator) -> list[dict[Seeds, Number]]:
    """The rows of one experiment; row 0 is the best."""
    rows: list[dict[Seeds, Number]] = [{} for _ in range(setting.rows)]
    trainings = (rng.normal(0.0, setting.spread, (setting.rows, setting.seeds)) if setting.spread
                 else numpy.zeros((setting.rows, setting.seeds)))
    noise = None
    for s in range(setting.seeds):
        seeds = {"together": Seeds(s, s), "sampling": Seeds(0, s), "training": Seeds(s, 0), "one": Seeds(0, 0)}[
            setting.design]
        if noise is None or setting.design != "training":     # trainings of one sampling seed see the same noise
            common, own = rng.random(setting.images), rng.random((setting.rows, setting.images))
            noise = numpy.where(rng.random((setting.rows, setting.images)) < setting.shared, common, own)
        level = (setting.share + BETTER * (numpy.arange(setting.rows) == 0) + trainings[:, s]).clip(0, 1)
        for row, hits in zip(rows, (noise < level[:, None]).sum(1), strict=True):
            row[seeds] = Number(hits / setting.images, hits / setting.images, (), *wilson(int(hits), setting.images))
    return rows


def shares_of_errors(setting: Setting, repeats: int) -> tuple[float, float, float]:
    """Shares of experiments (family-wise false alarm, false alarm of one comparison, best kept)."""
    rng, alarms, alone, best_kept = numpy.random.default_rng(0), 0, 0, 0
    for _ in range(repeats):
        rows = draw_rows(setting, rng)
        p = [estimate(differences(rows[1], row)).p for row in rows[2:]]
        alarms += any(adjusted < 0.05 for adjusted in holm(p))
        alone += p[0] < 0.05
        best = max(range(setting.rows), key=lambda i: estimate(rows[i]).debiased)
        others = [i for i in range(setting.rows) if i != best]
        may = may_be_best([estimate(differences(rows[best], rows[i])) for i in others], True)
        best_kept += best == 0 or may[others.index(0)]
    return alarms / repeats, alone / repeats, best_kept / repeats


def lines(repeats: int, only: str) -> Iterator[str]:
    """The lines of the table."""
    yield ("| seeds vary | rows | share | images | seeds | shared | spread | family-wise false alarm | one comparison "
           "| best kept |")
    yield "|:--|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for setting in SETTINGS:
        if only in str(setting):
            alarms, alone, kept = shares_of_errors(setting, repeats)
            yield f"| {setting} | {100 * alarms:.1f} | {100 * alone:.1f} | {100 * kept:.1f} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    for line in lines(arguments.repeats, arguments.only):
        print(line, flush=True)
