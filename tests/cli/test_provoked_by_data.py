"""Messages about data, images and numbers of samples, each provoked: the whole sentence."""

from types import SimpleNamespace

import pytest
import torch

import diffbench
from diffbench.diffusion.classifier import Classifier, fit_classifier
from diffbench.stats import jackknife
from diffbench.stats.frechet import frechet_distance
from tests.conftest import REGISTRY


def test_images_a_classifier_cannot_learn_from_or_read():
    images, labels = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    with pytest.raises(diffbench.DataError, match=r"a classifier learns from uint8 images \[N, C, H, W\] and labels \[N\], got "):
        fit_classifier(images.float(), labels, 2, seed=0)
    with pytest.raises(diffbench.DataError, match=r"labels must be in 0..1, got 0..7"):
        fit_classifier(images, labels * 7, 2, seed=0)
    with pytest.raises(diffbench.Diverged, match="the classifier's loss is nan after 3 steps"):
        fit_classifier(images, labels, 2, seed=0, steps=3, learning_rate=1e38)
    with pytest.raises(diffbench.DataError, match=r"the classifier reads uint8 images \[N, 1, 8, 8\], got float32 \[20, 1, 8, 8\]"):
        Classifier((1, 8, 8), 2).describe(images.float())


def test_too_few_samples_for_a_number():
    few, features = torch.zeros(3, 2), torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(diffbench.DataError, match=r"a jackknife needs at least \d+ samples and a block for each, got 60 samples and 3 blocks"):
        frechet_distance(features, diffbench.moments(features), torch.zeros(3))
    with pytest.raises(diffbench.DataError, match="the jackknife takes 20 values, one per block left out, got 3"):
        jackknife.jackknife(1.0, few[:, 0])
    for name, given, message in (("prdc", few, r"balls that reach to neighbour \d+ need more than \d+ samples in a set, got 3 generated and 3 real ones"),
                                 ("kid", few[:1], r"needs features \[N, d\] and \[M, d\] with N, M >= 2, got \[1, 2\] and \[1, 2\]")):
        seen = SimpleNamespace(features=given, logits=None, labels=None)
        with pytest.raises(diffbench.DataError, match=message):
            REGISTRY.create("metric", name).measure(seen, SimpleNamespace(reference=seen, held_out=seen, train=seen))


def test_data_that_are_not_there_or_not_what_they_are(tmp_path, monkeypatch):
    from diffbench_components.datasets import published

    with pytest.raises(diffbench.DataError, match="an IDX file of unsigned bytes begins with 0, 0, 8, found "):
        published._idx(b"PNG!")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(diffbench.DataError, match="files in .* are unusable; mend or remove them, or write 'damaged: skip'"):
        REGISTRY.create("dataset", "image_folder", path=str(tmp_path), size=8).load()
    with pytest.raises(diffbench.DataError, match="usable images, and three splits need at least 5"):
        REGISTRY.create("dataset", "image_folder", path=str(tmp_path), size=8, damaged="skip").load()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(diffbench.DataError, match="digits comes inside scikit-learn, and its file datasets/data/digits.csv.gz is not there; reinstall"):
        REGISTRY.create("dataset", "digits").fingerprint()


def test_a_cifar10_that_torchvision_cannot_read(tmp_path, monkeypatch):
    from diffbench_components.datasets import cifar10

    monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
    with pytest.raises(diffbench.DataError, match="cifar10: torchvision cannot read "):
        cifar10.Cifar10()._published(train=True)
