"""What every dataset, extractor and metric must do."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts import NoiseSchedule
from diffbench.errors import DataError
from diffbench.evaluation import Dataset, DenoiserMetric, Extractor, SampleMetric
from diffbench.judging import as_columns
from diffbench.registry import Registry
from diffbench.specs import label
from diffbench.testing.conformance import NotApplicable
from diffbench.testing.oracles import GaussianData
from diffbench.testing.stand_ins import StandInImages, all_examples, cell_with
from diffbench.uncertainty import FEWEST
from diffbench.values import Evidence, Real, Split, TrainedModel

Checks = Iterator[tuple[str, Callable[[], Any]]]
CPU = torch.device("cpu")
NAMES = ("train", "reference", "held_out")


def dataset_checks(registry: Registry, dataset: Dataset) -> Checks:
    """Three splits of the promised form, disjoint, the same every time."""
    yield "has three splits of the form it promises", partial(_form, dataset)
    yield "has no image in two splits", partial(_disjoint, dataset)
    yield "loads the same bits every time", partial(_repeats, dataset)


def _loaded(dataset: Dataset) -> dict[str, Split]:
    try:
        dataset.fingerprint()
        return dataset.load()
    except DataError as error:
        raise NotApplicable(str(error)) from error


def _form(dataset: Dataset) -> None:
    splits = _loaded(dataset)
    assert set(splits) == set(NAMES), f"the splits are {', '.join(splits)}"
    for name, split in splits.items():
        _is_bytes(f"images of {name}", split.images, (len(split.images), *dataset.image_shape))
        assert (split.labels is None) == (dataset.classes is None), f"{name} has labels and classes is {dataset.classes}, or the other way round"
        if split.labels is not None:
            seen = set(split.labels.tolist())
            assert split.labels.dtype == torch.int64 and seen == set(range(dataset.classes)), f"labels of {name} are {split.labels.dtype}, {sorted(seen)[:12]}"
        assert (split.conditions is None) == (dataset.condition_shape is None), f"{name} has conditions and condition_shape is {dataset.condition_shape}"
        if split.conditions is not None:
            _is_bytes(f"conditions of {name}", split.conditions, (len(split.images), *dataset.condition_shape))


def _is_bytes(what: str, images: Tensor, shape: tuple[int, ...]) -> None:
    assert images.dtype == torch.uint8 and tuple(images.shape) == shape, f"{what} are {images.dtype} {list(images.shape)}, promised uint8 {list(shape)}"


def _disjoint(dataset: Dataset) -> None:
    hashes = {name: {hashlib.sha256(image.numpy().tobytes()).digest() for image in split.images} for name, split in _loaded(dataset).items()}
    for one, other in ((NAMES[0], NAMES[1]), (NAMES[0], NAMES[2]), (NAMES[1], NAMES[2])):
        shared = len(hashes[one] & hashes[other])
        assert not shared, f"{shared} images are in {one} and in {other}"


def _repeats(dataset: Dataset) -> None:
    first, second = _loaded(dataset), _loaded(dataset)
    assert all(torch.equal(first[name].images, second[name].images) for name in first), "images differ between two loads"
    assert dataset.fingerprint() == dataset.fingerprint() and len(dataset.fingerprint()) == 64, f"the fingerprint is {dataset.fingerprint()!r}"


def extractor_checks(registry: Registry, extractor: Extractor) -> Checks:
    """Finite float64 features of each image alone, the same for one seed."""
    for statement, check in (("gives finite float64 features, one row per image", _features), ("gives features that do not depend on the batch", _alone),
                             ("is a function of its seed", _seeded)):
        yield statement, partial(check, registry, extractor)


def _fitted(registry: Registry, extractor: Extractor) -> tuple[dict[str, Tensor], Tensor]:
    """(weights, images to look at)."""
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
    assert features.shape[0] == len(images) and features.ndim == 2, f"features of {len(images)} images are {list(features.shape)}"
    assert features.dtype == torch.float64 and features.isfinite().all(), f"features are {features.dtype}, finite: {bool(features.isfinite().all())}"


def _alone(registry: Registry, extractor: Extractor) -> None:
    weights, images = _fitted(registry, extractor)
    whole, parts = extractor.features(weights, images, CPU), [extractor.features(weights, images[i : i + 1], CPU) for i in range(5)]
    difference = float((whole[:5] - torch.cat(parts)).abs().max())
    assert difference < 1e-4 * float(whole.abs().max()), f"features of an image alone and in a batch differ by {difference:.2g}"


def _seeded(registry: Registry, extractor: Extractor) -> None:
    (first, images), (second, _) = _fitted(registry, extractor), _fitted(registry, extractor)
    assert torch.equal(extractor.features(first, images, CPU), extractor.features(second, images, CPU)), "two fits of one seed differ"


def metric_checks(registry: Registry, metric: SampleMetric | DenoiserMetric) -> Checks:
    """Named finite numbers, better for what is better."""
    if metric.looks_at == "denoiser":
        yield from _denoiser_metric_checks(registry, metric)
        return
    yield "gives finite numbers, the main one without a suffix", partial(_numbers, metric)
    yield "finds other images worse than the same", partial(_orders, metric)
    yield "finds copies of training images worse than images nobody has seen", partial(_copies, metric)


def _evidence(shift: float = 0.0, seed: int = 0) -> Evidence:
    """400 images of ten classes with features that tell them apart; `shift` moves the features and turns as large a share of labels wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(400) % 10
    features = torch.randn(400, 6, dtype=torch.float64, generator=generator) + labels[:, None].double() / 5 + shift
    wrong = torch.rand(400, generator=generator) < shift / 10
    images = torch.randint(0, 256, (400, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return Evidence(images=images, labels=labels, features=features, predicted=torch.where(wrong, (labels + 1) % 10, labels),
                    logits=6 * torch.nn.functional.one_hot(labels * (shift < 1), 10).double() + torch.randn(400, 10, dtype=torch.float64, generator=generator))


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
    assert (unseen > copied) == metric.higher_is_better and unseen != copied, f"copies have {copied:.4g}, images that nobody has seen {unseen:.4g}"


def _orders(metric: SampleMetric) -> None:
    if metric.needs_training:
        raise NotApplicable("compares with the training images")
    same, other = (as_columns(metric.measure(_evidence(shift), _real()))["values"][""] for shift in (0.0, 5.0))
    assert (other < same) == metric.higher_is_better and other != same, f"the same images have {same:.4g}, shifted ones {other:.4g}"


def _denoiser_metric_checks(registry: Registry, metric: DenoiserMetric) -> Checks:
    """Finite numbers on every sort of schedule, better for the better denoiser, from the model and its seed alone."""
    sorts = {(s.grid is None, s.at(1.0).alpha == 0): s for s in reversed(all_examples(registry, "noise_schedule"))}
    for schedule in sorts.values():
        yield f"gives finite numbers on {label(schedule, registry)}, the main one without a suffix", partial(_numbers_of_a_model, metric, schedule, 3)
        yield f"finds a wrong denoiser worse than the right one on {label(schedule, registry)}", partial(_orders_models, metric, schedule)
    schedule = next(iter(sorts.values()))
    yield "gives finite numbers of as many images as an interval takes", partial(_numbers_of_a_model, metric, schedule, FEWEST)
    yield "is a function of the model and its seed", partial(_repeats_of_a_model, metric, schedule)
    yield "gives the same columns in a smoke test", partial(_smoke, metric, schedule)


def _model(schedule: NoiseSchedule, mean: float = 0.0, images: int = 3) -> TrainedModel:
    """The right denoiser of Gaussian images with the mean and the spread of the stand-ins, or one with another mean."""
    data, held_out = GaussianData(schedule=schedule, std=0.52, mean=mean), StandInImages().load()["held_out"]
    return TrainedModel(denoise=lambda rows: data, schedule=schedule, device=CPU, seed=3,
                        held_out=Split(images=held_out.images[:images], labels=held_out.labels[:images]))


def _values_of(metric: DenoiserMetric, model: TrainedModel) -> dict[str, float]:
    return as_columns(metric.measure(model))["values"]


def _numbers_of_a_model(metric: DenoiserMetric, schedule: NoiseSchedule, images: int) -> None:
    _are_numbers(_values_of(metric, _model(schedule, images=images)))


def _orders_models(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    right, wrong = (_values_of(metric, _model(schedule, mean))[""] for mean in (0.0, 0.8))
    assert (wrong < right) == metric.higher_is_better and wrong != right, f"the right denoiser has {right:.4g}, one with another mean {wrong:.4g}"


def _repeats_of_a_model(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    before = torch.get_rng_state()
    first, second = (_values_of(metric, _model(schedule)) for _ in range(2))
    assert first == second, f"twice the same model: {first} and {second}"
    assert torch.equal(before, torch.get_rng_state()), "it draws from the global generator"


def _smoke(metric: DenoiserMetric, schedule: NoiseSchedule) -> None:
    smaller, model = metric.for_smoke(), _model(schedule)
    assert set(_values_of(smaller, model)) == set(_values_of(metric, model)), "its columns are others"
