"""`diffbench sample`: a picture of a row's model, and what is said of wrong requests."""

import pytest
from click.testing import CliRunner
from PIL import Image

import diffbench
from diffbench.cli import cli
from diffbench.store.artefacts import Store

MATRIX = {
    "diffbench": 1, "name": "drawn", "dataset": "digits", "metrics": ["fid"], "extractor": "pixels", "throughput": "off",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": [{"cfg": {"inner": "film"}}],
             "scheduler": [{"ddim": {"steps": 2}}]},
    "train": {"steps": 2, "batch_size": 8}, "sample": {"count": 12},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("drawn")
    diffbench.run(MATRIX, out=place / "run", device="cpu", threads=1, store=Store(place / "home"))
    return place


def sample(run, *arguments, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(run / "home"))
    return CliRunner().invoke(cli, ["sample", str(run / "run"), *arguments])


def test_a_picture_with_a_column_for_each_class(run, tmp_path, monkeypatch):
    done = sample(run, "scheduler=ddim", "--count", "20", "--out", str(tmp_path / "grid.png"), monkeypatch=monkeypatch)
    assert done.exit_code == 0, done.output
    assert "grid.png: 20 images by <Model dit" in done.output and "4 network evaluations each" in done.output
    with Image.open(tmp_path / "grid.png") as picture:
        assert picture.size[0] > 4 * picture.size[1], "ten columns of two images"


def test_another_sampler_from_the_command_line(run, tmp_path, monkeypatch):
    done = sample(run, "scheduler=ddim", "--count", "3", "--scheduler", "ddpm: {steps: 5}", "--scale", "1", "--labels", "0,1,2", "--seed", "4",
                  "--out", str(tmp_path / "grid.png"), monkeypatch=monkeypatch)
    assert done.exit_code == 0 and "ddim" in done.output and "5 network evaluations each" in done.output, done.output


@pytest.mark.parametrize(("arguments", "said"), [
    (("nothing",), "no cell of"),
    (("scheduler=ddim", "--labels", "one"), "'one' is no class number or list of them; write 3, or 0,1,2"),
    (("scheduler=ddim", "--labels", "12"), "labels must lie in 0 to 9"),
    (("scheduler=ddim", "--scheduler", "ddim: {"), "--scheduler"),
    (("scheduler=ddim", "--device", "cuda:99"), "the device 'cuda:99' is not there"),
])
def test_a_wrong_request_is_one_sentence(run, tmp_path, monkeypatch, arguments, said):
    done = sample(run, *arguments, "--out", str(tmp_path / "grid.png"), monkeypatch=monkeypatch)
    assert done.exit_code and said in (done.output + str(done.exception)) and not (tmp_path / "grid.png").exists()
