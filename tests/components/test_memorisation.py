"""A model that only repeats its training images has the best distances, and is caught."""

import pytest
import torch

import diffbench
from diffbench import DataError, Evidence, Real
from diffbench.diffusion import sampling
from diffbench.diffusion.pixels import to_pixels
from diffbench.stages.evaluate import as_columns, some_of
from diffbench.store.artefacts import Store
from diffbench.testing.oracles import KnownImages
from tests.components.test_metrics import EXTRACTOR
from tests.conftest import REGISTRY
from tests.diffusion.test_classifier import digits

METRIC = REGISTRY.create("metric", "memorisation")


def seen(images, labels=None):
    _, model, _ = digits()
    return Evidence(images=images, labels=labels, features=EXTRACTOR.features(model.weights(), images, torch.device("cpu")), predicted=None)


def real():
    return Real(**{name: seen(split.images, split.labels) for name, split in digits()[0].items()})


def measured(images):
    return as_columns(METRIC.measure(seen(images), real()))["values"]


def test_copies_are_caught_and_what_nobody_has_seen_is_not():
    splits = digits()[0]
    copies, fresh = measured(splits["train"].images[:400]), measured(splits["held_out"].images)
    assert (copies[""], copies["authenticity"], copies["nn_distance_train"]) == (1.0, 0.0, 0.0)
    assert fresh[""] < 0.02 and 0.35 < fresh["authenticity"] < 0.65 and fresh["nn_distance_train"] > 0.05


@pytest.mark.parametrize("damage", ["rounding", "noise", "half"])
def test_copies_that_are_not_exact_are_copies(damage):
    images = digits()[0]["train"].images[:400].float()
    generator = torch.Generator().manual_seed(0)
    if damage == "rounding":
        images = images + torch.randint(-1, 2, images.shape, generator=generator)
    if damage == "noise":
        images = images + 5 * torch.randn(images.shape, generator=generator)
    if damage == "half":
        images[200:] = digits()[0]["held_out"].images[:200].float()
    found = measured(images.round().clamp(0, 255).to(torch.uint8))
    expected = 0.5 if damage == "half" else 1.0
    assert found[""] == pytest.approx(expected, abs=0.03) and found["_low"] <= found[""] <= found["_high"]


def test_every_distance_prefers_the_copies():
    """Which is why it is measured by default."""
    splits = real()
    copies = some_of(splits.train, 395)
    assert torch.equal(copies.labels.bincount(), splits.held_out.labels.bincount()) or (copies.labels.bincount() - splits.held_out.labels.bincount()).abs().max() <= 2
    fresh = splits.held_out
    same = Real(reference=splits.train, held_out=splits.held_out)            # against what was learnt from, as tables in the field often are
    for name, is_better in (("fid", min), ("kid", min), ("sliced_wasserstein", min), ("prdc", max)):
        metric = REGISTRY.create("metric", name)
        a, b = (as_columns(metric.measure(some, same))["values"][""] for some in (copies, fresh))
        assert is_better(a, b) == a and a != b, name


def test_distances_in_pixels_are_root_mean_squares():
    train = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    train[1], train[2] = 100, 255
    features = torch.tensor([[0.0], [1.0], [2.0]], dtype=torch.float64)
    known = Evidence(images=train, labels=None, features=features, predicted=None)
    made = Evidence(images=torch.full((2, 1, 8, 8), 51, dtype=torch.uint8), labels=None, features=torch.tensor([[0.4], [9.0]]).double(), predicted=None)
    found = METRIC.measure(made, Real(reference=known, held_out=known, train=known))
    assert found["nn_distance_train"].value == pytest.approx(49 / 255) and found[""].value == 0.0
    assert found["authenticity"].value == 0.5, "0.4 is nearer to 0 than 1 is, and 9 is farther from 2 than 1 is"


def test_without_training_images_it_is_refused():
    splits = real()
    with pytest.raises(DataError, match="two training"):
        METRIC.measure(splits.held_out, Real(reference=splits.reference, held_out=splits.held_out))


def test_the_oracle_memoriser_sampled_by_us_is_caught_and_every_distance_likes_it():
    """The exact denoiser of the training images, 12 Heun steps, as many samples as there are held-out images; then all as for any model.

    In equal steps of log-SNR: in equal steps of t all samples are copies too, but some images come more often than others.
    """
    splits, known = digits()[0], real()
    count = len(splits["held_out"].images)
    schedule, heun = REGISTRY.create("noise_schedule", "cosine"), REGISTRY.create("scheduler", "heun", steps=12)
    spacing = REGISTRY.create("spacing", "log_snr")
    denoise = KnownImages(schedule=schedule, images=splits["train"].images.double() / 127.5 - 1)
    x_T = sampling.initial(schedule, spacing, 12, range(count), (1, 8, 8)).double()
    generated = seen(to_pixels(diffbench.sample(denoise, schedule, heun, x_T, spacing=spacing).x_0))
    found, floor = (as_columns(METRIC.measure(some, known))["values"] for some in (generated, known.held_out))
    assert found[""] > 0.95 and found["_low"] > 0.9 and floor["_high"] < 0.02
    assert found["authenticity_high"] < 0.1 < 0.35 < floor["authenticity"]
    assert found["nn_distance_train"] < 0.01 < 0.05 < floor["nn_distance_train"]
    to_train = Real(reference=known.train, held_out=known.held_out)
    copied, fresh = ({name: REGISTRY.create("metric", name).measure(some, to_train) for name in ("fid", "kid", "sliced_wasserstein", "prdc")}
                     for some in (generated, known.held_out))
    for name in ("fid", "sliced_wasserstein"):
        assert copied[name][""].debiased < fresh[name][""].debiased, name
    assert copied["kid"][""].low <= 0, "nothing is closer to a set than 0, which an unbiased estimate passes by chance"
    for name in ("", "density", "coverage"):
        assert copied["prdc"][name].value >= fresh["prdc"][name].value, name


def test_a_row_has_the_values_of_held_out_images_beside_its_own(tmp_path):
    """Asked for by its distance alone; what held-out images have is measured once, as the floor, for all rows."""
    axes = {"backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}, "scheduler": {"ddim": {"steps": [2, 3]}}}
    matrix = {"diffbench": 1, "dataset": "digits", "axes": axes, "train": {"steps": 1}, "sample": {"count": 40}, "extractor": "pixels", "metrics": ["kid"],
              "throughput": {"repeats": 3, "batch_size": 1}}
    plan = diffbench.plan(matrix, device="cpu")
    floor = plan.floors["digits:near_copy_share"]
    measuring = [s for s in plan.stages.values() if s.name == "evaluate" and "near_copy_share" in s.label]
    assert len(measuring) == 3 and all(s.key == floor or s.parents["held_out"] == floor for s in measuring)
    assert diffbench.run(matrix, out=tmp_path / "run", store=Store(tmp_path / "store"), device="cpu").counts == {"ok": 2}
    rows = diffbench.load(tmp_path / "run")
    known = Real(**{name: pixels_of(split) for name, split in digits()[0].items()})
    expected = as_columns(METRIC.measure(known.held_out, known))["values"]
    for name in ("near_copy_share", "authenticity", "nn_distance_train", "nn_distance_train_in_features"):
        assert rows[f"{name}_of_held_out"].tolist() == [expected["" if name == "near_copy_share" else name]] * 2
        assert rows[name].notna().all()
    assert not [c for c in rows.columns if c.endswith(("_low_of_held_out", "_debiased_of_held_out"))]


def pixels_of(split):
    features = REGISTRY.create("extractor", "pixels").features({}, split.images, torch.device("cpu"))
    return Evidence(images=split.images, labels=split.labels, features=features, predicted=None)
