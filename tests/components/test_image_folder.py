"""A folder of images: every file decoded by one rule or named with a reason, classes that exist, splits that share no image."""

import os
import re
import shutil
import struct
import zlib

import numpy
import pytest
from PIL import Image

import diffbench
from tests.components.conftest import noise_images
from tests.conftest import REGISTRY


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
        assert "7 of 19 files" in said and "left alone: 1 .txt" in said and "damaged: skip" in said
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
        with pytest.raises(diffbench.DataError, match=r"these of .* have too few images: owl \(2\); 10 always suffice: add images or remove the classes"):
            image_folder(folder, labels=True).fingerprint()

    def test_a_split_without_images_is_refused(self, folder):
        with pytest.raises(diffbench.DataError, match=r"too few images: all images \(12\); 200 always suffice"):
            image_folder(folder, held_out_share=0.01).fingerprint()

    def test_the_same_pixels_twice_cannot_fall_into_two_splits(self, folder):
        Image.open(folder / "cat" / "3.png").save(folder / "dog" / "copy.bmp")
        with pytest.raises(diffbench.DataError, match=r"dog/copy.bmp: the very pixels of cat/3.png"):
            image_folder(folder).load()

    def test_a_decompression_bomb_is_refused(self, folder, monkeypatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        Image.new("L", (40, 30)).save(folder / "dog" / "bomb.png")
        with pytest.raises(diffbench.DataError, match="dog/bomb.png: 40x30 pixels, more than Pillow's limit of 1000"):
            image_folder(folder, resize="crop").load()

    def test_whatever_pillow_raises_is_said_with_the_file(self, folder, monkeypatch):
        def broken(*arguments):
            raise KeyError("a decoder's own mistake")
        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", broken)
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


def said_of(dataset) -> str:
    """What fingerprint and load both say."""
    with pytest.raises(diffbench.DataError) as error:
        dataset.fingerprint()
    with pytest.raises(diffbench.DataError, match=re.escape(str(error.value))):
        dataset.load()
    return str(error.value)


class TestWhatIsNoImageOfOurs:
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

    def test_what_is_no_file_or_no_format_of_ours(self, folder):
        (folder / "cat").rename(folder / "a_folder.png")                                      # a folder like any other
        (folder / "cat").symlink_to(folder / "a_folder.png")
        (folder / "dog" / "round.png").symlink_to(folder / "dog" / "round.png")
        (folder / "dog" / "phone.HEIC").write_bytes(b"x")
        os.mkfifo(folder / "dog" / "pipe.png")
        said = said_of(image_folder(folder))
        assert "4 of 16 files" in said
        for part in ("cat: a link to a folder, which is not followed", "round.png: a broken link", "pipe.png: not a regular file",
                     "phone.HEIC: .heic is not read; convert it to .png"):
            assert part in said

    def test_files_and_folders_that_may_not_be_read(self, folder):
        (folder / "cat" / "0.png").chmod(0)
        (folder / "secret").mkdir(mode=0)
        if os.access(folder / "secret", os.R_OK):
            pytest.skip("this user may read everything")
        said = said_of(image_folder(folder))
        assert "cat/0.png: Permission denied" in said and "secret: Permission denied" in said

    def test_names_that_are_no_text(self, folder):
        whole = (folder / "cat" / "0.png").read_bytes()
        (folder / "cat" / "0.png").unlink()
        (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(whole)
        assert len(image_folder(folder).fingerprint()) == 64
        (folder / "cat" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
        assert r"caf\xe9.png: not an image, or empty" in said_of(image_folder(folder))

    def test_names_that_steer_a_terminal_or_break_a_line(self, folder):
        (folder / "cat" / "a\nb\x1b[31m.png").write_bytes(b"")
        assert r"cat/a\nb\x1b[31m.png: not an image, or empty" in said_of(image_folder(folder))

    def test_classes_whose_names_are_no_text(self, folder):
        noise_images(folder / os.fsdecode(b"\xe9"), 2)
        assert r"too few images: \xe9 (2)" in said_of(image_folder(folder, labels=True))

    def test_paths_that_lead_nowhere(self, tmp_path):
        (tmp_path / "round").symlink_to(tmp_path / "round")
        for path in (tmp_path / "round", tmp_path / "a\0b", "~nobody-of-this-name/images", tmp_path / "file"):
            (tmp_path / "file").touch()
            assert "is not a folder" in said_of(image_folder(path))

    def test_a_folder_of_nothing_but_damaged_files_names_them_even_where_they_are_skipped(self, tmp_path):
        for i in range(6):
            (tmp_path / f"{i}.png").write_bytes(b"")
        said = said_of(image_folder(tmp_path, damaged="skip"))
        assert "has 0 usable images" in said and "6 of 6 files are unusable:\n  0.png: not an image, or empty" in said


class TestRemark:
    """What a plan and a row say of a folder."""

    def test_nothing_of_images_as_they_should_be(self, folder):
        assert image_folder(folder).remark() == ""

    def test_each_kind_of_conversion_is_counted(self, folder):
        pixels = numpy.random.default_rng(3).integers(0, 256, (7, 16, 16, 4), dtype=numpy.uint8)
        Image.fromarray(pixels[0]).save(folder / "cat" / "rgba.png")
        Image.fromarray(pixels[1, ..., 0]).save(folder / "cat" / "grey.png")
        Image.fromarray(pixels[2, ..., 0]).save(folder / "dog" / "grey.png")
        Image.fromarray(pixels[3, ..., :2], "LA").save(folder / "dog" / "la.png")
        Image.fromarray(pixels[4, ..., 0].astype(numpy.uint16) * 257).save(folder / "dog" / "deep.png")
        Image.fromarray(pixels[5, ..., :3]).quantize(8).save(folder / "dog" / "palette.png")
        Image.fromarray(pixels[6, ..., 0] > 127).save(folder / "dog" / "bits.png")
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.fromarray(pixels[6, ..., :3]).save(folder / "dog" / "turned.png", exif=exif)
        Image.fromarray(pixels[5, ..., :3]).save(folder / "dog" / "moving.gif", save_all=True, append_images=[Image.new("RGB", (16, 16))])
        said = image_folder(folder).remark()
        assert said.startswith("converted: 2 L to RGB, 2 P to RGB, 2 transparency laid on black, 1 1 to RGB, 1 I;16 to RGB, ") and said.endswith(" and 2 kinds more")
        changes = image_folder(folder, channels=1).remark()
        assert changes.startswith("converted: 13 RGB to L, ")
        kinds = {path.name: image_folder(folder)._picture(path).changes for path in folder.rglob("*.*")}
        assert kinds["deep.png"] == ("I;16 to RGB", "scaled to 8 bits") and kinds["la.png"] == ("LA to RGB", "transparency laid on black")
        assert kinds["turned.png"] == ("turned by EXIF",) and kinds["palette.png"] == ("P to RGB",) and kinds["0.png"] == ()
        assert kinds["moving.gif"][-1] == "first of several frames"

    def test_sizes_are_listed_where_they_are_refused_and_counted_where_they_are_cropped(self, folder):
        for i, size in enumerate([(40, 20), (40, 20), (5, 5)]):
            Image.new("RGB", size, (i, 0, 0)).save(folder / "cat" / f"other{i}.png")
        assert "\n  sizes: 12 16x16, 2 40x20, 1 5x5\n" in said_of(image_folder(folder))
        assert image_folder(folder, resize="crop").remark() == "converted: 2 cropped and reduced, 1 cropped and enlarged"

    def test_what_is_left_out_and_left_alone(self, folder):
        (folder / "cat" / "x.png").write_bytes(b"")
        for i in range(12):
            (folder / f"notes.{i:02}").touch()
        (folder / "README").touch()
        said = image_folder(folder, damaged="skip").remark()
        assert said.startswith("1 of 13 files unusable and left out, left alone: 1 .00, 1 .01, ") and said.endswith(" and 5 kinds more")
