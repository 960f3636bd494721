"""Data sets of published files: checked to the last byte before anything reads them. Made-up files stand in for those not at hand."""

import gzip
import hashlib
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy
import pytest
import torch
from diffbench_components.datasets import published

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


class TestFashionMnist:
    def files(self, root, monkeypatch):
        """Files of the published form with made-up content; their MD5 stand in for the published ones."""
        from torchvision.datasets import FashionMNIST

        raw, rng, table = root / "FashionMNIST" / "raw", numpy.random.default_rng(0), []
        raw.mkdir(parents=True)
        for part, count in (("train", 400), ("t10k", 200)):
            for kind, content in (("images-idx3", rng.integers(0, 256, (count, 28, 28), dtype=numpy.uint8)), ("labels-idx1", (numpy.arange(count) % 10).astype(numpy.uint8))):
                header = bytes([0, 0, 8, content.ndim]) + numpy.array(content.shape, ">i4").tobytes()
                packed = gzip.compress(header + content.tobytes())
                (raw / f"{part}-{kind}-ubyte.gz").write_bytes(packed)
                table.append((f"{part}-{kind}-ubyte.gz", hashlib.md5(packed).hexdigest()))
        monkeypatch.setattr(FashionMNIST, "resources", table)
        monkeypatch.setenv("DIFFBENCH_DATA", str(root))
        return raw

    def test_the_published_form(self, tmp_path, monkeypatch):
        self.files(tmp_path, monkeypatch)
        made = REGISTRY.create("dataset", "fashion_mnist", train_count=100)
        splits = made.load()
        assert {name: len(s.images) for name, s in splits.items()} == {"train": 100, "reference": 100, "held_out": 100}
        assert splits["train"].images.shape[1:] == (1, 32, 32) and torch.bincount(splits["train"].labels).tolist() == [10] * 10
        assert made.fingerprint() == made.fingerprint()

    def test_copies_are_in_one_split_only(self):
        """Some published test images are also training images."""
        train, test = torch.arange(80, dtype=torch.uint8).reshape(80, 1, 1, 1), torch.arange(78, 140, dtype=torch.uint8).reshape(62, 1, 1, 1)
        test[10:12] = test[5]
        splits = published.split_published((train, torch.arange(80) % 2), (test, torch.arange(62) % 2), 80)
        seen = [set(split.images.flatten().tolist()) for split in splits.values()]
        assert [len(s) for s in seen] == [80, 29, 29] and len(set.union(*seen)) == 138

    @pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw"), ("cifar10", "cifar-10-batches-py")])
    def test_a_download_that_fails_says_where_to_put_the_files(self, tmp_path, monkeypatch, name, folder):
        def refused(*arguments, **options):
            raise URLError("no route to host")

        monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", refused)
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        with pytest.raises(diffbench.DataError, match=f"{name} cannot be fetched into .*{folder}: .*no route to host.*; put the files there yourself"):
            REGISTRY.create("dataset", name, download=True).fingerprint()

    def test_a_download_fetches_what_is_missing(self, tmp_path, monkeypatch):
        made = self.files(tmp_path / "served", monkeypatch)
        monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive",
                            lambda url, download_root, filename, md5: (Path(download_root).mkdir(parents=True, exist_ok=True),
                                                                       shutil.copyfile(made / filename, Path(download_root) / filename)))
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path / "here"))
        assert len(REGISTRY.create("dataset", "fashion_mnist", train_count=100, download=True).load()["train"].images) == 100

    def test_damage_is_found(self, tmp_path, monkeypatch):
        raw = self.files(tmp_path, monkeypatch)
        victim = raw / "t10k-labels-idx1-ubyte.gz"
        victim.write_bytes(victim.read_bytes()[:-1])
        with pytest.raises(diffbench.DataError, match="t10k-labels-idx1-ubyte.gz is damaged: its MD5 is"):
            REGISTRY.create("dataset", "fashion_mnist").fingerprint()

    def test_missing_files_say_where_to_put_them(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
        with pytest.raises(diffbench.DataError, match=r"train-images-idx3-ubyte.gz is not in .*FashionMNIST/raw; .*fashion_mnist: \{download: true\}"):
            REGISTRY.create("dataset", "fashion_mnist").fingerprint()


class TestCifar10:
    def files(self, root, monkeypatch):
        from torchvision.datasets import CIFAR10

        folder, rng = root / "cifar-10-batches-py", numpy.random.default_rng(0)
        folder.mkdir(parents=True)

        def batch(name, count):
            content = pickle.dumps({"data": rng.integers(0, 256, (count, 3072), dtype=numpy.uint8), "labels": [i % 10 for i in range(count)]})
            (folder / name).write_bytes(content)
            return [name, hashlib.md5(content).hexdigest()]
        monkeypatch.setattr(CIFAR10, "train_list", [batch(f"data_batch_{i}", 40) for i in range(1, 6)])
        monkeypatch.setattr(CIFAR10, "test_list", [batch("test_batch", 100)])
        meta = pickle.dumps({"label_names": list("abcdefghij")})
        (folder / "batches.meta").write_bytes(meta)
        monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()})
        monkeypatch.setenv("DIFFBENCH_DATA", str(root))
        return folder

    def test_the_published_form(self, tmp_path, monkeypatch):
        self.files(tmp_path, monkeypatch)
        splits = REGISTRY.create("dataset", "cifar10", train_count=100).load()
        assert {name: tuple(s.images.shape) for name, s in splits.items()} == {"train": (100, 3, 32, 32), "reference": (50, 3, 32, 32), "held_out": (50, 3, 32, 32)}
        assert torch.bincount(splits["reference"].labels).tolist() == [5] * 10

    def test_nothing_is_unpickled_that_is_not_the_published_file(self, tmp_path, monkeypatch):
        folder = self.files(tmp_path, monkeypatch)
        (folder / "data_batch_3").write_bytes(b"not what was published")
        with pytest.raises(diffbench.DataError, match="data_batch_3 is damaged: its MD5 is"):
            REGISTRY.create("dataset", "cifar10").load()

    def test_a_file_that_is_not_the_published_one_is_never_opened(self, tmp_path, monkeypatch):
        folder, trace = self.files(tmp_path, monkeypatch), tmp_path / "opened"
        for victim in ("test_batch", "batches.meta"):
            whole = (folder / victim).read_bytes()
            (folder / victim).write_bytes(b"cos\nsystem\n(S'touch " + str(trace).encode() + b"'\ntR.")
            with pytest.raises(diffbench.DataError, match=f"{victim} is damaged: its MD5 is"):
                REGISTRY.create("dataset", "cifar10").load()
            (folder / victim).write_bytes(whole)
        assert not trace.exists()

    def test_missing_files_say_where_to_put_them(self, tmp_path, monkeypatch):
        (self.files(tmp_path, monkeypatch) / "batches.meta").unlink()
        with pytest.raises(diffbench.DataError, match=r"batches.meta is not in .*cifar-10-batches-py; .*cifar10: \{download: true\}"):
            REGISTRY.create("dataset", "cifar10").load()

    def test_the_published_sums(self):
        """Those of the archive on the authors' page, unpacked; torchvision's table is what we compare with."""
        from torchvision.datasets import CIFAR10

        assert dict(CIFAR10.train_list)["data_batch_1"] == "c99cafc152244af753f735de768cd75f"
        assert dict(CIFAR10.test_list) == {"test_batch": "40351d587109b95175f43aff81a1287e"}
