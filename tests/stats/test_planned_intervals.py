"""What the plan and the rows say of intervals: where there may be none, and the reason as text."""

import math

import pytest

import diffbench
from diffbench.results import folder, table_files
from diffbench.results import frame as frames
from tests.conftest import all_of


@pytest.mark.parametrize(
    ("count", "notes"),
    [
        (
            30,
            {
                "fd_pixels may have no interval: 30 samples are too few for 20 blocks of two: 40 would do",
                "kid_pixels may have no interval: 30 samples are too few for 20 blocks of two: 40 would do",
            },
        ),
        (
            110,
            {
                "fd_pixels may have no interval: 110 samples of 10 classes do not fill 20 blocks with each class in its share: 200 would do",
                "kid_pixels may have no interval: 110 samples of 10 classes do not fill 20 blocks with each class in its share: 200 would do",
            },
        ),
        (
            200,
            {
                "fd_pixels may have no interval: 200 samples of 64 features give one where the reference's spectrum is steep enough; about 310 do whatever it is"
            },
        ),
        (400, set()),
    ],
)
def test_the_plan_says_where_there_may_be_no_interval(count, notes):
    content = {
        "diffbench": 1,
        "name": "few",
        "dataset": "digits",
        "extractor": "pixels",
        "metrics": ["fid", "kid", "prdc"],
        "sample": {"count": count},
        "axes": {"backbone": "unet", "scheduler": "ddim"},
    }
    assert {note for note in diffbench.plan(content, device="cpu").notes if "no interval" in note} == notes


@pytest.mark.parametrize("extractor", all_of("extractor"))
def test_extractors_tell_how_many_features_they_give(extractor):
    known = extractor.feature_count((3, 16, 8))
    assert known is None or known >= 1


def test_a_row_keeps_the_reason_as_text_and_a_table_keeps_its_column(tmp_path):
    rows = [
        {"cell_id": "a", "status": "ok", "reason": "", "fd_x": 2.0, "fd_x_no_interval": "30 samples are too few"},
        {
            "cell_id": "b",
            "status": "ok",
            "reason": "",
            "fd_x": 3.0,
            "fd_x_debiased": 2.5,
            "fd_x_low": 2.0,
            "fd_x_high": 3.0,
        },
    ]
    frame = frames.frame(rows)
    assert frame["fd_x_no_interval"].tolist()[0] == "30 samples are too few" and frame[
        "fd_x_no_interval"
    ].isna().tolist() == [False, True]
    assert frame["fd_x_low"].dtype == "float64" and math.isnan(frame["fd_x_low"][0])
    (tmp_path / "results.csv").write_bytes(table_files.as_csv(frame))
    frame.to_parquet(tmp_path / "results.parquet")
    for name in ("results.csv", "results.parquet"):
        assert folder.load(tmp_path / name)["fd_x_no_interval"].tolist()[0] == "30 samples are too few"
