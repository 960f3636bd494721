"""Checks of data sets, extractors and metrics. Used by `conformance`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.dataset import Dataset
from diffbench.contracts.evaluation import DenoiserMetric, Evidence, Extractor, Real, SampleMetric, TrainedModel
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.values import Split
from diffbench.errors import DataError
from diffbench.registry.describing import label
from diffbench.registry.registry import Registry
from diffbench.stages.evaluate import as_columns
from diffbench.stats.jackknife import FEWEST
from diffbench.testing.oracles import GaussianData
from diffbench.testing.stand_ins import StandInImages, all_examples, cell_with
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]
CPU = torch.device("cpu")
NAMES = ("train", "reference", "held_out")


def dataset_checks(registry: Registry, dataset: Dataset) -> Checks:
    """Checks of the three splits: their form, that they are disjoint, that they are the same at every load."""
    yield "has three splits of the form it promises", partial(_form, dataset)
    yield "has no image in two splits", partial(_disjoint_splits, dataset)
    yield "loads the same bits every time", partial(_repeats, dataset)


def _loaded(dataset: Dataset) -> dict[str, Split]:
    try:
        dataset.fingerprint()
        return {name: split.in_memory() for name, split in dataset.load().items()}
    except DataError as error:
        raise NotApplicable(str(error)) from error


def _form(dataset: Dataset) -> None:
    splits = _loaded(dataset)
    assert set(splits) == set(NAMES), f"the splits are {', '.join(splits)}"
    for name, split in splits.items():
        _is_bytes(f"images of {name}", split.images, (len(split.images), *dataset.image_shape))
        assert (split.labels is None) == (dataset.classes is None), (
            f"{name} has labels and classes is {dataset.classes}, or the other way round")
        if split.labels is not None:
            classes = set(split.labels.tolist())
            assert split.labels.dtype == torch.int64 and classes == set(range(dataset.classes)), (
                f"labels of {name} are {split.labels.dtype}, {sorted(classes)[:12]}")
        assert (split.conditions is None) == (dataset.condition_shape is None), (
            f"{name} has conditions and condition_shape is {dataset.condition_shape}")
        if split.conditions is not None:
            _is_bytes(f"conditions of {name}", split.conditions, (len(split.images), *dataset.condition_shape))


def _is_bytes(subject: str, images: Tensor, shape: tuple[int, ...]) -> None:
    assert images.dtype == torch.uint8 and tuple(images.shape) == shape, (
        f"{subject} are {images.dtype} {list(images.shape)}, promised uint8 {list(shape)}")


def _disjoint_splits(dataset: Dataset) -> None:
    hashes = {name: {hashlib.sha256(image.numpy().tobytes()).digest() for image in split.images}
              for name, split in _loaded(dataset).items()}
    for first, second in ((NAMES[0], NAMES[1]), (NAMES[0], NAMES[2]), (NAMES[1], NAMES[2])):
        shared = len(hashes[first] & hashes[second])
        assert not shared, f"{shared} images are in {first} and in {second}"


def _repeats(dataset: Dataset) -> None:
    first, second = _loaded(dataset), _loaded(dataset)
    assert all(torch.equal(first[name].images, second[name].images)
               for name in first), "images differ between two loads"
    assert (dataset.fingerprint() == dataset.fingerprint() and len(dataset.fingerprint())
            == 64), f"the fingerprint is {dataset.fingerprint()!r}"


def extractor_checks(registry: Registry, extractor: Extractor) -> Checks:
    """Checks of features: finite, float64, independent of the batch, the same for one seed."""
    for statement, check in (("gives finite float64 features, one row per image", _features),
                             ("gives features that do not depend on the batch", _batch_independent),
                             ("is a function of its seed", _seeded)):
        yield statement, partial(check, registry, extractor)


def _fitted(registry: Registry, extractor: Extractor) -> tuple[dict[str, Tensor], Tensor]:
    """(weights, images to extract features from)."""
    reason = extractor.why_not(cell_with(registry, dataset=StandInImages()))
    if reason:
        raise NotApplicable(reason)
    try:
        extractor.fingerprint()
    except DataError as error:
        raise NotApplicable(str(error)) from None
    splits = StandInImages().load()
    return extractor.fit(splits["train"], 0, CPU)[0], splits["reference"].images[:40]


def _features(registry: Registry, extractor: Extractor) -> None:
    weights, images = _fitted(registry, extractor)
    features = extractor.features(weights, images, CPU)
    assert features.shape[0] == len(images) and features.ndim == 2, (
        f"features of {len(images)} images are {list(features.shape)}")
    assert features.dtype == torch.float64 and features.isfinite().all(), (
        f"features are {features.dtype}, finite: {bool(features.isfinite().all())}")


def _batch_independent(registry: Registry, extractor: Extractor) -> None:
    weights, images = _fitted(registry, extractor)
    together, apart = extractor.features(weights, images, CPU), [extractor.features(weights, images[i : i + 1], CPU)
                                                                 for i in range(5)]
    difference = float((together[:5] - torch.cat(apart)).abs().max())
    assert difference < 1e-4 * float(together.abs().max()), (
        f"features of an image alone and in a batch differ by {difference:.2g}")


def _seeded(registry: Registry, extractor: Extractor) -> None:
    (first, images), (second, _) = _fitted(registry, extractor), _fitted(registry, extractor)
    assert torch.equal(extractor.features(first, images, CPU),
                       extractor.features(second, images, CPU)), "two fits of one seed differ"


def metric_checks(registry: Registry, metric: SampleMetric | DenoiserMetric) -> Checks:
    """Checks of a metric: named finite numbers, better for better samples or models."""
    if metric.looks_at == "denoiser":
        yield from _denoiser_metric_checks(registry, metric)
        return
    yield "gives finite numbers, the main one without a suffix", partial(_numbers, metric)
    yield "finds other images worse than the same", partial(_orders, metric)
    yield "finds copies of training images worse than images nobody has seen", partial(_copies, metric)


def _evidence(shift: float = 0.0, seed: int = 0) -> Evidence:
    """400 images of ten classes with features that depend on the class.

    shift: moves the features, makes the images flatter and brighter, and makes shift / 10 of the predicted labels
    wrong.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 10
    features = torch.randn(400, 6, dtype=torch.float64, generator=generator) + labels[:, None].double() / 5 + shift
    is_wrong = torch.rand(400, generator=generator) < shift / 10
    images = torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8, generator=generator)
    images = (images * (1 - shift / 10) + 25 * shift).to(torch.uint8)
    return Evidence(images=images, labels=labels, features=features,
                    predicted=torch.where(is_wrong, (labels + 1) % 10, labels),
                    logits=6 * torch.nn.functional.one_hot(labels * (shift < 1), 10).double()
                    + torch.randn(400, 10, dtype=torch.float64, generator=generator))


def _real() -> Real:
    return Real(reference=_evidence(), held_out=_evidence(), train=_evidence())


def _numbers(metric: SampleMetric) -> None:
    _are_numbers(as_columns(metric.measure(_evidence(1.0), _real()))["values"])


def _are_numbers(values: dict[str, float]) -> None:
    assert "" in values, f"its numbers are {', '.join(map(repr, values))}: the main one has no suffix"
    assert all(isinstance(v, float) and math.isfinite(v) for v in values.values()), f"its numbers are {values}"


def _copies(metric: SampleMetric) -> None:
    if not metric.needs_training:
        raise NotApplicable("does not look at the training images")
    real = replace(_real(), train=_evidence(seed=1))
    copied, unseen = (as_columns(metric.measure(_evidence(seed=seed), real))["values"][""] for seed in (1, 2))
    assert ((unseen > copied) == metric.higher_is_better and unseen
            != copied), f"copies have {copied:.4g}, images that nobody has seen {unseen:.4g}"


def _orders(metric: SampleMetric) -> None:
    if metric.needs_training:
        raise NotApplicable("compares with the training images")
    same, shifted = (as_columns(metric.measure(_evidence(shift), _real()))["values"][""] for shift in (0.0, 5.0))
    assert (shifted < same) == metric.higher_is_better and shifted != same, (
        f"the same images have {same:.4g}, shifted ones {shifted:.4g}")


def _denoiser_metric_checks(registry: Registry, metric: DenoiserMetric) -> Checks:
    """Checks of a metric of denoisers, on every sort of schedule."""
    sorts = {(s.grid is None, s.at(1.0).alpha == 0): s for s in reversed(all_examples(registry, "noise_schedule"))}
    for schedule in sorts.values():
        yield (f"gives finite numbers on {label(schedule, registry)}, the main one without a suffix",
               partial(_numbers_of_a_model, metric, schedule, 3))
        yield (f"finds a wrong denoiser worse than the right one on {label(schedule, registry)}",
               partial(_orders_models, metric, schedule))
    schedule = next(iter(sorts.values()))
    yield ("gives finite numbers of as many images as an interval takes",
           partial(_numbers_of_a_model, metric, schedule, FEWEST))
    yield "is a function of the model and its seed", partial(_repeats_of_a_model, metric, schedule)
    yield "gives the same columns in a smoke test", partial(_smoke, metric, schedule)


def _model(schedule: NoiseSchedule, mean: float = 0.0, images: int = 3) -> TrainedModel:
    """The exact denoiser of Gaussian images with the mean and spread of the stand-ins, or with another mean."""
    data, held_out = GaussianData(schedule=schedule, std=0.52, mean=mean), StandInImages().load()["held_out"]
    return TrainedModel(denoise=lambda rows: data, schedule=schedule, device=CPU, seed=3,
                        held_out=Split(images=held_out.images[:images], labels=held_out.labels[:images]))


def _values_of(metric: DenoiserMetric, model: TrainedModel) -> dict[str, float]:
    return as_columns(metric.measure(model))["values"]


def _numbers_of_a_model(metric: DenoiserMetric, schedule: NoiseSchedule, images: int) -> None:
    _are_numbers(_values_of(metric, _model(schedule, images=images)))


def _orders_models(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    true_value, other_value = (_values_of(metric, _model(schedule, mean))[""] for mean in (0.0, 0.8))
    assert (other_value < true_value) == metric.higher_is_better and other_value != true_value, (
        f"the right denoiser has {true_value:.4g}, one with another mean {other_value:.4g}")


def _repeats_of_a_model(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    before = torch.get_rng_state()
    first, second = (_values_of(metric, _model(schedule)) for _ in range(2))
    assert first == second, f"twice the same model: {first} and {second}"
    assert torch.equal(before, torch.get_rng_state()), "it draws from the global generator"


def _smoke(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    smaller, model = metric.for_smoke(), _model(schedule)
    assert set(_values_of(smaller, model)) == set(_values_of(metric, model)), "its columns are others"
