"""Metrics and extractors on real digits: graded damage, intervals, and what they refuse."""

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest

from diffbench import DataError, Diverged, Evidence, Real, Split, frechet_distance
from diffbench.stages.evaluate import as_columns
from tests.conftest import REGISTRY, all_of
from tests.diffusion.test_classifier import digits

FID = REGISTRY.create("metric", "fid")
ACCURACY = REGISTRY.create("metric", "class_accuracy")
EXTRACTOR = REGISTRY.create("extractor", "dataset_classifier")


def seen(images, labels) -> Evidence:
    """What extractor and judge see; here one classifier is both, which the harness never allows."""
    _, model, _ = digits()
    return Evidence(images=images, labels=labels, features=EXTRACTOR.features(model.weights(), images, torch.device("cpu")),
                    predicted=model.predict(images))


def real(name: str) -> Evidence:
    split = digits()[0][name]
    return seen(split.images, split.labels)


def noisy(images, amount: float):
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return (images.float() + 127.5 * amount * noise).round().clamp(0, 255).to(torch.uint8)


def blurred(images):
    return torch.nn.functional.avg_pool2d(images.float(), 3, stride=1, padding=1).round().to(torch.uint8)


def only(evidence: Evidence, rows) -> Evidence:
    return Evidence(**{name: None if value is None else value[rows] for name, value in vars(evidence).items()})


def distances(generated: Evidence, reference: Evidence) -> dict[str, float]:
    return as_columns(FID.measure(generated, Real(reference=reference, held_out=reference)))["values"]


def test_the_distance_grows_with_noise_and_is_small_for_held_out_images():
    held_out, reference = digits()[0]["held_out"], real("reference")
    values = [distances(seen(noisy(held_out.images, amount), held_out.labels), reference) for amount in (0.0, 0.1, 0.2, 0.4, 0.8)]
    for column in ("", "_debiased"):
        assert sorted(v[column] for v in values) == [v[column] for v in values]
    damaged = distances(seen(blurred(held_out.images), held_out.labels), reference)
    assert damaged["_low"] > 5 * values[0][""]
    assert values[0]["_debiased"] < values[0][""]


def test_a_missing_class_is_seen():
    held_out, reference = real("held_out"), real("reference")
    part = only(held_out, held_out.labels != 3)
    assert distances(part, reference)[""] > 1.2 * distances(held_out, reference)[""]


def test_the_interval_belongs_to_the_debiased_value():
    values = distances(real("held_out"), real("reference"))
    assert set(values) == {"", "_debiased", "_low", "_high"}
    assert values["_low"] < values["_debiased"] < values["_high"]
    assert values[""] == pytest.approx(frechet_distance(real("held_out").features, real("reference").features))


def test_samples_without_labels_have_a_distance_too():
    held_out = real("held_out")
    values = distances(Evidence(images=held_out.images, labels=None, features=held_out.features, predicted=None), real("reference"))
    assert values["_low"] < values["_debiased"] < values["_high"]


@pytest.mark.parametrize("asked", ["in turn", "at random"])
def test_the_interval_covers_the_truth_however_the_classes_came(asked):
    """Ten Gaussian classes far apart, N = 600, an exact reference: the truth is 0.05² d, and the error depends on how labels came."""
    generator, d = torch.Generator().manual_seed(0), 8
    normal = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    centres = 2 * normal(10, d)
    centres = centres - centres.mean(0)
    covariance = centres.T @ centres / 10 + torch.eye(d, dtype=torch.float64)
    white = normal(2000, d)
    white = torch.linalg.qr(white - white.mean(0)).Q * 1999**0.5
    reference = Evidence(images=None, labels=None, features=white @ torch.linalg.cholesky(covariance).T + 0.05, predicted=None)
    truth, found = d * 0.05**2, []
    for _ in range(60):
        labels = torch.arange(600) % 10 if asked == "in turn" else torch.randint(0, 10, (600,), generator=generator)
        features = centres[labels] + normal(600, d)
        found.append(distances(Evidence(images=None, labels=labels, features=features, predicted=None), reference))
    debiased = torch.tensor([f["_debiased"] for f in found])
    assert abs(float(debiased.mean()) - truth) < 4 * float(debiased.std()) / 60**0.5
    assert sum(f["_low"] <= truth <= f["_high"] for f in found) >= 51


@pytest.mark.parametrize("count", [2, 39, 40])
def test_few_samples_for_their_features_have_a_distance_and_no_interval(count):
    values = distances(only(real("held_out"), slice(count)), real("reference"))
    assert values[""] > 0
    assert set(values) == {""}
    assert all(torch.tensor(list(values.values())).isfinite())


def test_features_that_are_not_finite_are_refused():
    held_out = real("held_out")
    features = held_out.features.clone()
    features[0, 0] = float("nan")
    with pytest.raises(Diverged):
        distances(Evidence(images=held_out.images, labels=None, features=features, predicted=None), real("reference"))


def test_the_column_is_named_after_the_features():
    assert FID.column(EXTRACTOR) == "fd_dataset_classifier"
    assert ACCURACY.column(EXTRACTOR) == "class_accuracy"


@pytest.mark.parametrize("metric", [given for given in all_of("metric") if given.values[0].looks_at == "samples" and not given.values[0].needs_logits])
def test_a_metric_gives_finite_numbers_and_its_interval_in_order(metric):
    splits = Real(reference=real("reference"), held_out=real("held_out"), train=real("train"))
    values = as_columns(metric.measure(real("held_out"), splits))["values"]
    assert "" in values and all(isinstance(v, float) for v in values.values())
    assert all(torch.tensor(list(values.values())).isfinite())
    assert values.get("_low", 0.0) <= values.get("_high", 0.0)


def judged(right: int, count: int) -> dict[str, float]:
    labels = torch.zeros(count, dtype=torch.int64)
    predicted = (torch.arange(count) >= right).long()
    images, features = torch.zeros(count, 1, 8, 8, dtype=torch.uint8), torch.zeros(count, 1, dtype=torch.float64)
    return ACCURACY.measure(Evidence(images=images, labels=labels, features=features, predicted=predicted), None)


@pytest.mark.parametrize(("right", "count", "low", "high"), [
    (0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605),
])
def test_wilson_s_interval_has_its_known_values(right, count, low, high):
    """The last two: Newcombe 1998, Statistics in Medicine 17, p. 857-872, table I, method 3."""
    values = judged(right, count)
    assert values[""] == right / count
    assert (values["_low"], values["_high"]) == pytest.approx((low, high), abs=5.1e-5)
    independent = binomtest(right, count).proportion_ci(method="wilson")
    assert (values["_low"], values["_high"]) == pytest.approx(tuple(independent), abs=1e-12)


def test_real_digits_are_recognised_and_noise_is_not():
    held_out = digits()[0]["held_out"]
    assert ACCURACY.measure(real("held_out"), None)["_low"] > 0.95
    noise = torch.randint(0, 256, held_out.images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert ACCURACY.measure(seen(noise, held_out.labels), None)[""] < 0.3


def test_accuracy_without_labels_is_refused():
    held_out = real("held_out")
    with pytest.raises(DataError, match="needs labels"):
        ACCURACY.measure(Evidence(images=held_out.images, labels=None, features=held_out.features, predicted=None), None)


@pytest.mark.parametrize("component", [ACCURACY, EXTRACTOR], ids=lambda c: c.component_name())
def test_a_data_set_without_labels_is_a_reason(component):
    dataset = SimpleNamespace(classes=None, component_name=lambda: "clouds")
    assert component.why_not(SimpleNamespace(dataset=dataset)) == f"{component.component_name()} needs labels; clouds has none"
    dataset.classes = 10
    labelled = SimpleNamespace(dataset=dataset, conditioning=REGISTRY.create("conditioning", "film"))
    assert component.why_not(labelled) is None


def test_class_accuracy_needs_a_class_that_was_asked_for():
    dataset = SimpleNamespace(classes=10, component_name=lambda: "clouds")
    said = ACCURACY.why_not(SimpleNamespace(dataset=dataset, conditioning=REGISTRY.create("conditioning", "none")))
    assert said == "class_accuracy needs a class that was asked for; under none the network is told none"


def test_the_extractor_is_fitted_to_labels_and_its_weights_say_all():
    train = digits()[0]["train"]
    few = Split(images=train.images[:200], labels=train.labels[:200])
    weights, facts = EXTRACTOR.fit(few, 7, torch.device("cpu"))
    features = EXTRACTOR.features(weights, train.images[:5], torch.device("cpu"))
    assert features.shape == (5, 64) and features.dtype == torch.float64 and features.device.type == "cpu"
    assert all(isinstance(v, float) for v in facts.values()) and facts["train_accuracy"] > 0.9
    with pytest.raises(DataError, match="needs labels"):
        EXTRACTOR.fit(Split(images=few.images, labels=None), 7, torch.device("cpu"))
