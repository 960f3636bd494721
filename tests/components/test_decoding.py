"""One image file as 8-bit pixels: one rule for each kind of file, and a reason wherever there are no pixels to be had."""

import struct
import zlib

import numpy
import pytest
import torch
from PIL import Image, ImageFile, PngImagePlugin

from tests.components.test_image_folder import image_folder

ENDINGS = ("png", "jpg", "tif", "webp", "gif", "bmp", "ppm")


def pixels(dataset, path) -> torch.Tensor:
    return dataset._fitted(dataset._picture(path).picture)


def saved(path) -> bytes:
    picture = Image.fromarray(numpy.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=numpy.uint8))
    picture.save(path)
    return path.read_bytes()


class TestDamagedFiles:
    """A sentence, never a traceback."""

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_files_cut_at_every_length(self, tmp_path, ending):
        path = tmp_path / f"whole.{ending}"
        whole = saved(path)
        expected = pixels(image_folder(tmp_path), path)
        path.unlink()
        for length in sorted({*range(0, len(whole), max(1, len(whole) // 40))}):
            cut = tmp_path / f"cut.{ending}"
            cut.write_bytes(whole[:length])
            try:                                              # a cut inside trailing bytes loses nothing
                assert torch.equal(pixels(image_folder(tmp_path), cut), expected), length
            except ValueError as error:
                assert str(error), length

    @pytest.mark.parametrize("ending", ["png", "jpg"])
    def test_a_file_that_ends_too_early_is_refused_whatever_pillow_was_told(self, tmp_path, monkeypatch, ending):
        path = tmp_path / f"x.{ending}"
        path.write_bytes(saved(path)[: -200 if ending == "png" else -60])
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        assert Image.open(path).convert("RGB").size == (16, 16), "Pillow makes it look whole"
        with pytest.raises(ValueError, match="truncated"):
            pixels(image_folder(tmp_path), path)
        assert ImageFile.LOAD_TRUNCATED_IMAGES, "it is left as others set it"

    @pytest.mark.parametrize("ending", ENDINGS)
    def test_random_bytes_anywhere(self, tmp_path, ending):
        path = tmp_path / f"x.{ending}"
        whole = saved(path)
        rng = numpy.random.default_rng(0)
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(4):
                content[int(rng.integers(min(len(content), 300)))] = int(rng.integers(256))
            path.write_bytes(bytes(content))
            try:
                assert pixels(image_folder(tmp_path), path).shape == (3, 16, 16)
            except ValueError as error:
                assert str(error)


class TestPixels:
    def one(self, tmp_path, picture, ending="png", channels=1, **how):
        path = tmp_path / f"x.{ending}"
        picture.save(path, **how)
        return pixels(image_folder(tmp_path, channels=channels), path)

    @pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
    def test_16_bits_are_scaled_whatever_their_values(self, tmp_path, ending):
        values = numpy.full((16, 16), 200, numpy.uint16)      # a dark image: not to be taken for 8 bits
        assert self.one(tmp_path, Image.fromarray(values), ending).unique().tolist() == [1]
        ramp = numpy.linspace(0, 65535, 256).round().astype(numpy.uint16).reshape(16, 16)
        assert self.one(tmp_path, Image.fromarray(ramp), ending).flatten().tolist() == list(range(256))
        if ending == "tif":
            assert self.one(tmp_path, Image.fromarray(ramp.astype(">u2")), ending).flatten().tolist() == list(range(256))

    def test_of_colours_of_16_bits_the_upper_8_are_taken_and_that_is_said(self, tmp_path):
        rows = b"".join(b"\0" + struct.pack(">48H", *[257 * y + 254] * 48) for y in range(16))
        header = struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks)
        (tmp_path / "x.png").write_bytes(data)
        assert image_folder(tmp_path)._picture(tmp_path / "x.png").changes == ("16 bits cut to 8",)
        assert pixels(image_folder(tmp_path), tmp_path / "x.png")[0, :, 0].tolist() == [(257 * y + 254) >> 8 for y in range(16)]

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
                pixels(dataset, path)
        else:
            assert pixels(dataset, path).unique().tolist() == found

    def test_of_several_frames_the_first_is_taken(self, tmp_path):
        frames = [Image.new("L", (16, 16), value) for value in (50, 200)]
        frames[0].save(tmp_path / "x.tif", save_all=True, append_images=frames[1:])
        assert pixels(image_folder(tmp_path, channels=1), tmp_path / "x.tif").unique().tolist() == [50]

    def test_transparency_lies_on_black(self, tmp_path):
        palette = Image.new("P", (16, 16), 1)
        palette.putpalette([0, 0, 0, 200, 100, 50])
        assert self.one(tmp_path, palette, channels=3)[:, 0, 0].tolist() == [200, 100, 50]
        assert not self.one(tmp_path, palette, channels=3, transparency=1).any()
        half = self.one(tmp_path, Image.new("RGBA", (16, 16), (255, 0, 0, 128)), channels=3)
        assert half[0].unique().tolist() == [128] and not half[1:].any()
        assert not self.one(tmp_path, Image.new("LA", (16, 16), (200, 0))).any()
        assert self.one(tmp_path, Image.new("LA", (16, 16), (200, 255))).unique().tolist() == [200]
        assert not self.one(tmp_path, Image.new("L", (16, 16), 9), transparency=9).any()
        assert not self.one(tmp_path, Image.fromarray(numpy.full((16, 16), 40_000, numpy.uint16)), transparency=40_000).any()

    def test_other_kinds_of_grey_and_colour(self, tmp_path):
        checkers = Image.fromarray((numpy.indices((16, 16)).sum(0) % 2).astype(bool))
        for ending in ("png", "tif", "bmp"):
            assert self.one(tmp_path, checkers, ending).unique().tolist() == [0, 255]
        assert self.one(tmp_path, Image.new("CMYK", (16, 16), (0, 0, 0, 255)), "tif").unique().tolist() == [0]
        assert self.one(tmp_path, Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "jpg", channels=3).min() >= 254
        assert self.one(tmp_path, Image.new("YCbCr", (16, 16), (255, 128, 128)), "jpg", channels=3).min() >= 254

    @pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tif"])
    def test_rotation_and_broken_exif(self, tmp_path, ending):
        pixels = numpy.zeros((16, 16), numpy.uint8)
        pixels[:8] = 255
        exif = Image.Exif()
        exif[0x0112] = 6
        turned = self.one(tmp_path, Image.fromarray(pixels), ending, exif=exif)[0]
        assert (turned[:, 9:] > 200).all() and (turned[:, :7] < 50).all()
        if ending != "tif":                                   # there the tags are the file itself
            upright = self.one(tmp_path, Image.fromarray(pixels), ending, exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12")[0]
            assert (upright[:7] > 200).all() and (upright[9:] < 50).all()


class TestLargeChunks:
    """A text or a colour profile that Pillow refuses to unpack is left out, still packed: no pixel depends on it."""

    @staticmethod
    def written(path, *, after=False, profile=None, damage=False):
        """A PNG with a text of 2 MB that packs to 2 kB, before its pixels or after them, or with a profile."""
        exif = Image.Exif()
        exif[0x0112] = 3                                      # turned by 180 degrees
        picture = Image.fromarray(numpy.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=numpy.uint8))
        picture.save(path, icc_profile=profile, exif=exif)
        if profile is None:
            data = b"zTXt" + b"parameters\0\0" + zlib.compress(b"a" * 2_000_000)
            chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
            content = path.read_bytes()
            place = content.index(b"IEND" if after else b"IDAT") - 4
            path.write_bytes(content[:place] + chunk + content[place:])
        if damage:
            content = bytearray(path.read_bytes())
            content[content.index(b"IDAT") + 40] ^= 1
            path.write_bytes(bytes(content))
        return torch.from_numpy(numpy.array(picture.rotate(180))).permute(2, 0, 1)

    @pytest.mark.parametrize(
        "options", [{}, {"after": True}, {"profile": bytes(2_000_000)}], ids=["before", "after", "profile"]
    )
    def test_the_pixels_are_read_and_turned_without_it(self, tmp_path, options):
        path = tmp_path / "x.png"
        expected = self.written(path, **options)
        with pytest.raises(ValueError, match="Decompressed data too large"), Image.open(path) as opened:
            opened.load()
        assert torch.equal(pixels(image_folder(tmp_path), path), expected)
        assert image_folder(tmp_path)._picture(path).changes == ("turned by EXIF", "a large text or profile left out")
        assert PngImagePlugin.MAX_TEXT_CHUNK == 2**20, "no limit of Pillow's is raised, not even for a while"

    def test_damaged_pixels_beside_it_are_still_refused(self, tmp_path):
        self.written(tmp_path / "x.png", damage=True)
        with pytest.raises(ValueError, match="broken|checksum|decod|truncated"):
            pixels(image_folder(tmp_path), tmp_path / "x.png")
