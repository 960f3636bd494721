"""The classifier: sizes, determinism, its weights as plain tensors, and how well and fast it learns digits and MNIST."""

import functools
import time

import numpy as np
import pytest
import safetensors.torch
import torch

from diffbench import Classifier, DataError, fit_classifier
from diffbench.diffusion.classifier import steps_for
from tests.conftest import REGISTRY


@functools.cache
def digits():
    """The splits of digits, and a classifier fitted to its training split: one fit for all tests of a session."""
    splits = REGISTRY.create("dataset", "digits").load()
    return splits, *fit_classifier(splits["train"].images, splits["train"].labels, 10, 0)


def short_fit(seed: int, steps: int = 3):
    train = digits()[0]["train"]
    return fit_classifier(train.images, train.labels, 10, seed, "cpu", steps=steps)[0].weights()


def accuracy(model: Classifier, images, labels) -> float:
    return float((model.predict(images) == labels).double().mean())


def test_it_learns_digits():
    splits, model, facts = digits()
    assert facts["train_accuracy"] > 0.985
    assert facts["fit_steps"] == steps_for(len(splits["train"].images))
    assert facts["fit_seconds"] > 0
    assert accuracy(model, splits["held_out"].images, splits["held_out"].labels) >= 0.97


@pytest.mark.slow
@pytest.mark.slow
def test_it_learns_mnist(data_root):
    def read(name, header, *shape):
        return torch.from_numpy(np.fromfile(data_root / "MNIST" / "raw" / name, dtype=np.uint8)[header:].reshape(-1, *shape).copy())

    images, labels = read("train-images-idx3-ubyte", 16, 1, 28, 28), read("train-labels-idx1-ubyte", 8).long()
    began = time.process_time()
    model, _ = fit_classifier(images[:10_000], labels[:10_000], 10, 0, steps=200)
    assert time.process_time() - began < 60
    assert accuracy(model, read("t10k-images-idx3-ubyte", 16, 1, 28, 28), read("t10k-labels-idx1-ubyte", 8).long()) >= 0.97


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 31), (1, 28, 28), (3, 32, 32), (4, 64, 64)])
def test_it_takes_any_size_and_is_rebuilt_from_its_weights(shape):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (6, *shape), dtype=torch.uint8, generator=generator)
    model, facts = fit_classifier(images, torch.arange(6) % 3, 3, 0, steps=2, width=16)
    assert facts["fit_steps"] == 2
    weights = safetensors.torch.load(safetensors.torch.save(model.weights()))
    rebuilt = Classifier.from_weights(weights)
    features = rebuilt.describe(images)
    assert features.shape == (6, 16) and features.dtype == torch.float64 and not features.requires_grad
    assert torch.equal(features, model.describe(images))
    assert torch.equal(rebuilt.predict(images), model.predict(images))
    scaled = images.float() / 127.5 - 1
    assert rebuilt(scaled).shape == (6, 3)
    assert torch.equal(rebuilt.features(scaled).double(), features)


def test_an_image_does_not_depend_on_its_batch_or_on_the_mode():
    splits, model, _ = digits()
    images = splits["held_out"].images[:50]
    together = model.describe(images)
    alone = torch.cat([model.describe(image[None]) for image in images])
    assert (together - alone).abs().max() < 1e-4
    scaled = images.float() / 127.5 - 1
    assert torch.equal(model.train().features(scaled).detach(), model.eval().features(scaled).detach())


def test_one_seed_repeats_to_the_bit_and_another_does_not():
    first, again, other = short_fit(0), short_fit(0), short_fit(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first if name.endswith("weight"))


def test_the_global_generator_is_neither_read_nor_moved():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = short_fit(0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(short_fit(0)["head.weight"], first["head.weight"])
    moved = torch.get_rng_state()
    Classifier.from_weights(first)
    assert torch.equal(torch.get_rng_state(), moved)


def test_the_images_it_learns_from_are_left_as_they_are():
    train = digits()[0]["train"]
    before = train.images.clone()
    short_fit(0)
    assert torch.equal(train.images, before)


def test_what_it_cannot_learn_from_is_refused():
    images, labels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 2, 3])
    for bad_images, bad_labels, sentence in [
        (images.float(), labels, "uint8"), (images, labels[:3], "labels"), (images[:0], labels[:0], "uint8"),
        (images, labels + 7, r"0\.\.9, got 7\.\.10"), (images[..., :7], labels, "8x8 to 64x64, got 8x7"),
    ]:
        with pytest.raises(DataError, match=sentence):
            fit_classifier(bad_images, bad_labels, 10, 0)
    with pytest.raises(DataError, match="at least one step"):
        fit_classifier(images, labels, 10, 0, steps=0)
    with pytest.raises(DataError, match=r"\[N, 1, 8, 8\], got uint8 \[2, 1, 9, 9\]"):
        digits()[1].predict(torch.zeros(2, 1, 9, 9, dtype=torch.uint8))


def test_more_images_get_more_steps():
    assert [steps_for(n) for n in (100, 1000)] == [400, 400]
    assert 1900 < steps_for(60_000) < 2200
