"""A folder of images: every file decoded by one rule or named with a reason, classes that exist, splits that share no image."""

import shutil

import numpy
import pytest
from PIL import Image

import diffbench
from tests.conftest import REGISTRY


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
