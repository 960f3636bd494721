"""Data sets of published files: checked to the last byte before anything reads them. Made-up files stand in for those not at hand."""

import gzip
import hashlib
import importlib
import pickle
import shutil

import numpy
import pytest
import torch

import diffbench
from tests.conftest import REGISTRY


class TestMnist:
    def test_the_published_files(self, data_root, monkeypatch):
        monkeypatch.setenv("DIFFBENCH_DATA", str(data_root))
        mnist = REGISTRY.create("dataset", "mnist")
        splits = mnist.load()
        assert {name: len(s.images) for name, s in splits.items()} == {"train": 60_000, "reference": 5_000, "held_out": 5_000}
        assert splits["train"].images.shape[1:] == (1, 32, 32) and not splits["train"].images[:, :, :2].any()
        assert torch.bincount(splits["train"].labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        part = REGISTRY.create("dataset", "mnist", train_count=1000, pad=False)
        assert len(part.load()["train"].images) == 1000 and part.image_shape == (1, 28, 28)

    def test_missing_files_say_where_to_put_them(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        with pytest.raises(diffbench.DataError, match=r"train-images-idx3-ubyte is not in .*MNIST/raw; .*--data-root.*download: true"):
            REGISTRY.create("dataset", "mnist").fingerprint()

    def test_a_damaged_file_is_found(self, data_root, tmp_path, monkeypatch):
        shutil.copytree(data_root / "MNIST", tmp_path / "MNIST", copy_function=shutil.copyfile)
        victim = tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
        victim.chmod(0o644)
        victim.write_bytes(victim.read_bytes()[:-1] + b"\x09")
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        with pytest.raises(diffbench.DataError, match="t10k-labels-idx1-ubyte is damaged: its MD5 is .*, the published one 27ae3e4e09519cfbb04c329615203637"):
            REGISTRY.create("dataset", "mnist").fingerprint()

    def test_the_files_are_those_that_were_checked(self, data_root, tmp_path, monkeypatch):
        """torchvision would prefer files of its own older format that lie beside them."""
        (tmp_path / "MNIST" / "processed").mkdir(parents=True)
        (tmp_path / "MNIST" / "raw").symlink_to(data_root / "MNIST" / "raw")
        for name in ("training.pt", "test.pt"):
            torch.save((torch.zeros(100, 28, 28, dtype=torch.uint8), torch.zeros(100, dtype=torch.int64)), tmp_path / "MNIST" / "processed" / name)
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        assert len(REGISTRY.create("dataset", "mnist", pad=False).load()["train"].images) == 60_000


def random_images(seed, count, *shape):
    """Noise and labels in which every class is there."""
    images = numpy.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=numpy.uint8)
    return images, numpy.arange(count, dtype=numpy.uint8) % 10


def idx(values) -> bytes:
    return gzip.compress(bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape) + values.tobytes(), mtime=0)


def put(dataset, folder, files, monkeypatch):
    """Writes files and lets their sums stand for the published ones."""
    folder.mkdir(parents=True)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    published = importlib.import_module(type(dataset).__module__).MD5
    assert set(sums) == set(published)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        monkeypatch.setitem(published, name, sums[name])
    return sums


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """(the data set, its training images, its test images): one test image is a copy of a training image, one of another test image."""
    train, test = random_images(0, 300, 28, 28), random_images(1, 62, 28, 28)
    test[0][60], test[0][61] = train[0][7], test[0][3]
    dataset = REGISTRY.create("dataset", "fashion_mnist")
    monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
    files = {}
    for part, (images, labels) in (("train", train), ("t10k", test)):
        files |= {f"{part}-images-idx3-ubyte.gz": idx(images), f"{part}-labels-idx1-ubyte.gz": idx(labels)}
    put(dataset, tmp_path / "FashionMNIST" / "raw", files, monkeypatch)
    return dataset, train, test


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """(the data set, training images [N, 3, 32, 32], labels)."""
    from torchvision.datasets import CIFAR10

    images, labels = random_images(0, 180, 3, 32, 32)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    files = {name: pickle.dumps({"data": images[rows].reshape(30, -1), "labels": labels[rows].tolist()}, protocol=2)
             for name, rows in zip(names, numpy.split(numpy.arange(180), 6), strict=True)}
    files["batches.meta"] = pickle.dumps({"label_names": list("abcdefghij")}, protocol=2)
    dataset = REGISTRY.create("dataset", "cifar10")
    monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
    sums = put(dataset, tmp_path / "cifar-10-batches-py", files, monkeypatch)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": sums["batches.meta"]})
    return dataset, images, labels


class TestFashionMnist:
    def test_the_published_sums_are_torchvisions(self):
        from torchvision.datasets import FashionMNIST

        dataset = REGISTRY.create("dataset", "fashion_mnist")
        assert importlib.import_module(type(dataset).__module__).MD5 == dict(FashionMNIST.resources)

    def test_images_labels_and_splits(self, fashion):
        dataset, (images, labels), _ = fashion
        splits = dataset.load()
        assert dataset.image_shape == (1, 32, 32) == tuple(splits["train"].images.shape[1:])
        assert torch.equal(splits["train"].images[:, 0, 2:-2, 2:-2], torch.from_numpy(images))
        assert torch.equal(splits["train"].labels, torch.from_numpy(labels).long())
        assert torch.bincount(splits["reference"].labels).tolist() == [3] * 10 == torch.bincount(splits["held_out"].labels).tolist()
        part = REGISTRY.create("dataset", "fashion_mnist", train_count=100, pad=False).load()
        assert len(part["train"].labels) == 100 and set(torch.bincount(part["train"].labels).tolist()) <= {9, 10, 11} and part["train"].images.shape[1:] == (1, 28, 28)
        assert len(dataset.fingerprint()) == 64

    def test_copies_are_in_one_split_only(self, fashion):
        seen = [{bytes(image.numpy()) for image in split.images} for split in fashion[0].load().values()]
        assert [len(s) for s in seen] == [300, 30, 30] and len(set.union(*seen)) == 360

    def test_missing_and_damaged_files(self, fashion, tmp_path):
        victim = tmp_path / "FashionMNIST" / "raw" / "t10k-labels-idx1-ubyte.gz"
        victim.write_bytes(victim.read_bytes()[:-1])
        for use in (fashion[0].fingerprint, fashion[0].load):
            with pytest.raises(diffbench.DataError, match="fashion_mnist: .*t10k-labels-idx1-ubyte.gz is damaged: its MD5 is .*, the published one .*; delete it"):
                use()
        victim.unlink()
        with pytest.raises(diffbench.DataError, match=r"t10k-labels-idx1-ubyte.gz is not in .*FashionMNIST/raw; .*--data-root.*fashion_mnist: {download: true}"):
            fashion[0].fingerprint()

    def test_a_download_that_fails_says_where_to_put_the_files(self, tmp_path, monkeypatch):
        import torchvision.datasets.utils as utils

        def refused(*args, **kwargs):
            raise OSError("no route to host")

        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        for function in ("download_url", "download_and_extract_archive"):
            monkeypatch.setattr(utils, function, refused)
        for name, folder in (("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")):
            with pytest.raises(diffbench.DataError, match=f"{name} cannot be downloaded to .*: no route to host; put the files into .*{folder} yourself"):
                REGISTRY.create("dataset", name, download=True).fingerprint()


class TestCifar10:
    def test_the_published_sums_are_torchvisions(self):
        from torchvision.datasets import CIFAR10

        known = dict([*CIFAR10.train_list, *CIFAR10.test_list, (CIFAR10.meta["filename"], CIFAR10.meta["md5"])])
        assert importlib.import_module(type(REGISTRY.create("dataset", "cifar10")).__module__).MD5 == known

    def test_images_labels_and_splits(self, cifar):
        dataset, images, labels = cifar
        splits = dataset.load()
        assert torch.equal(splits["train"].images, torch.from_numpy(images[:150])) and splits["train"].images.is_contiguous()
        assert torch.equal(splits["train"].labels, torch.from_numpy(labels[:150]).long())
        assert {name: len(split.images) for name, split in splits.items()} == {"train": 150, "reference": 15, "held_out": 15}
        assert len(REGISTRY.create("dataset", "cifar10", train_count=100).load()["train"].images) == 100

    def test_a_file_that_is_not_the_published_one_is_never_opened(self, cifar, tmp_path):
        trace = tmp_path / "opened"
        (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
        for use in (cifar[0].fingerprint, cifar[0].load):
            with pytest.raises(diffbench.DataError, match="test_batch is damaged: its MD5 is .*, the published one"):
                use()
        assert not trace.exists()

    def test_missing_files(self, cifar, tmp_path):
        shutil.rmtree(tmp_path / "cifar-10-batches-py")
        with pytest.raises(diffbench.DataError, match=r"data_batch_1 is not in .*cifar-10-batches-py; .*cifar10: {download: true}"):
            cifar[0].load()
