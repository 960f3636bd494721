"""Datasets: disjoint splits of real images, and every bad file named before anything is trained."""

import gzip
import hashlib
import pickle
import shutil
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image

import diffbench
from diffbench import split_indices
from diffbench.testing.stand_ins import cell_with, examples
from tests.conftest import REGISTRY, all_of


def available():
    found = []
    for parameter in all_of("dataset"):
        try:
            parameter.values[0].fingerprint()
        except diffbench.DataError:
            continue                                          # its files are not here; it has tests of its own below
        found.append(parameter)
    return found + [pytest.param(made, id=made.component_name()) for made in examples(REGISTRY, "dataset", "super_resolution")]


@pytest.mark.parametrize("dataset", available())
class TestEveryDataset:
    def test_splits_have_the_promised_form(self, dataset):
        splits = dataset.load()
        assert set(splits) == {"train", "reference", "held_out"}
        for split in splits.values():
            assert split.images.dtype == torch.uint8 and split.images.shape[1:] == dataset.image_shape
            assert (split.labels is None) == (dataset.classes is None)
            assert (split.conditions is None) == (dataset.condition_shape is None)
            if split.conditions is not None:
                assert split.conditions.dtype == torch.uint8 and split.conditions.shape == (len(split.images), *dataset.condition_shape)
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
        assert images.min() < 10 and images.max() > 245


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


class TestGaussianMixture:
    def test_its_moments_are_what_it_says(self):
        made = REGISTRY.create("dataset", "gaussian_mixture", size=6, components=3)
        split = made.load()["train"]
        x_0 = split.images[:, 0].double() / 127.5 - 1
        for k, mean in enumerate(made.means):
            of_k = x_0[split.labels == k]
            assert (of_k.mean(0) - mean).abs().max() < 5 * made.std / len(of_k) ** 0.5
            assert float((of_k - mean).square().mean()) == pytest.approx(made.std**2 + (2 / 255) ** 2 / 12, rel=0.03)

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


def test_pixels_are_features_without_labels():
    images = torch.randint(0, 256, (5, 3, 16, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = REGISTRY.create("extractor", "pixels", size=4)
    weights, _ = pixels.fit(diffbench.Split(images=images), 0, torch.device("cpu"))
    features = pixels.features(weights, images, torch.device("cpu"))
    assert features.shape == (5, 48) and features.dtype == torch.float64 and pixels.distance_column == "fd_pixels"
    assert float(features[2, 0]) == pytest.approx(float(images[2, 0, :4, :3].double().mean() / 255))


def noise_images(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng([seed, *folder.name.encode()])
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, in two classes."""
    for name in ("cat", "dog"):
        noise_images(tmp_path / "images" / name, 6)
    return tmp_path / "images"


def image_folder(root, **options):
    return REGISTRY.create("dataset", "image_folder", path=str(root), size=16, **options)


class TestImageFolder:
    def test_good_images_with_and_without_labels(self, folder):
        plain, labelled = image_folder(folder), image_folder(folder, labels=True)
        assert plain.classes is None and plain.load()["train"].labels is None
        assert labelled.classes == 2
        splits = labelled.load()
        assert sum(len(s.images) for s in splits.values()) == 12 and splits["train"].images.shape[1:] == (3, 16, 16)
        assert all(set(s.labels.tolist()) == {0, 1} for s in splits.values())

    def test_every_unusable_file_is_named_at_once(self, folder):
        good = (folder / "cat" / "0.png").read_bytes()
        (folder / "cat" / "cut.png").write_bytes(good[: len(good) // 2])
        (folder / "cat" / "empty.jpg").write_bytes(b"")
        (folder / "dog" / "text.png").write_text("not an image")
        Image.new("RGB", (64, 48)).save(folder / "dog" / "large.png")
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        (folder / "dog" / "flipped.png").write_bytes(bytes(flipped))
        (folder.parent / "outside.png").write_bytes(good)
        (folder / "dog" / "link.png").symlink_to(folder.parent / "outside.png")
        (folder / "dog" / "dangling.png").symlink_to(folder / "nowhere.png")
        (folder / "dog" / "moving.gif").write_bytes(b"GIF89a")
        with pytest.raises(diffbench.DataError) as error:
            image_folder(folder).fingerprint()
        said = str(error.value)
        assert "7 of 19 files" in said and "1 .gif left alone" in said and "damaged: skip" in said
        for name in ("cut.png", "empty.jpg", "text.png", "flipped.png", "dangling.png", "large.png: 64x48 pixels, expected 16x16; 'resize: crop'",
                     "link.png: a link that leads out of the folder"):
            assert name in said, name
        assert sum(len(s.images) for s in image_folder(folder, damaged="skip").load().values()) == 12

    def test_modes_become_what_they_show(self, tmp_path):
        def one(picture, channels=1):
            path = tmp_path / "x.png"
            picture.save(path)
            return image_folder(tmp_path, channels=channels)._image(path)
        assert one(Image.fromarray(numpy.full((16, 16), 32768, numpy.uint16))).unique().tolist() == [128], "16-bit grey is scaled, not saturated"
        assert one(Image.new("RGBA", (16, 16), (255, 0, 0, 0)), 3).unique().tolist() == [0], "transparency lies on black"
        half = one(Image.new("RGBA", (16, 16), (255, 0, 0, 128)), 3)
        assert half[0].unique().tolist() == [128] and not half[1:].any()
        assert one(Image.new("1", (16, 16), 1)).unique().tolist() == [255]
        assert one(Image.new("P", (16, 16)), 3).shape == (3, 16, 16)
        Image.new("CMYK", (16, 16), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
        assert image_folder(tmp_path)._image(tmp_path / "c.jpg")[:, 0, 0].tolist()[0] > 200

    def test_exif_rotation_is_applied(self, tmp_path):
        pixels = numpy.zeros((16, 16), numpy.uint8)
        pixels[0] = 255
        exif = Image.Exif()
        exif[0x0112] = 6                                      # turn by 90 degrees clockwise
        Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
        turned = image_folder(tmp_path, channels=1)._image(tmp_path / "turned.png")[0]
        assert (turned[:, -1] == 255).all() and not turned[:, :-1].any()

    def test_crop_makes_sizes_alike(self, folder):
        Image.new("RGB", (40, 20), (9, 9, 9)).save(folder / "cat" / "wide.png")
        assert sum(len(s.images) for s in image_folder(folder, resize="crop").load().values()) == 13

    def test_the_fingerprint_follows_content_and_names_not_the_place(self, folder, tmp_path):
        before = image_folder(folder).fingerprint()
        moved = tmp_path / "elsewhere"
        shutil.copytree(folder, moved)
        assert image_folder(moved).fingerprint() == before
        pixel = Image.open(moved / "cat" / "0.png")
        pixel.putpixel((0, 0), (1, 2, 3))
        pixel.save(moved / "cat" / "0.png")
        assert image_folder(moved).fingerprint() != before

    def test_too_few_images_no_folder_and_no_classes(self, tmp_path):
        with pytest.raises(diffbench.DataError, match="is not a folder"):
            image_folder(tmp_path / "nowhere").fingerprint()
        with pytest.raises(diffbench.DataError, match="has 0 usable images"):
            image_folder(tmp_path).fingerprint()
        noise_images(tmp_path / "only", 6)
        with pytest.raises(diffbench.DataError, match="has usable images in 1 of them; make one per class"):
            assert image_folder(tmp_path, labels=True).classes
        with pytest.raises(diffbench.OptionError, match="must leave images to train on"):
            image_folder(tmp_path, reference_share=0.5, held_out_share=0.5)

    def test_only_folders_with_usable_images_are_classes(self, folder):
        (folder / "empty").mkdir()
        (folder / "notes").mkdir()
        (folder / "notes" / "readme.txt").write_text("no image")
        assert image_folder(folder, labels=True).classes == 2
        (folder / "broken").mkdir()
        (folder / "broken" / "x.png").write_bytes(b"nothing")
        skipping = image_folder(folder, labels=True, damaged="skip")
        assert skipping.classes == 2 and set(skipping.load()["train"].labels.tolist()) == {0, 1}

    def test_images_outside_of_class_folders_are_not_dropped_in_silence(self, folder):
        Image.new("RGB", (16, 16), (1, 2, 3)).save(folder / "stray.png")
        with pytest.raises(diffbench.DataError, match="1 of 13 files .*\n.*stray.png: an image that lies in no class folder"):
            image_folder(folder, labels=True).load()
        assert sum(len(s.images) for s in image_folder(folder).load().values()) == 13

    def test_a_class_that_would_be_missing_from_a_split_is_named(self, folder):
        noise_images(folder / "owl", 2)
        with pytest.raises(diffbench.DataError, match=r"these of .* have too few images: owl \(2\); add images or remove the classes"):
            image_folder(folder, labels=True).load()

    def test_the_same_pixels_twice_cannot_fall_into_two_splits(self, folder):
        Image.open(folder / "cat" / "3.png").save(folder / "dog" / "copy.bmp")
        with pytest.raises(diffbench.DataError, match=r"dog/copy.bmp: the very pixels of cat/3.png"):
            image_folder(folder).load()

    @pytest.mark.parametrize(("values", "mode", "found"), [
        (numpy.full((16, 16), 200, numpy.int32), "I", [1]), (numpy.full((16, 16), 65535, numpy.int32), "I", [255]),
        (numpy.full((16, 16), 0.5, numpy.float32), "F", [128]),
        (numpy.full((16, 16), 70000, numpy.int32), "I", "values from 70000 to 70000, expected 0 to 65535"),
        (numpy.full((16, 16), -1, numpy.int32), "I", "values from -1 to -1, expected 0 to 65535"),
        (numpy.full((16, 16), 2.0, numpy.float32), "F", "values from 2 to 2, expected 0 to 1"),
        (numpy.full((16, 16), numpy.nan, numpy.float32), "F", "values from nan to nan, expected 0 to 1"),
    ])
    def test_32_bit_images_have_one_rule(self, tmp_path, values, mode, found):
        path = tmp_path / "x.tif"
        Image.fromarray(values).save(path)
        assert Image.open(path).mode == mode
        dataset = image_folder(tmp_path, channels=1)
        if isinstance(found, str):
            with pytest.raises(ValueError, match=found):
                dataset._image(path)
        else:
            assert dataset._image(path).unique().tolist() == found

    def test_a_decompression_bomb_is_refused(self, folder, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        Image.new("L", (40, 30)).save(folder / "dog" / "bomb.png")
        with pytest.raises(diffbench.DataError, match=r"dog/bomb.png: .*1200 pixels.* exceeds limit of 1000 pixels"):
            image_folder(folder, resize="crop").load()

    def test_whatever_pillow_raises_is_said_with_the_file(self, folder, monkeypatch):
        def broken(*arguments):
            raise KeyError("a decoder's own mistake")
        monkeypatch.setattr("PIL.ImageOps.exif_transpose", broken)
        with pytest.raises(diffbench.DataError, match='cat/0.png: KeyError: "a decoder\'s own mistake"'):
            image_folder(folder).load()

    def test_a_file_that_was_mended_is_looked_at_again(self, folder):
        victim = folder / "cat" / "0.png"
        good = victim.read_bytes()
        victim.write_bytes(b"broken")
        with pytest.raises(diffbench.DataError, match="cat/0.png: not an image"):
            image_folder(folder).load()
        victim.write_bytes(good)
        assert sum(len(s.images) for s in image_folder(folder).load().values()) == 12

    def test_of_several_frames_the_first_is_taken(self, tmp_path):
        frames = [Image.new("L", (16, 16), value) for value in (50, 200)]
        frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
        assert image_folder(tmp_path, channels=1)._image(tmp_path / "x.tif").unique().tolist() == [50]
