"""Datasets: disjoint splits of real images, and every bad file named before anything is trained."""

import hashlib
import shutil
import subprocess
import sys

import numpy
import pytest
import torch
from PIL import Image

import diffbench
from diffbench import split_indices
from tests.conftest import REGISTRY, all_of


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


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, in two classes."""
    root = tmp_path / "images"
    rng = numpy.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)).save(root / name / f"{i}.png")
    return root


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
        with pytest.raises(diffbench.DataError, match="has 0; make one per class"):
            assert image_folder(tmp_path, labels=True).classes
        with pytest.raises(diffbench.OptionError, match="must leave images to train on"):
            image_folder(tmp_path, reference_share=0.5, held_out_share=0.5)
