"""How often the 95 % intervals of metrics contain the truth: python benchmarks/interval_coverage.py [--repeats 400]
[--mnist] [--only TEXT].

Gaussian: 16 features, a generator that is a little off. Classes: ten Gaussians far apart in 8 features, their labels in
turn as those of generated samples are. MNIST (from DIFFBENCH_DATA): features of a classifier and, for `memorisation`,
images; the population is 19,000 noisy images, as many of each class, of which one in fifty is nearly a training image;
each repeat draws from it, at random or with classes in turn. The reference is fixed. The truth is the metric of the
whole population, of a share or a median too; for `recall` and `coverage`, which depend on the number of samples, it is
their mean over repeats.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import diffbench
from diffbench import Evidence, Jackknife, Real

METRICS = ("fid", "kid", "prdc", "sliced_wasserstein", "memorisation")
OF_ITS_COUNT = ("recall", "coverage")
MAIN = {"prdc": "precision", "memorisation": "near_copy_share"}
BIG = 20_000                          # samples that stand for the population
D64 = torch.float64


class Setting(NamedTuple):
    """A population, its reference, and the numbers of samples that are drawn from it."""

    name: str
    draw: Callable[[int, torch.Generator], Evidence]
    real: Real
    counts: tuple[int, ...]


def evidence(features: Tensor, labels: Tensor | None = None, images: Tensor | None = None) -> Evidence:
    return Evidence(images=images, labels=labels, features=features, predicted=None)


def against(reference: Evidence, train: Evidence | None = None, held_out: Evidence | None = None) -> Real:
    return Real(reference=reference, held_out=held_out or reference, train=train)


def gaussian(d: int = 16) -> Iterator[Setting]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(d, d, dtype=D64, generator=generator) / d**0.5 + torch.eye(d, dtype=D64)
    reference = evidence(torch.randn(1000, d, dtype=D64, generator=generator) @ mix)
    yield Setting(f"Gaussian, d = {d}", lambda count, rng: evidence(
        0.95 * torch.randn(count, d, dtype=D64, generator=rng) @ mix + 0.1),
                  against(reference), (200, 1000))


def classes(d: int = 8) -> Iterator[Setting]:
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(10, d, dtype=D64, generator=generator)

    def draw(count: int, rng: torch.Generator) -> Evidence:
        labels = torch.arange(count) % 10
        return evidence(centres[labels] + 0.95 * torch.randn(count, d, dtype=D64, generator=rng), labels)
    labels = torch.randint(0, 10, (1000,), generator=generator)
    yield Setting(f"classes in turn, d = {d}", draw, against(
        evidence(centres[labels] + torch.randn(1000, d, dtype=D64, generator=generator))), (200, 1000))


def mnist() -> Iterator[Setting]:
    split = diffbench.load_registry().create("dataset", "mnist").load()["train"]
    classifier, _ = diffbench.fit_classifier(split.images[:10_000], split.labels[:10_000], 10, seed=0, steps=600)
    generator = torch.Generator().manual_seed(0)

    def seen(images: Tensor, labels: Tensor | None) -> Evidence:
        return evidence(classifier.describe(images), labels, images)
    train, reference, held_out = (seen(split.images[rows], split.labels[rows])
                                  for rows in (slice(0, 1000), slice(30_000, 32_000), slice(32_000, 32_500)))
    by_class = [10_000 + (split.labels[10_000:30_000] == c).nonzero()[:1900, 0] for c in range(10)]
    rows = torch.stack([r[: min(map(len, by_class))] for r in by_class])               # [10, 1,7xx]
    images, labels = split.images[rows.flatten()].float(), split.labels[rows.flatten()]
    # near copies, of images of the class
    for c in range(10):
        rows_of_class, some = (train.labels == c).nonzero()[:, 0], (labels == c).nonzero()[::50, 0]
        images[some] = train.images[rows_of_class[torch.arange(len(some)) % len(rows_of_class)]].float()
    noise = torch.where(torch.arange(len(images)) % rows.shape[1] % 50 == 0, 1.0, 12.0)[:, None, None, None]
    images = (images + noise * torch.randn(images.shape, generator=generator)).round().clamp(0, 255).to(torch.uint8)
    population = seen(images, labels)

    def some_of(rows: Tensor, is_labelled: bool) -> Evidence:
        return evidence(population.features[rows], labels[rows] if is_labelled else None, population.images[rows])

    def at_random(count: int, rng: torch.Generator) -> Evidence:
        return some_of(torch.randperm(len(labels), generator=rng)[:count], is_labelled=False)

    def in_turn(count: int, rng: torch.Generator) -> Evidence:
        if count == BIG:
            return some_of(torch.arange(len(labels)), is_labelled=True)
        indices = torch.stack([torch.randperm(rows.shape[1], generator=rng)[: -(-count // 10)] + c * rows.shape[1]
                               for c in range(10)], 1)
        return some_of(indices.flatten()[:count], is_labelled=True)
    for name, draw in (("at random", at_random), ("classes in turn", in_turn)):
        yield Setting(f"MNIST, d = 64, {name}", draw, against(reference, train, held_out), (400, 1000))


def covered(setting: Setting, count: int, repeats: int,
            only: str) -> Iterator[tuple[str, float, float, float, float, float]]:
    """One line a value: (name, truth, mean of the debiased value, deviation over error, share given, share covered).

    Deviation over error: the standard deviation of the value over the mean standard error. Shares: of measurements with
    an interval, and of these intervals that hold the truth.
    """
    registry = diffbench.load_registry()
    for metric in (registry.create("metric", name) for name in METRICS):
        if (metric.needs_training and setting.real.train is None
            or only not in f"{setting.name}, N = {count}, {metric.component_name()}"):
            continue
        truth_run = metric.measure(setting.draw(BIG, torch.Generator().manual_seed(1)), setting.real)
        measurements = [metric.measure(setting.draw(count, torch.Generator().manual_seed(100 + r)), setting.real)
                        for r in range(repeats)]
        for name, of_all in truth_run.items():
            estimates = [f[name] for f in measurements if isinstance(f[name], Jackknife)]
            if not isinstance(of_all, Jackknife) or not estimates:
                continue
            debiased = torch.tensor([e.debiased for e in estimates], dtype=D64)
            truth = float(debiased.mean()) if name in OF_ITS_COUNT else of_all.debiased
            error = torch.tensor([e.standard_error for e in estimates], dtype=D64).mean()
            share = sum(e.low <= truth <= e.high for e in estimates) / len(estimates)
            label = name or MAIN.get(metric.component_name(), metric.component_name())
            yield label, truth, float(debiased.mean()), float(debiased.std() / error), len(estimates) / repeats, share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--mnist", action="store_true")
    parser.add_argument("--only", default="", help="those of which 'setting, N = number of samples, metric' has this "
                                                   "text in it")
    arguments = parser.parse_args()
    print("| features | N | metric | truth | mean | sd / SE | given | covered |\n|:--|--:|:--|--:|--:|--:|--:|--:|")
    for setting in (*gaussian(), *classes(), *(mnist() if arguments.mnist else ())):
        for count in setting.counts:
            for name, truth, mean, ratio, given, share in covered(setting, count, arguments.repeats, arguments.only):
                print(f"| {setting.name} | {count} | {name} | {truth:.4g} | {mean:.4g} | {ratio:.2f} "
                      f"| {100 * given:.0f} % | {100 * share:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
