"""Datasets: disjoint splits of real images, and every bad file named before anything is trained."""

import hashlib
import subprocess
import sys

import pytest
import torch

import diffbench
from diffbench import split_indices
from tests.conftest import all_of


def available():
    found = []
    for parameter in all_of("dataset"):
        try:
            parameter.values[0].fingerprint()
        except diffbench.DataError:
            continue                                          # its files are not here; it has tests of its own below
        found.append(parameter)
    return found


@pytest.mark.parametrize("dataset", available())
class TestEveryDataset:
    def test_splits_have_the_promised_form(self, dataset):
        splits = dataset.load()
        assert set(splits) == {"train", "reference", "held_out"}
        for split in splits.values():
            assert split.images.dtype == torch.uint8 and split.images.shape[1:] == dataset.image_shape
            assert (split.labels is None) == (dataset.classes is None)
            if split.labels is not None:
                assert split.labels.dtype == torch.int64 and set(split.labels.tolist()) == set(range(dataset.classes))

    def test_no_image_is_in_two_splits(self, dataset):
        hashes = {name: {hashlib.sha256(i.numpy().tobytes()).digest() for i in split.images} for name, split in dataset.load().items()}
        names = list(hashes)
        for i, a in enumerate(names):
            for b in names[i + 1:]:
                assert not hashes[a] & hashes[b]

    def test_loading_twice_gives_the_same_bits(self, dataset):
        first, second = dataset.load(), dataset.load()
        assert all(torch.equal(first[name].images, second[name].images) for name in first)
        assert dataset.fingerprint() == dataset.fingerprint() and len(dataset.fingerprint()) == 64

    def test_pixels_use_the_range(self, dataset):
        images = dataset.load()["train"].images
        assert images.min() == 0 and images.max() == 255


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
