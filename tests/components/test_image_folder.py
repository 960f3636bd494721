"""A folder of images: every file decoded by one rule or named with a reason, classes that exist, splits that share no image."""

import os
import shutil
import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image

import diffbench
from tests.conftest import REGISTRY


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
        (folder / "dog" / "notes.txt").write_text("left alone")
        with pytest.raises(diffbench.DataError) as error:
            image_folder(folder).fingerprint()
        said = str(error.value)
        assert "7 of 19 files" in said and "1 .txt left alone" in said and "damaged: skip" in said
        for name in ("cut.png", "empty.jpg", "text.png", "flipped.png", "dangling.png", "large.png: 64x48 pixels, expected 16x16; 'resize: crop'",
                     "link.png: a link that leads out of the folder"):
            assert name in said, name
        assert sum(len(s.images) for s in image_folder(folder, damaged="skip").load().values()) == 12

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


def said_of(dataset) -> str:
    with pytest.raises(diffbench.DataError) as error:
        dataset.fingerprint()
    with pytest.raises(diffbench.DataError):
        dataset.load()
    return str(error.value)


def noise(seed: int) -> Image.Image:
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=numpy.uint8))


def saved(path, picture, **how) -> bytes:
    picture.save(path, **how)
    return path.read_bytes()


class TestFilesThatCannotBeUsed:
    """A sentence each, never a traceback, and never silence."""

    def test_too_many_pixels_are_refused_before_they_are_decoded(self, folder):
        def png(width, height):
            chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
            return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
        limit = Image.MAX_IMAGE_PIXELS
        (folder / "cat" / "warned.png").write_bytes(png(10_000, limit // 10_000 + 1))         # of which Pillow only warns
        (folder / "cat" / "raised.png").write_bytes(png(100_000, 100_000))
        (folder / "cat" / "absurd.png").write_bytes(png(2**31 - 1, 2**31 - 1))
        said = said_of(image_folder(folder, resize="crop"))
        assert f"warned.png: 10000x{limit // 10_000 + 1} pixels, more than Pillow's limit of {limit}" in said
        assert f"raised.png: more pixels than Pillow's limit of {limit}" in said and "absurd.png" in said

    def test_several_pictures_in_one_file(self, folder):
        several = {"append_images": [noise(2), noise(3)], "save_all": True}
        for ending in ("gif", "webp", "tif", "png"):
            noise(1).save(folder / "cat" / f"moving.{ending}", **several)
        said = said_of(image_folder(folder))
        assert all(f"moving.{ending}: 3 pictures in one file; save one" in said for ending in ("gif", "webp", "tif", "png"))
        noise(1).save(folder / "cat" / "camera.jpg", format="MPO", **several)
        assert image_folder(folder)._image(folder / "cat" / "camera.jpg").shape == (3, 16, 16), "a camera's previews do not count"
        noise(1).save(folder / "cat" / "still.gif")
        assert image_folder(folder)._image(folder / "cat" / "still.gif").shape == (3, 16, 16)

    def test_what_is_no_file_or_no_format_of_ours(self, folder):
        shutil.copytree(folder / "cat", folder / "a_folder.png")                              # a folder like any other
        (folder / "link_to_folder").symlink_to(folder / "cat")
        (folder / "cat" / "round.png").symlink_to(folder / "cat" / "round.png")
        (folder / "cat" / "phone.HEIC").write_bytes(b"x")
        os.mkfifo(folder / "cat" / "pipe.png")
        said = said_of(image_folder(folder))
        assert "4 of 22 files" in said
        for part in ("link_to_folder: a link to a folder, which is not followed", "round.png: a broken link", "pipe.png: not a regular file",
                     "phone.HEIC: .heic is not read; convert it to .png"):
            assert part in said

    def test_images_beside_the_folders_of_the_classes(self, folder):
        shutil.copyfile(folder / "cat" / "0.png", folder / "stray.png")
        assert "1 of 13 files" in (said := said_of(image_folder(folder, labels=True)))
        assert "stray.png: in no subfolder, from which labels: true takes the class" in said
        assert image_folder(folder).load() and image_folder(folder, labels=True, damaged="skip").load()

    def test_files_and_folders_that_may_not_be_read(self, folder):
        (folder / "cat" / "0.png").chmod(0)
        (folder / "secret").mkdir(mode=0)
        if os.access(folder / "secret", os.R_OK):
            pytest.skip("this user may read everything")
        said = said_of(image_folder(folder))
        assert "cat/0.png: Permission denied" in said and "secret: Permission denied" in said

    def test_names_that_are_no_text(self, folder):
        (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(saved(folder / "cat" / "good.png", noise(1)))
        assert len(image_folder(folder).fingerprint()) == 64
        (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
        assert r"caf\xe9.png: not an image, or empty" in said_of(image_folder(folder))


class TestClassesAndSplits:
    @pytest.mark.parametrize("damaged", ["error", "skip"])
    def test_a_class_is_a_folder_with_a_usable_image(self, folder, damaged):
        (folder / "empty" / "deeper").mkdir(parents=True)
        (folder / "aaa").mkdir()
        (folder / "aaa" / "notes.txt").write_text("no image")
        (folder / "linked").symlink_to(folder / "cat") if damaged == "skip" else None
        if damaged == "skip":
            (folder / "broken").mkdir()
            (folder / "broken" / "x.png").write_bytes(b"")
        dataset = image_folder(folder, labels=True, damaged=damaged)
        assert dataset.classes == 2
        assert all(set(split.labels.tolist()) == {0, 1} for split in dataset.load().values())
        shutil.copytree(folder / "cat", folder / "zebra")
        for i in range(6):
            noise(100 + i).save(folder / "zebra" / f"{i}.png")
        assert dataset.classes == 3, "a folder that changes is looked at again"

    def test_classes_too_small_for_every_split_are_named(self, folder):
        for name, seeds in (("few", (20, 21)), ("one", (30,))):
            (folder / name).mkdir()
            for i in seeds:
                noise(i).save(folder / name / f"{i}.png")
        said = said_of(image_folder(folder, labels=True))
        assert "each split needs images of every class" in said and "few (2), one (1); 10 always suffice" in said
        assert "cat" not in said.partition(str(folder))[2]

    def test_a_split_without_images_is_refused(self, folder):
        assert "each split needs images, and too few distinct ones" in said_of(image_folder(folder, held_out_share=0.01))

    def test_ten_distinct_images_always_suffice_for_the_default_shares(self):
        generator = torch.Generator().manual_seed(0)
        shares = {"train": 0.6, "reference": 0.2, "held_out": 0.2}
        for _ in range(50):
            counts = torch.randint(10, 30, (6,), generator=generator)
            labels = torch.arange(6).repeat_interleave(counts)
            assert all(torch.bincount(labels[index], minlength=6).min() > 0 for index in diffbench.split_indices(labels, shares).values())

    def test_copies_of_an_image_stay_in_one_split(self, folder):
        for i in range(4):
            shutil.copyfile(folder / "cat" / "0.png", folder / "cat" / f"copy{i}.png")
            Image.open(folder / "dog" / "1.png").save(folder / "cat" / f"same_pixels{i}.bmp")        # other bytes, another class
        splits = image_folder(folder, labels=True).load()
        seen = [{bytes(image.numpy()) for image in split.images} for split in splits.values()]
        assert sum(map(len, seen)) == len(set.union(*seen)) == 12
        assert sum(len(split.images) for split in splits.values()) == 20, "none is dropped"

    def test_copies_alone_are_too_few(self, tmp_path):
        for i in range(30):
            noise(0).save(tmp_path / f"{i}.png")
        assert "has 30 usable images, 1 of them distinct, and three splits need at least 5" in said_of(image_folder(tmp_path))
