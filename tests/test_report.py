"""Tables and grids: only seeds are averaged, texts are escaped, pictures show every class."""

import json

import numpy
import pandas
import pytest
import safetensors.torch
import torch

import diffbench
from diffbench import results
from diffbench.report import grids, tables
from diffbench.store import Store

ROWS = ("backbone", "noise_schedule", "conditioning")
COLUMNS = ("scheduler", "scheduler.steps")


def row(cell_id, value, **other):
    return {"cell_id": cell_id, "status": "ok", "reason": "", "dataset": "digits", "backbone": "unet", "noise_schedule": "linear", "parameterization": "epsilon",
            "objective": "mse", "conditioning": "cfg", "spacing": "uniform", "scheduler": "ddim", "steps": 10, "seed": 0, "fd_x": value, "fd_x_debiased": value - 1,
            "fd_x_low": value - 2, "fd_x_high": value, "class_accuracy": 0.5, "extractor": "x", "extractor_key": "abc", "sample_count": 400, "reference_count": 300,
            "sample_images_per_second": 10.0, "sample_images_per_second_low": 9.0, "sample_images_per_second_high": 11.0, "throughput_batch_size": 20,
            "sample_images_per_anchor": 2.0, "sample_noisy": False,
            "parameters": 1000, "gmac_per_nfe": 0.1, "seconds_per_nfe": 0.01, "train_images_per_second": 100.0, **other}


def written(tmp_path, rows):
    facts = tables.Facts(name="t", floors={"digits:fd_x": {"fd_x": 1.5, "fd_x_debiased": 0.5, "fd_x_low": 0.1, "fd_x_high": 0.9}}, machine={"cpu": "some"})
    tables.write(tmp_path, results.frame(rows), ROWS, COLUMNS, facts)
    return (tmp_path / "fid.md").read_text(), (tmp_path / "throughput.md").read_text()


def test_only_seeds_are_averaged(tmp_path):
    rows = [row(f"{s}{w}{seed}", 4.0 * w + seed, **{"conditioning.scale": w, "scheduler": s, "seed": seed}) for s in ("ddim", "ddpm") for w in (1.5, 3.0) for seed in (0, 1)]
    frame = results.frame(rows)
    pivot = tables.pivot(frame, "fd_x", ROWS, COLUMNS)
    assert sorted(pivot.to_numpy().ravel()) == [6.5, 6.5, 12.5, 12.5], "two guidance scales are never one number"
    text, _ = written(tmp_path, rows)
    assert "6.5 ± 6.4" in text and "mean over 2 seeds" in text and "| 1.5 " in text and "| 3 " in text


def test_one_seed_shows_the_interval_and_the_best_is_bold(tmp_path):
    text, speed = written(tmp_path, [row("a", 5.0), row("b", 3.0, scheduler="ddpm")])
    assert "**3 (1 to 3)**" in text and "5 (3 to 5)" in text
    assert "**Floor**: held-out real images of digits, measured in the same way, are at 1.5; debiased 0.5 (0.1 to 0.9)" in text
    assert "**This is not FID**" in text and "10 (9 to 11)" in speed


def test_cells_without_a_value_are_listed_with_their_reason(tmp_path):
    bad = {k: v for k, v in row("c", 0.0, scheduler="ddpm").items() if not k.startswith(("fd_", "class_", "sample_im"))} | {"status": "failed", "reason": "a | pipe\nand a line"}
    text, _ = written(tmp_path, [row("a", 5.0), bad])
    assert "## Not measured" in text and "a \\| pipe and a line" in text


def test_spreadsheets_are_not_given_formulas(tmp_path):
    (tmp_path / "cells").mkdir()
    import json

    (tmp_path / "cells" / "a.json").write_text(json.dumps(row("a", 5.0, status="failed", reason="=HYPERLINK(1)")))
    results.write_tables(tmp_path)
    assert "'=HYPERLINK(1)" in (tmp_path / "results.csv").read_text()
    assert pandas.read_parquet(tmp_path / "results.parquet")["reason"][0] == "=HYPERLINK(1)"


def test_the_name_none_survives_the_csv(tmp_path):
    results.frame([row("a", 5.0, conditioning="none")]).to_csv(tmp_path / "results.csv", index=False)
    assert results.load(tmp_path / "results.csv")["conditioning"][0] == "none"


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(results.DiffbenchError, match="holds no results"):
        results.load(tmp_path)


def test_grids_have_a_column_per_class_and_enlarge_small_images():
    images = numpy.arange(40, dtype=numpy.uint8)[:, None, None, None].repeat(8, 2).repeat(8, 3)
    picture = grids.grid(images, numpy.arange(40) % 10)
    assert picture.shape == (4 * 34 + 2, 10 * 34 + 2)
    assert [picture[2 + 34 * r + 5, 2 + 34 * c + 5] for r, c in ((0, 0), (0, 9), (1, 0), (3, 9))] == [0, 9, 10, 39]
    assert grids.grid(numpy.zeros((3, 3, 64, 64), numpy.uint8), None).shape == (68, 3 * 66 + 2, 3)


def test_a_grid_is_drawn_again_only_for_other_samples(tmp_path):
    store = Store(tmp_path / "store")
    store.prepare()
    for key, seed in (("a" * 64, 0), ("b" * 64, 1)):
        images = torch.randint(0, 256, (20, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        store.publish("sample", key, {}, {"images.safetensors": safetensors.torch.save({"images": images, "labels": torch.arange(20) % 10})})
    path, written = tmp_path / "samples" / "cell.png", []
    for key in ("a" * 64, "a" * 64, "b" * 64, "b" * 64):
        grids.write(store, key, path)
        written.append((path.stat().st_ino, path.read_bytes()))
        assert grids.drawn_from(path) == key
    assert written[0] == written[1] != written[2] == written[3]
    path.write_bytes(b"no picture")
    assert grids.drawn_from(path) is None
    grids.write(store, "b" * 64, path)
    assert path.read_bytes() == written[3][1]


def test_a_row_found_again_as_it_was_keeps_what_it_says_of_the_run_that_measured_it(tmp_path):
    content = {"diffbench": 1, "name": "skipped", "dataset": "digits", "axes": {"backbone": "unet", "noise_schedule": "rectified_flow", "scheduler": {"ddim": {"steps": [2, 3]}}}}
    plan = diffbench.plan(content, device="cpu")

    def rows(plan, started):
        made = results.Rows(plan, Store(tmp_path / "store"), tmp_path, {"diffbench": "1", "started_at": started, "device": "cpu"})
        made.start()
        return {row["cell_id"]: json.loads((tmp_path / "cells" / f"{row['cell_id']}.json").read_bytes()) for row in made.written.values()}
    first = rows(plan, "monday")
    assert len(first) == 2 and all(row["status"] == "skipped" and row["started_at"] == "monday" for row in first.values())
    assert rows(plan, "tuesday") == first
    plan.cells[0].skipped = "for another reason"
    changed = rows(plan, "wednesday")
    assert changed[plan.cells[0].cell_id]["started_at"] == "wednesday" and changed[plan.cells[1].cell_id] == first[plan.cells[1].cell_id]
    (tmp_path / "cells" / f"{plan.cells[1].cell_id}.json").write_text("torn {")
    assert rows(plan, "thursday")[plan.cells[1].cell_id]["started_at"] == "thursday"
