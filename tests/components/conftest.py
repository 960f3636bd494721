"""What tests of folders of images share: a folder of two classes."""

import os

import numpy
import pytest
from PIL import Image


def noise_images(folder, count, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    rng = numpy.random.default_rng([seed, *os.fsencode(folder.name)])
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=numpy.uint8)).save(folder / f"{i}.png")


@pytest.fixture
def folder(tmp_path):
    """Twelve good images, in two classes."""
    for name in ("cat", "dog"):
        noise_images(tmp_path / "images" / name, 6)
    return tmp_path / "images"
