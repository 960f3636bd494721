"""How often the 95 % intervals of metrics contain the truth: python benchmarks/interval_coverage.py [--repeats 400] [--mnist] (from DIFFBENCH_DATA).

Synthetic: Gaussian features, 16 of them, a generator that is a little off. Real: features of a classifier of MNIST, the population 20,000 images,
each repeat draws its samples from it; the reference is fixed. The truth is the metric of the whole population (for `recall` and `coverage`,
which depend on the number of samples, its mean over repeats).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

import diffbench
from diffbench import Evidence, Jackknife, Real

METRICS = ("fid", "kid", "prdc", "sliced_wasserstein")
OF_ITS_COUNT = ("recall", "coverage")
MAIN = {"prdc": "precision"}
BIG = 20_000                          # samples that stand for the population
D64 = torch.float64


def evidence(features: Tensor) -> Evidence:
    return Evidence(images=None, labels=None, features=features, predicted=None)


def synthetic(d: int = 16) -> tuple[Callable[[int, torch.Generator], Tensor], Tensor]:
    """(a generator of features, the reference)."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, dtype=D64, generator=generator) / d**0.5 + torch.eye(d, dtype=D64)
    reference = torch.randn(1000, d, dtype=D64, generator=generator) @ mix
    return lambda count, rng: 0.95 * torch.randn(count, d, dtype=D64, generator=rng) @ mix + 0.1, reference


def real() -> tuple[Callable[[int, torch.Generator], Tensor], Tensor]:
    """Features of MNIST with a little noise: (draws from 20,000, reference of 2,000 others)."""
    registry = diffbench.load_registry()
    split = registry.create("dataset", "mnist").load()["train"]
    classifier, _ = diffbench.fit_classifier(split.images[:10_000], split.labels[:10_000], 10, seed=0, steps=600)
    noise = torch.randn(split.images[10_000:30_000].shape, generator=torch.Generator().manual_seed(0))
    noisy = (split.images[10_000:30_000].float() + 12 * noise).round().clamp(0, 255).to(torch.uint8)
    population, reference = classifier.describe(noisy), classifier.describe(split.images[30_000:32_000])
    return lambda count, rng: population if count == BIG else population[torch.randperm(len(population), generator=rng)[:count]], reference


def covered(draw: Callable[[int, torch.Generator], Tensor], reference: Tensor, count: int, repeats: int) -> Iterator[tuple[str, float, float, float, float]]:
    """(name, truth, mean of the debiased value, its standard deviation over the mean standard error, share of intervals that hold the truth)."""
    registry, known = diffbench.load_registry(), Real(reference=evidence(reference), held_out=evidence(reference))
    for metric in (registry.create("metric", name) for name in METRICS):
        whole = metric.measure(evidence(draw(BIG, torch.Generator().manual_seed(1))), known)
        found = [metric.measure(evidence(draw(count, torch.Generator().manual_seed(100 + r))), known) for r in range(repeats)]
        for name, of_all in whole.items():
            estimates: list[Jackknife] = [f[name] for f in found]
            debiased = torch.tensor([e.debiased for e in estimates], dtype=D64)
            truth = float(debiased.mean()) if name in OF_ITS_COUNT else of_all.debiased
            error = torch.tensor([e.standard_error for e in estimates], dtype=D64).mean()
            share = sum(e.low <= truth <= e.high for e in estimates) / repeats
            yield name or MAIN.get(metric.component_name(), metric.component_name()), truth, float(debiased.mean()), float(debiased.std() / error), share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--mnist", action="store_true")
    asked = parser.parse_args()
    settings = [("Gaussian, d = 16", *synthetic(), (200, 1000))]
    if asked.mnist:
        settings.append(("MNIST classifier, d = 64", *real(), (500, 1000)))
    print("| features | N | metric | truth | mean | sd / SE | covered |\n|:--|--:|:--|--:|--:|--:|--:|")
    for what, draw, reference, counts in settings:
        for count in counts:
            for name, truth, mean, ratio, share in covered(draw, reference, count, asked.repeats):
                print(f"| {what} | {count} | {name} | {truth:.4g} | {mean:.4g} | {ratio:.2f} | {100 * share:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
