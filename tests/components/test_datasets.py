"""Data sets that need no files, and how all are split; that each keeps its promise is in `test_conformance.py`."""

import hashlib
import subprocess
import sys

import pytest
import torch

import diffbench
from diffbench import split_indices
from diffbench.testing.stand_ins import cell_with
from tests.conftest import REGISTRY


def test_split_indices_are_disjoint_whole_and_in_proportion():
    labels = torch.tensor([0] * 70 + [1] * 30)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    cut = split_indices(labels, {"a": 0.5, "b": 0.3, "c": 0.2})
    assert sorted(torch.cat(list(cut.values())).tolist()) == list(range(100))
    assert {name: len(index) for name, index in cut.items()} == {"a": 50, "b": 30, "c": 20}
    assert [int((labels[cut[n]] == 0).sum()) for n in "abc"] == [35, 21, 14]


def test_split_indices_do_not_depend_on_a_generator_and_never_change():
    assert split_indices(10, {"a": 0.5, "b": 0.5})["a"].tolist() == sorted(
        sorted(range(10), key=lambda i: hashlib.sha256(str(i).encode()).digest())[::2])


def test_split_shares_must_be_a_whole():
    with pytest.raises(ValueError, match="sum to 1"):
        split_indices(10, {"a": 0.5, "b": 0.4})


def test_the_fingerprint_of_digits_needs_no_import_of_scikit_learn():
    code = "import sys, diffbench; diffbench.load_registry().create('dataset', 'digits').fingerprint(); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestGaussianMixture:
    def test_its_moments_are_what_it_says(self):
        made = REGISTRY.create("dataset", "gaussian_mixture", size=6, components=3)
        split = made.load()["train"]
        x_0 = split.images[:, 0].double() / 127.5 - 1
        for k, mean in enumerate(made.means):
            of_k = x_0[split.labels == k]
            assert (of_k.mean(0) - mean).abs().max() < 5 * made.std / len(of_k) ** 0.5
            assert float((of_k - mean).square().mean()) == pytest.approx(made.std**2 + (2 / 255) ** 2 / 12, rel=0.03)

    @pytest.mark.parametrize("options", [{}, {"separation": 1.0, "std": 0.5}])
    def test_the_moments_of_its_pixels_are_exact_also_where_clipped(self, options):
        made = REGISTRY.create("dataset", "gaussian_mixture", **options)
        mean, variance = made.pixel_moments
        splits = made.load().values()
        x_0, labels = torch.cat([s.images for s in splits])[:, 0].double() / 127.5 - 1, torch.cat([s.labels for s in splits])
        for k in range(made.components):
            of_k = x_0[labels == k]
            assert ((of_k.mean(0) - mean[k]).abs() < 5 * (variance[k] / len(of_k)).sqrt()).all()
            assert float((of_k - mean[k]).square().mean() / variance[k].mean()) == pytest.approx(1, abs=0.02)
        clipped = bool(options)
        assert ((variance.mean() - made.std**2 - (2 / 255) ** 2 / 12).abs() > 1e-4) == clipped, "else the closed form of the docstring"
        assert torch.equal(made.weights, torch.full((4,), 0.25, dtype=torch.float64))

    def test_its_content_never_changes(self):
        assert REGISTRY.create("dataset", "gaussian_mixture").fingerprint() == "df96ea95249d150fdff662c205cd145c818c0f0c884d2e14bcb5c26d71a1e034"

    def test_options_that_would_copy_or_clip_everything_are_refused(self):
        for wrong in ({"std": 0.001}, {"separation": 3.0}):
            with pytest.raises(diffbench.OptionError, match="must be a number in"):
                REGISTRY.create("dataset", "gaussian_mixture", **wrong)

    def test_components_are_apart_and_draws_differ(self):
        made = REGISTRY.create("dataset", "gaussian_mixture", components=12)
        products = made.means.flatten(1) @ made.means.flatten(1).T
        assert (products - products.diag().diag()).abs().max() < 1e-9 and products.diag().min() > 1
        other = REGISTRY.create("dataset", "gaussian_mixture", components=12, draw=1)
        assert other.fingerprint() != made.fingerprint() and not torch.equal(other.load()["train"].images, made.load()["train"].images)


class TestSuperResolution:
    def test_the_condition_is_the_average(self):
        made = REGISTRY.create("dataset", "super_resolution", inner=REGISTRY.create("dataset", "digits"), factor=4)
        split = made.load()["train"]
        assert made.condition_shape == (1, 2, 2)
        assert float(split.conditions[5, 0, 1, 0]) == pytest.approx(float(split.images[5, 0, 4:, :4].double().mean()), abs=0.5)

    def test_sizes_that_do_not_divide_are_refused(self):
        made = REGISTRY.create("dataset", "super_resolution", inner=REGISTRY.create("dataset", "digits"), factor=3)
        assert made.why_not(cell_with(REGISTRY, dataset=made)) == "super_resolution reduces by 3, and 8x8 is not divisible by it"
        with pytest.raises(diffbench.DataError, match="reduces by 3"):
            made.load()

    def test_means_are_exact_and_an_image_that_is_a_condition_is_not_replaced(self):
        inner = REGISTRY.create("dataset", "digits")
        made = REGISTRY.create("dataset", "super_resolution", inner=inner)
        split = made.load()["held_out"]
        means = split.images.double().reshape(-1, 1, 4, 2, 4, 2).mean((3, 5))
        assert torch.equal(split.conditions, (means + 0.5).floor().to(torch.uint8))
        assert all(torch.equal(split.images, inner.load()[name].images) for name, split in made.load().items())
        twice = REGISTRY.create("dataset", "super_resolution", inner=made)
        assert twice.why_not(cell_with(REGISTRY, dataset=twice)) == "super_resolution around super_resolution would replace the image that is its condition"


def test_pixels_are_features_without_labels():
    images = torch.randint(0, 256, (5, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = REGISTRY.create("extractor", "pixels", size=4)
    weights, _ = pixels.fit(diffbench.Split(images=images), 0, torch.device("cpu"))
    features = pixels.features(weights, images, torch.device("cpu"))
    assert features.shape == (5, 48) and features.dtype == torch.float64 and pixels.distance_column == "fd_pixels"
    assert float(features[2, 0]) == pytest.approx(float(images[2, 0, :4, :3].double().mean() / 255))
