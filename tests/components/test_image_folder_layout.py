"""Folders of images as other programs leave them, and images of other sizes: what is left alone, what is refused."""

import pytest
from PIL import Image

from tests.components.conftest import noise_images
from tests.components.test_image_folder import image_folder, said_of


class TestOtherPrograms:
    """Files and folders that a notebook server, a file system or an archiver leaves are no images and no classes, at
    any depth.
    """

    @pytest.mark.parametrize(
        "name", [".ipynb_checkpoints", "@eaDir", "__MACOSX", ".git", ".thumbnails", "lost+found", "$RECYCLE.BIN"]
    )
    def test_their_folders_are_left_alone_and_counted(self, folder, name):
        before = image_folder(folder, labels=True).fingerprint()
        noise_images(folder / name, 3)
        noise_images(folder / "cat" / name / "deeper", 2)
        dataset = image_folder(folder, labels=True)
        assert dataset.class_names == ("cat", "dog") and dataset.fingerprint() == before
        assert dataset.remark() == f"left alone: 2 {name}/"

    def test_their_files_are_left_alone_and_counted(self, folder):
        for name in (".DS_Store", "._0.png", ".hidden.png"):
            (folder / "cat" / name).write_bytes(b"no image")
        (folder / "dog" / "Thumbs.db").write_bytes(b"no image")
        assert image_folder(folder).remark() == "left alone: 3 hidden, 1 .db"

    def test_a_folder_below_a_hidden_one_is_read(self, folder, tmp_path):
        (tmp_path / ".cache").mkdir()
        folder.rename(tmp_path / ".cache" / "images")
        assert image_folder(tmp_path / ".cache" / "images", labels=True).class_names == ("cat", "dog")

    def test_a_layout_of_splits_shows_by_the_names_of_its_classes(self, tmp_path):
        for split, seed in (("train", 0), ("val", 1)):
            for name in ("cat", "dog"):
                noise_images(tmp_path / split / name, 6, seed)
        assert image_folder(tmp_path, labels=True).class_names == ("train", "val")


class TestOtherSizes:
    def test_a_folder_of_one_other_size_is_one_sentence_with_the_size_to_write(self, tmp_path):
        for i in range(30):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(tmp_path / f"{i}.png")
        for damaged in ("error", "skip"):
            assert said_of(image_folder(tmp_path, damaged=damaged)) == (
                f"image_folder: all 30 images in {tmp_path} have 32x32 pixels, and 16x16 are expected; write 'size: 32' or 'resize: crop', "
                "which makes them 16x16"
            )

    def test_a_folder_in_which_no_size_fits_names_the_most_frequent(self, tmp_path):
        for i, size in enumerate([(40, 30), (40, 30), (32, 32)]):
            Image.new("RGB", size, (i, 0, 0)).save(tmp_path / f"{i}.png")
        said = said_of(image_folder(tmp_path))
        assert (
            "no image has 16x16 pixels: 2 of 3 in" in said
            and "(sizes: 2 40x30, 1 32x32)" in said
            and "write 'resize: crop'" in said
        )

    def test_files_of_one_other_size_among_others_share_a_line(self, folder):
        for i in range(25):
            Image.new("RGB", (32, 32), (i, 0, 0)).save(folder / "cat" / f"other{i:02}.png")
        said = said_of(image_folder(folder))
        assert (
            "25 of 37 files" in said
            and "cat/other00.png and 24 more: 32x32 pixels, expected 16x16" in said
            and "other01" not in said
        )
        assert sum(len(s.images) for s in image_folder(folder, damaged="skip").load().values()) == 12
