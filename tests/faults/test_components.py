"""What components and machines do to a run: each costs its own row, which says what happened; the others are as if nothing had."""

import json
import time

import pytest
from filelock import FileLock

import diffbench
from diffbench.machine import laps as timing
from tests.running.test_engine import MATRIX, PLUGIN, matrix, run

pytestmark = pytest.mark.slow
SAID = {
    "raising": ("failed", "RuntimeError: the sky fell [/red] (misbehaving.py:"),
    "crashing": ("failed", "the worker was ended by signal 11"),
    "leaving": ("failed", "the worker ended with code 0 and no result"),
    "exiting": ("failed", "no result; its last words:"),
    "killing": ("failed", "the worker was ended by signal 9 (out of memory, if nobody killed it)"),
    "leaking": ("failed", "out of memory"),
    "spoiling": ("diverged", "12 of 12 samples are not finite; the first is sample 0"),
    "spoiling_one": ("diverged", "3 of 12 samples are not finite; the first is sample 3"),
    "wrong_shape": ("failed", "wrong_shape: a step must give x_s as float32 [5, 1, 8, 8], got float32 [5, 1, 7, 8]"),
    "wrong_dtype": ("failed", "wrong_dtype: a step must give x_s as float32 [5, 1, 8, 8], got float64 [5, 1, 8, 8]"),
    "constant": ("ok", ""), "too_bright": ("ok", ""), "ddim": ("ok", ""),
}


@pytest.fixture(scope="module")
def rows(shared_folder):
    """Those of one run, made once for all test workers."""
    folder = shared_folder / "misbehaving"
    with pytest.MonkeyPatch.context() as patch, FileLock(shared_folder / "misbehaving.lock"):
        if (folder / "whole").exists():
            return diffbench.load(folder / "out").set_index("scheduler")
        patch.setenv("DIFFBENCH_HOME", str(folder / "home"))
        axes = MATRIX["axes"] | {"scheduler": [*(name for name in SAID if name != "ddim"), {"ddim": {"steps": 2}}], "conditioning": "none"}
        done = run(folder, matrix(axes=axes, extractor="pixels", metrics=["fid"], throughput={"repeats": 3, "batch_size": 1}), plugins=[PLUGIN])
        assert not done.is_complete
        (folder / "whole").touch()
    return diffbench.load(folder / "out").set_index("scheduler")


@pytest.mark.parametrize("name", SAID)
def test_each_has_its_row(rows, name):
    status, said = SAID[name]
    assert rows.loc[name, "status"] == status and said in rows.loc[name, "reason"]


def test_collapsed_and_clamped_samples_are_measured_and_seen(rows):
    assert rows.loc["constant", "fd_pixels"] > 0 and rows.loc["too_bright", "fd_pixels"] > rows.loc["constant", "fd_pixels"]
    assert rows.loc["too_bright", "clamped_share"] == 1.0 and rows.loc["constant", "clamped_share"] == 0.0


def test_too_few_samples_for_the_features_are_remarked_upon(rows):
    assert "12 samples for 64 features: the distance rests on a covariance that is rank-deficient" in rows.loc["ddim", "reason"]


def test_a_clock_that_is_set_back_makes_no_duration_negative(monkeypatch):
    import torch

    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    warm = timing.warm_up(lambda: sum(range(1000)), torch.device("cpu"))
    laps = timing.timed(lambda: sum(range(1000)), warm, 5, torch.device("cpu"))
    assert all(seconds > 0 for seconds in (*laps.seconds, *warm.seconds))


def test_a_torn_record_is_written_anew_and_a_torn_table_is_never_read(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    content = matrix(axes=MATRIX["axes"] | {"conditioning": "none"}, metrics=[])
    run(tmp_path, content)
    out = tmp_path / "out"
    whole = (out / "results.csv").read_bytes()
    record = next((out / "cells").glob("*.json"))
    for path in (record, out / "results.parquet", out / "results.csv", out / "plan.json"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    table = diffbench.load(out)
    assert sorted(table["status"]) == ["failed", "ok"] and "is no record of a cell" in table["reason"].str.cat()
    again = run(tmp_path, content)
    assert again.stages_run == 0
    assert [json.loads(p.read_bytes())["status"] for p in (out / "cells").glob("*.json")] == ["ok", "ok"]
    unclocked = [line.rpartition(b",")[0] for line in whole.splitlines()]                # started_at is the last column
    assert [line.rpartition(b",")[0] for line in (out / "results.csv").read_bytes().splitlines()] == unclocked
