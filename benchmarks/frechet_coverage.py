"""Coverage of intervals of Fréchet distances, and how often there is one.

    python benchmarks/frechet_coverage.py --features 64 [--repeats 100]

Features have variances i^0, i^-1 or i^-2. The reference is drawn once for each line. Generator A has too little
variety, B a wrong mean, both at exactly the same distance from the reference, which is known in closed form, and both
are drawn from the same noise, as rows of one matrix are. Distributions: Gaussian; Student's t with 5 degrees of
freedom, each feature alone; Gaussian mixtures of ten classes in turn, which hold half of the variance. "given": share
of measurements that have an interval; "covered": share of these that hold the truth; "false alarms": share of repeats,
of those in which both have an interval, in which A and B differ with p < 0.05.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
from torch import Tensor

from diffbench import Evidence, Jackknife, Moments, blocks_of, frechet_distance, moments
from diffbench.stats.numbers_of_rows import Number, Seeds, differences
from diffbench.stats.over_seeds import estimate

D64 = torch.float64
CLASSES, BETWEEN = 10, 0.5            # classes of the mixture, and their share of the variance
EVENLY = {"Gaussian": 1, "t5": 1, "mixture": 20 * CLASSES}      # numbers of images are multiples of it
VARIETY = 0.9                         # of A: standard deviations over those of the reference


Draw = Callable[[int], tuple[Tensor, Tensor | None]]


def population(kind: str, variances: Tensor, generator: torch.Generator) -> tuple[Tensor, Draw]:
    """(covariance [d, d] of a population of mean 0, a function that draws features [N, d] and their labels from it)."""
    d, roots = len(variances), variances.sqrt()

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=D64, generator=generator)
    if kind == "mixture":
        means = normal(CLASSES, d)
        means = (means - means.mean(0)) * roots * (BETWEEN * CLASSES / (CLASSES - 1)) ** 0.5

        def draw(count: int) -> tuple[Tensor, Tensor | None]:
            labels = torch.arange(count) % CLASSES
            return means[labels] + normal(count, d) * roots * (1 - BETWEEN) ** 0.5, labels
        return torch.diag(variances) * (1 - BETWEEN) + means.T @ means / CLASSES, draw
    if kind == "t5":
        def heavy(count: int) -> Tensor:
            return normal(count, d) * (3 / normal(count, d, 5).square().sum(2)).sqrt()
        return torch.diag(variances), lambda count: (heavy(count) * roots, None)
    return torch.diag(variances), lambda count: (normal(count, d) * roots, None)


def truth(mean: Tensor, covariance: Tensor, y: Moments) -> float:
    roots = torch.linalg.eigvalsh(y.root @ covariance @ y.root.T).clamp(min=0).sqrt().sum()
    return float((mean - y.mean).square().sum() + covariance.trace() + y.root.square().sum() - 2 * roots)


def wrong_mean(distance: float, covariance: Tensor, y: Moments) -> Tensor:
    """A mean, all features moved alike, at which the population has that distance, or the least that any has."""
    along = torch.full_like(y.mean, len(y.mean) ** -0.5)
    lacking = distance - truth(y.mean, covariance, y) - float(y.mean.square().sum() - (y.mean @ along) ** 2)
    return along * (y.mean @ along + max(0.0, lacking) ** 0.5)


def line(kind: str, power: float, d: int, references: int, count: int, repeats: int) -> str:
    generator = torch.Generator().manual_seed(count)
    covariance, draw = population(kind, torch.arange(1.0, d + 1, dtype=D64) ** -power, generator)
    y = moments(draw(references)[0])
    mean = wrong_mean(truth(0 * y.mean, VARIETY**2 * covariance, y), covariance, y)
    truths = [truth(0 * mean, VARIETY**2 * covariance, y), truth(mean, covariance, y)]
    interval_count, covered_count, pair_count, alarms = 0, 0, 0, 0
    for _ in range(repeats):
        x, labels = draw(count)
        blocks = blocks_of(Evidence(images=None, labels=labels, features=x, predicted=None))
        pair = [frechet_distance(features, y, blocks) for features in (VARIETY * x, x + mean)]
        interval_count += sum(isinstance(j, Jackknife) for j in pair)
        covered_count += sum(j.low <= t <= j.high for j, t in zip(pair, truths, strict=True)
                             if isinstance(j, Jackknife))
        if all(isinstance(j, Jackknife) for j in pair):
            a, b = ({Seeds(0, 0): Number(j.value, j.debiased - t, j.left_out, j.low, j.high)}
                    for j, t in zip(pair, truths, strict=True))
            pair_count, alarms = pair_count + 1, alarms + (estimate(differences(a, b)).p < 0.05)
    parts = [f"{100 * covered_count / interval_count:.0f} %" if interval_count else "",
             f"{100 * alarms / pair_count:.0f} % of {pair_count}" if pair_count else ""]
    return (f"| {d} | i^{0 - power:g} | {kind} | {references} | {count} | {truths[0]:.3g} "
            f"| {100 * interval_count / (2 * repeats):.0f} % | {parts[0]} | {parts[1]} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--powers", type=float, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kinds", nargs="+", default=["Gaussian", "t5", "mixture"])
    parser.add_argument("--references", type=float, nargs="+", default=[4, 16],
                        help="images of the reference for each feature")
    parser.add_argument("--counts", type=float, nargs="+", default=[0.5, 1, 1.5, 2, 3, 4, 6, 8],
                        help="generated images for each feature")
    arguments = parser.parse_args()
    print("| features | variances | distribution | reference | N | truth | given | covered | false alarms |\n"
          "|--:|:--|:--|--:|--:|--:|--:|--:|:--|")
    for kind in arguments.kinds:
        for power in arguments.powers:
            for references in arguments.references:
                for count in arguments.counts:
                    images = int(count * arguments.features) // EVENLY[kind] * EVENLY[kind]
                    if images >= 40:
                        of_reference = int(references * arguments.features)
                        print(line(kind, power, arguments.features, of_reference, images, arguments.repeats),
                              flush=True)


if __name__ == "__main__":
    main()
