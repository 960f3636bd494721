"""Rows, tables and the page as soon as the quality of all cells is known; timings join them later, or never."""

import pytest

import diffbench
from diffbench.errors import DiffbenchError
from diffbench.report import page

TINY = {"diffbench": 1, "name": "early", "dataset": "digits", "metrics": [], "extractor": "pixels",
        "axes": {"backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}, "scheduler": [{"ddim": {"steps": 2}}, {"euler_ode": {"steps": 2}}]},
        "train": {"steps": 2, "batch_size": 8}, "sample": {"count": 8}, "throughput": {"repeats": 3, "batch_size": 2}}


class Listener:
    """A watcher that looks at the folder of results whenever something is noted."""

    def __init__(self, folder):
        self.folder, self.frames, self.order = folder, [], []

    def started(self, stage):
        self.order.append(stage.name)

    def progress(self, stage, done, of, figures):
        """Nothing to look at."""

    def finished(self, stage, outcome):
        """Nothing to look at."""

    def note(self, text):
        if "timings follow" in text:
            self.order.append("tables")
            self.frames.append((diffbench.load(self.folder / "results.parquet"), (self.folder / page.FILE).is_file()))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))


def test_tables_and_page_stand_before_the_first_timing(tmp_path, home):
    listener = Listener(tmp_path / "run")
    finished = diffbench.run(TINY, out=tmp_path / "run", device="cpu", watchers=[listener])
    ((early, has_page),) = listener.frames
    assert has_page and list(early["status"]) == ["ok", "ok"] and early["nfe"].notna().all() and early["sample_images_per_second"].isna().all()
    assert set(early["speed_remark"]) == {"speed is not measured yet"}
    assert "throughput" in listener.order[listener.order.index("tables"):] and "throughput" not in listener.order[:listener.order.index("tables")]
    late = diffbench.load(tmp_path / "run")
    assert finished.is_complete and late["sample_images_per_second"].notna().all() and list(late["cell_id"]) == list(early["cell_id"])


def test_throughput_off_times_nothing(tmp_path, home):
    plan = diffbench.plan(TINY | {"throughput": "off"}, device="cpu")
    assert "throughput" not in plan.summary()["stages"] and not any(role.startswith("throughput") for cell in plan.cells for role in cell.stages)
    assert diffbench.plan(TINY | {"throughput": False}, device="cpu").stages.keys() == plan.stages.keys()
    finished = diffbench.run(TINY | {"throughput": "off"}, out=tmp_path / "run", device="cpu")
    rows = diffbench.load(tmp_path / "run")
    assert finished.counts == {"ok": 2} and rows["sample_images_per_second"].isna().all() and set(rows["speed_remark"]) == {"speed is not measured: throughput is off"}
    assert not (tmp_path / "run" / "throughput.md").exists() and (tmp_path / "run" / page.FILE).is_file()


def test_another_word_for_throughput_is_refused():
    with pytest.raises(DiffbenchError, match=r"'throughput' is written as \{option: value\} or off, got 'none'"):
        diffbench.plan(TINY | {"throughput": "none"}, device="cpu")


def test_a_run_without_a_row_has_no_page(tmp_path, home):
    from click.testing import CliRunner

    from diffbench.cli.report import command

    (tmp_path / "run" / "cells").mkdir(parents=True)
    (tmp_path / "run" / "plan.json").write_text('{"cells": [], "stages": {}}')
    (tmp_path / "run" / "matrix.json").write_text("{}")
    (tmp_path / "run" / "environment.json").write_text("{}")
    found = CliRunner().invoke(command, [str(tmp_path / "run")])
    assert isinstance(found.exception, DiffbenchError) and "has no row yet" in str(found.exception)
