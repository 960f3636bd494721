"""Images that are none, real and generated: each is a sentence or a documented conversion, through real runs; never a number."""

import json
from pathlib import Path

import filelock
import numpy
import pytest
import torch
from PIL import Image

import diffbench
from tests.cli.test_cli import diffbench as command
from tests.conftest import REGISTRY, all_of

PLUGIN = str(Path(__file__).parents[1] / "helpers" / "misshapen.py")
METRICS = [given.values[0].component_name() for given in all_of("metric")
           if given.values[0].looks_at == "samples" and not (given.values[0].needs_logits or given.values[0].needs_judge)]
SKIPPED = "2 of 42 files unusable and left out, left alone: 1 .txt, converted: 3 CMYK to RGB, 1 RGBA to RGB, 1 transparency laid on black"


def pictures(folder):
    """40 usable images of several kinds, two that are not, and a text."""
    folder.mkdir(parents=True)
    rng = numpy.random.default_rng(0)
    for i in range(40):
        mode = "CMYK" if i < 3 else "RGBA" if i == 3 else "RGB"
        picture = Image.fromarray(rng.integers(0, 256, (8, 8, len(Image.new(mode, (1, 1)).getbands())), dtype=numpy.uint8), mode)
        picture.save(folder / f"{i}.{'tif' if mode == 'CMYK' else 'png'}")
    (folder / "cut.png").write_bytes((folder / "9.png").read_bytes()[:60])
    (folder / "text.png").write_text("no image")
    (folder / "notes.txt").write_text("about the images")
    return folder


def matrix(folder, damaged="skip", **axes):
    dataset = {"image_folder": {"path": str(folder), "size": 8, "damaged": damaged}}
    return {"diffbench": 1, "name": "bad", "dataset": dataset, "extractor": "pixels", "metrics": METRICS,
            "axes": {"backbone": "upright", "conditioning": "none", "scheduler": [{"ddim": {"steps": 2}}]} | axes,
            "train": {"steps": 2, "batch_size": 4}, "sample": {"count": 12, "batch_size": 5, "clip": False}, "throughput": {"repeats": 3, "batch_size": 1}}


SAID = {
    "one_channel": ("failed", "one_channel: its network must give floats [4, 3, 8, 8], got float32 [4, 1, 8, 8]"),
    "cropped": ("failed", "cropped: its network must give floats [4, 3, 8, 8], got float32 [4, 3, 7, 8]"),
    "one_image": ("failed", "one_image: its network must give floats [4, 3, 8, 8], got float32 [1, 3, 8, 8]"),
    "tuple": ("failed", "tuple: its network must give floats [4, 3, 8, 8], got tuple"),
    "complex": ("failed", "complex: its network must give floats [4, 3, 8, 8], got complex64 [4, 3, 8, 8]"),
    "not_finite": ("diverged", "the training loss became nan between steps 0 and 2; the last finite mean was none"),
    "infinite": ("diverged", "3 of 12 samples are not finite; the first is sample 0"),
    "grey": ("failed", "grey: a step must give x_s as float32 [5, 3, 8, 8], got float32 [5, 1, 8, 8]"),
    "whole": ("failed", "whole: a step must give x_s as float32 [5, 3, 8, 8], got int64 [5, 3, 8, 8]"),
    "nothing": ("failed", "nothing: a step must give x_s as float32 [5, 3, 8, 8], got NoneType"),
    "enormous": ("ok", "100% of all pixels lay outside of the range of images and were clamped"),
    "flat": ("ok", "12 of 12 samples are one flat colour"),
    "collapsed": ("ok", "11 of 12 samples repeat another one to the last pixel"),
    "rounded": ("ok", ""),
}
NETWORKS = list(SAID)[:6]


@pytest.fixture(scope="module")
def rows(shared_folder):
    """Every spoilt network under one scheduler, and every spoilt scheduler under one network."""
    folder, parts = shared_folder / "bad images", []
    with pytest.MonkeyPatch.context() as patch, filelock.FileLock(shared_folder / "bad images.lock"):
        path = folder / "pictures" if folder.exists() else pictures(folder / "pictures")
        patch.setenv("DIFFBENCH_HOME", str(folder / "home"))
        for name, axis, names in (("networks", "backbone", NETWORKS), ("samples", "scheduler", [name for name in SAID if name not in NETWORKS])):
            diffbench.run(matrix(path, **{axis: names}), out=folder / name, device="cpu", plugins=[PLUGIN])
            parts.append(diffbench.load(folder / name).set_index(axis, drop=False))
    import pandas

    return pandas.concat(parts)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_a_network_or_scheduler_that_gives_no_images_is_named_and_measured_by_nothing(rows, name):
    status, said = SAID[name]
    row = rows.loc[name]
    assert row["status"] == status and said in row["reason"]
    columns = [REGISTRY.create("metric", metric).column(REGISTRY.create("extractor", "pixels")) for metric in METRICS]
    for column in columns:
        assert numpy.isfinite(row[column]) if status == "ok" else numpy.isnan(row[column]), column


@pytest.mark.slow
def test_what_is_half_wrong_is_measured_and_remarked_upon(rows):
    assert rows.loc["enormous", "clamped_share"] > 0.99 and rows.loc["rounded", "clamped_share"] == 0
    assert rows.loc["flat", "flat_count"] == 12 and rows.loc["collapsed", "flat_count"] == 0
    assert rows.loc["collapsed", "distinct_count"] == 1 and rows.loc["rounded", "distinct_count"] == 12
    for name, remark in (("clamped", "enormous"), ("flat colour", "flat"), ("repeat", "collapsed")):
        assert name in rows.loc[remark, "reason"] and name not in rows.loc["rounded", "reason"]
    assert rows.loc["flat", "distinct_count"] == 5, "drawn five at a time, always in the same shades"


@pytest.mark.slow
def test_every_row_says_what_was_left_out_of_a_folder_and_converted(rows):
    finished = rows[rows["status"] == "ok"]
    assert len(finished) == 4 and all(f"data: {SKIPPED}" in reason for reason in finished["reason"])
    assert set(rows["dataset_remark"]) == {SKIPPED}


def test_files_that_cannot_be_used_end_the_request_before_anything_is_trained(tmp_path):
    path = pictures(tmp_path / "pictures")
    content = matrix(path, damaged="error", backbone=[{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}])
    (tmp_path / "bad.json").write_text(json.dumps(content))
    done = command("run", "bad.json", "--device", "cpu", cwd=tmp_path, environment={"DIFFBENCH_HOME": str(tmp_path / "home")})
    assert done.returncode == 2 and "Traceback" not in done.stderr
    said = done.stderr + done.stdout
    assert "2 of 42 files" in said and "cut.png: " in said and "text.png: not an image, or empty" in said and "left alone: 1 .txt" in said
    assert not list((tmp_path / "home").rglob("task.json")) and not (tmp_path / "runs" / "bad" / "cells").exists()


def test_the_plan_says_what_is_left_out_also_around_another_data_set(tmp_path):
    content = matrix(pictures(tmp_path / "pictures"), backbone=[{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}])
    assert [note for note in diffbench.plan(content, device="cpu").notes if SKIPPED in note]
    around = content | {"dataset": {"super_resolution": {"inner": content["dataset"]}}}
    assert [note for note in diffbench.plan(around, device="cpu").notes if SKIPPED in note]


@pytest.mark.parametrize("count", [0, 1])
def test_no_samples_or_one_is_a_mistake_in_the_file(count):
    content = {"diffbench": 1, "name": "few", "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim"}, "sample": {"count": count}}
    with pytest.raises(diffbench.MatrixError, match=rf"sample.count: .*>= 2.*{count}"):
        diffbench.plan(content, device="cpu")


@pytest.mark.slow
def test_few_samples_have_finite_numbers_and_a_remark(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    content = matrix(pictures(tmp_path / "pictures"), **{"sample.count": [2, 50]}) | {"sample": {}}
    plan = diffbench.plan(content, device="cpu", plugins=[PLUGIN])
    assert "prdc is not measured: balls that reach to neighbour 5 need more than 5 samples, and sample.count is 2" in plan.notes
    assert diffbench.run(content, out=tmp_path / "out", device="cpu", plugins=[PLUGIN]).counts == {"ok": 2}
    few, more = (row for _, row in diffbench.load(tmp_path / "out").iterrows())
    assert "2 samples for 192 features" in few["reason"] and "50 samples for 192 features" in more["reason"]
    numbers = [name for name in few.index if name.startswith(("fd_", "kid_", "sliced_", "near_copy", "nn_distance", "precision", "recall"))]
    reasons = {name for name in numbers if name.endswith("_no_interval")}
    assert few["fd_pixels_no_interval"] == "2 samples are too few for 20 blocks of two: 40 would do"
    lacking = {name.removesuffix("_no_interval") for name in reasons if isinstance(more[name], str)}
    numbers = [name for name in numbers if name not in reasons and name not in {main + end for main in lacking for end in ("_debiased", "_low", "_high")}]
    intervals = {name for name in numbers if name.endswith(("_debiased", "_low", "_high"))}
    assert {"fd_pixels", "kid_pixels_low", "near_copy_share_low", "nn_distance_train", "precision", "recall"} <= set(numbers)
    assert numpy.isfinite(more[numbers].to_numpy(dtype=float)).all()
    for name in numbers:                                      # neither an interval of two samples nor balls that reach to a fifth neighbour
        rests_on_blocks = name in intervals and not name.startswith("near_copy_share") and "of_held_out" not in name
        has_none = rests_on_blocks or name.startswith(("precision", "recall"))
        assert numpy.isnan(few[name]) == has_none, name


@pytest.mark.parametrize(("part", "said"), [
    ({"images": torch.rand(4, 3, 8, 8)}, r"images of a split must be uint8 \[N, C, H, W\], got float32 \[4, 3, 8, 8\]"),
    ({"images": torch.zeros(4, 8, 8, dtype=torch.uint8)}, r"images .* got uint8 \[4, 8, 8\]"),
    ({"images": numpy.zeros((4, 3, 8, 8), numpy.uint8)}, "images .* got ndarray"),
    ({"labels": torch.zeros(3, dtype=torch.int64)}, r"labels of a split must be int64 \[4\], got int64 \[3\]"),
    ({"labels": torch.zeros(4)}, r"labels .* got float32 \[4\]"),
    ({"conditions": torch.rand(4, 3, 4, 4)}, r"conditions of a split must be uint8 \[4, C, h, w\], got float32"),
])
def test_a_data_set_that_gives_other_things_than_bytes_is_refused(part, said):
    with pytest.raises(diffbench.DataError, match=said):
        diffbench.Split(**{"images": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)} | part)


def test_a_denoiser_of_another_form_is_refused_and_not_broadcast():
    schedule, scheduler, x_T = REGISTRY.create("noise_schedule", "linear"), REGISTRY.create("scheduler", "ddim", steps=2), torch.randn(2, 3, 8, 8)
    for how, said in ((lambda x: x[:, :1], r"float32 \[2, 1, 8, 8\]"), (lambda x: x.double(), "float64"), (lambda x: 0.5, "float at")):
        with pytest.raises(diffbench.BrokenComponent, match=rf"the denoiser must give x0 as float32 \[2, 3, 8, 8\], got {said}"):
            diffbench.sample(lambda x, t, how=how: diffbench.Prediction(x0=how(x), eps=x), schedule, scheduler, x_T)
