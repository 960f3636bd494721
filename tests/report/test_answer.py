"""The result of a run in a few lines."""

import json

from diffbench.report import answer
from diffbench.report.reading import ReportedRun
from tests.helpers import made_rows
from tests.helpers.made_rows import FD


def lines(tmp_path, real=True, **rows):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(**rows))
    if real:
        values = {FD: 1.5, f"{FD}_debiased": 0.5, f"{FD}_low": 0.1, f"{FD}_high": 0.9}
        (run / "real.json").write_text(json.dumps({"held_out": {f"digits:{FD}": values}, "training": {}}))
    return answer.lines(ReportedRun(run))


def test_the_best_rows_stand_first_with_interval_evaluations_and_speed(tmp_path):
    said = lines(tmp_path)
    assert said[0] == f"Best by {FD}_debiased, lower is better; digits, 400 samples a row"
    assert said[1].split() == ["row", "value", "(95", "%", "interval)", "NFE", "images/s"]
    rows = said[3:3 + answer.MOST_ROWS]
    values = [float(row.partition(" (")[0].split()[-1]) for row in rows]
    assert values == sorted(values) and rows[0].strip().startswith("unet, scale 1.5, ddpm, steps 50  ") and rows[0].split()[-2:] == ["100", "20"]
    assert any(row.endswith("50 †") for row in rows), "a noisy timing"
    assert said[3 + answer.MOST_ROWS].split()[:5] == ["held-out", "real", "images", "0.5", "(0.1"]
    assert said[-1] == "  8 more rows are in fid.md." and "  ≈ cannot be told from the best." in said
    assert len(said) <= 16 and max(map(len, said)) <= 100


def test_one_training_each_is_said(tmp_path):
    said = lines(tmp_path, seeds=((0, 0),), backbones=("unet",), scales=(1.5,))
    assert said[-1] == "  One training each: says nothing of other trainings. Intervals and p are of these weights."
    assert [line.split(",")[0].strip() for line in said[3:7]] == ["ddpm", "ddim", "ddim", "pndm"], "only what varies is named"


def test_where_nothing_was_measured_nothing_is_said(tmp_path):
    run = made_rows.folder(tmp_path / "run", [row for row in made_rows.rows() if row["status"] != "ok"])
    assert answer.lines(ReportedRun(run)) == []


def test_no_interval_no_timing_no_real_images(tmp_path):
    said = lines(tmp_path, real=False, interval=False, timed=False, seeds=((0, 0),), schedulers=(("ddim", 5),), backbones=("dit",), scales=(3.0,))
    assert said[3].split()[:3] == ["the", "only", "row"] and "(" not in said[3] and not any("real images" in line for line in said)
