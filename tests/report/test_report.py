"""Tables and grids: only seeds are averaged, texts are escaped, pictures show every class."""
import json

import numpy
import pandas
import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.errors import DiffbenchError
from diffbench.report import grids, tables
from diffbench.results import folder
from diffbench.results import frame as frames
from diffbench.results import rows as results
from diffbench.results.grid_files import drawn_from
from diffbench.store.artefacts import Store

ROWS = ("backbone", "noise_schedule", "conditioning")
COLUMNS = ("scheduler", "scheduler.steps")


def row(cell_id, value, **other):
    return {"cell_id": cell_id, "status": "ok", "reason": "", "dataset": "digits", "backbone": "unet", "noise_schedule": "linear", "parameterization": "epsilon",
            "objective": "mse", "conditioning": "cfg", "spacing": "uniform", "scheduler": "ddim", "steps": 10, "seed": 0, "noise_seed": other.get("seed", 0), "fd_x": value, "fd_x_debiased": value - 1,
            "fd_x_low": value - 2, "fd_x_high": value, "class_accuracy": 0.5, "extractor": "x", "extractor_key": "abc", "sample_count": 400, "reference_count": 300,
            "sample_images_per_second": 10.0, "sample_images_per_second_low": 9.0, "sample_images_per_second_high": 11.0, "throughput_batch_size": 20,
            "sample_images_per_anchor": 2.0, "sample_noisy": False,
            "parameters": 1000, "gmac_per_nfe": 0.1, "seconds_per_nfe": 0.01, "train_images_per_second": 100.0, **other}


SAME = ["dataset", "extractor_key", "sample_count"]
MEANING = {"fd_x": {"metric": "fid", "better": "lower", "interval": True, "same": SAME},
           "class_accuracy": {"metric": "class_accuracy", "better": "higher", "interval": False, "same": SAME}}
FLOOR = {"fd_x": 1.5, "fd_x_debiased": 0.5, "fd_x_low": 0.1, "fd_x_high": 0.9}


def written(tmp_path, rows, copies=None, **facts):
    real = tables.RealImages(held_out={"digits:fd_x": FLOOR, "digits:class_accuracy": {"class_accuracy": 0.97}}, training=copies or {})
    facts = tables.Facts(**{"name": "t", "real": real, "machine": {"cpu": "some"}, "columns": MEANING, "records": {r["cell_id"]: r for r in rows}, **facts})
    tables.write(tmp_path, frames.frame([{k: v for k, v in r.items() if k != "left_out"} for r in rows]), ROWS, COLUMNS, facts)
    return (tmp_path / "fid.md").read_text(), (tmp_path / "throughput.md").read_text()


def test_only_seeds_are_averaged(tmp_path):
    rows = [row(f"{s}{w}{seed}", 4.0 * w + seed, **{"conditioning.scale": w, "scheduler": s, "seed": seed}) for s in ("ddim", "ddpm") for w in (1.5, 3.0) for seed in (0, 1)]
    frame = frames.frame(rows)
    pivot = tables.pivot(frame, "fd_x", ROWS, COLUMNS)
    assert sorted(pivot.to_numpy().ravel()) == [6.5, 6.5, 12.5, 12.5], "two guidance scales are never one number"
    text, _ = written(tmp_path, rows)
    assert "5.5 (-0.853 to 11.9)" in text and "Each entry is the mean over seeds, never the best of them" in text and "(2 seeds)" in text
    assert "| 1.5 " in text and "| 3 " in text


def test_one_seed_shows_the_interval_and_the_best_is_bold(tmp_path):
    text, speed = written(tmp_path, [row("a", 5.0), row("b", 3.0, scheduler="ddpm")])
    assert "**2 (1 to 3)**" in text and "4 (3 to 5)" in text
    assert "**Floor**: held-out real images of digits, measured in the same way, are at 0.5 (0.1 to 0.9); 1.5 (conventional, biased)." in text
    assert "**This is not FID**" in text and "10 (9 to 11)" in speed


def copied(share, low):
    return {"near_copy_share": share, "near_copy_share_low": low, "near_copy_share_of_held_out": 0.01, "authenticity": 0.4, "authenticity_of_held_out": 0.5}


def test_the_caption_names_rows_that_copy(tmp_path):
    text, _ = written(tmp_path, [row("aa", 5.0, **copied(0.02, 0.005)), row("bb", 3.0, scheduler="ddpm", **copied(0.5, 0.4))])
    assert ("**Near copies of training images** are 2 % to 50 % of a row's images, and 1 % of held-out real images of digits; "
            "`authenticity` is 40 %, and 50 % for those.") in text
    assert "**In 1 of 2 rows the whole 95 % interval lies above the held-out images; of these the distance says little:** `bb`." in text
    text, _ = written(tmp_path, [row("aa", 5.0, **copied(0.02, 0.005))])
    assert "No row's 95 % interval lies above the held-out images." in text
    text, _ = written(tmp_path, [row("aa", 5.0)])
    assert "Near copies" not in text
    few = {k: v for k, v in copied(0.02, 0.0).items() if k != "near_copy_share_low"}
    assert "Too few images for an interval." in written(tmp_path, [row("aa", 5.0, **few)])[0]


def test_the_caption_says_what_real_and_copied_images_have(tmp_path):
    text, _ = written(tmp_path, [row("a", 5.0)], copies={"digits:fd_x": FLOOR | {"fd_x": 0.25}})
    assert "held-out real images of digits, measured in the same way, are at 0.5 (0.1 to 0.9)" in text
    assert "**Copies**: training images themselves are at 0.5 (0.1 to 0.9); 0.25 (conventional, biased)." in text
    assert "**Ceiling**: held-out real images of digits, measured in the same way, are at 0.97." in text


SEEDS = [(t, s) for t in range(2) for s in range(3)]


def crossed(name, value):
    """6 numbers with 1.0 between trainings and 0.5 between sampling seeds."""
    return [row(f"{name}{t}{s}", value + t + s / 2, scheduler=name, seed=t, noise_seed=s) for t, s in SEEDS]


def test_what_seeds_can_tell_stands_below_the_table(tmp_path):
    rows = [r for i, name in enumerate(("ddim", "ddpm", "heun")) for r in crossed(name, 5.0 + (0, 0.02, 4)[i])]
    for r, own in zip(rows, numpy.random.default_rng(2).normal(size=len(rows)), strict=True):
        r["fd_x_debiased"] += 0.05 * own                                  # ddpm differs from ddim by noise, heun by 4
    text, _ = written(tmp_path, rows)
    assert "2 training x 3 sampling seeds" in text and "between trainings and" in text and "(training and sampling seeds are crossed)" in text
    assert "Comparisons with the best (ddim), paired by seed: 2" in text and "in 80 of 100 repeats" in text
    lines = {line.split("|")[1].strip(): line for line in text.split("### Differences")[1].splitlines() if line.startswith("| d") or line.startswith("| heun")}
    assert "≈" in lines["ddpm"] and "≈" not in lines["heun"] and "1 in all, cannot be told from the best" in text
    means, found = (pandas.read_csv(tmp_path / name) for name in ("means.csv", "differences.csv"))
    assert means[means["column"] == "fd_x"]["design"].tolist() == ["crossed"] * 3 and means["training_sd"][0] == pytest.approx(0.707, abs=0.05)
    heun = found[(found["column"] == "fd_x") & (found["scheduler"] == "heun")].iloc[0]
    assert heun["comparisons"] == 2 and heun["p_holm"] < 1e-3 and not heun["may_be_best"] and heun["by_seed"].count(";") == 5 and heun["difference"] == pytest.approx(4.0, abs=0.06)


def test_a_baseline_takes_the_place_of_the_best(tmp_path):
    rows = crossed("ddim", 5.0) + crossed("ddpm", 6.0)
    text, _ = written(tmp_path, rows, baseline=frozenset(r["cell_id"] for r in rows if r["scheduler"] == "ddpm"))
    assert "### Differences of `fd_x_debiased` to the baseline: ddpm" in text and "Comparisons with the baseline (ddpm)" in text and "≈" not in text


def test_rows_of_two_data_sets_stand_in_two_tables(tmp_path):
    text, _ = written(tmp_path, [row("a", 5.0), row("b", 6.0, scheduler="ddpm"), row("c", 3.0, dataset="mnist"), row("d", 4.0, scheduler="ddpm", dataset="mnist")])
    assert "lower is better: digits, 400 samples a row" in text and "lower is better: mnist, 400 samples a row" in text
    assert "**4 (3 to 5)**" in text and "**2 (1 to 3)**" in text, "each is the best of its own"


def test_cells_without_a_value_are_listed_with_their_reason(tmp_path):
    bad = {k: v for k, v in row("c", 0.0, scheduler="ddpm").items() if not k.startswith(("fd_", "class_", "sample_im"))} | {"status": "failed", "reason": "a | pipe\nand a line"}
    text, _ = written(tmp_path, [row("a", 5.0), bad])
    assert "## Not measured" in text and "a \\| pipe and a line" in text


def test_spreadsheets_are_not_given_formulas(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps(row("a", 5.0, status="failed", reason="=HYPERLINK(1)")))
    results.write_tables(tmp_path, {})
    assert "'=HYPERLINK(1)" in (tmp_path / "results.csv").read_text()
    assert pandas.read_parquet(tmp_path / "results.parquet")["reason"][0] == "=HYPERLINK(1)"


def test_the_name_none_survives_the_csv(tmp_path):
    frames.frame([row("a", 5.0, conditioning="none")]).to_csv(tmp_path / "results.csv", index=False)
    assert folder.load(tmp_path / "results.csv")["conditioning"][0] == "none"


def test_a_folder_without_results_is_said(tmp_path):
    with pytest.raises(DiffbenchError, match="holds no results"):
        folder.load(tmp_path)


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
        assert drawn_from(path) == key
    assert written[0] == written[1] != written[2] == written[3]
    path.write_bytes(b"no picture")
    assert drawn_from(path) is None
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


def timed(name, rate, anchored, spread=0.05, **other):
    """A row whose laps spread evenly."""
    return row(name, 5.0, scheduler=name, sample_images_per_second=rate, sample_images_per_second_low=rate * (1 - spread),
               sample_images_per_second_high=rate * (1 + spread), sample_images_per_anchor=anchored, **other)


def test_a_pair_that_two_tables_order_differently_is_named(tmp_path):
    _, speed = written(tmp_path, [timed("ddim", 150.0, 1.0), timed("ddpm", 75.0, 3.0), timed("heun", 74.0, 0.9)])
    assert ("**Images per second and images per anchor order 1 pair of timings differently**, by more than their laps spread: ddim unet linear cfg "
            "(150 images per second) and ddpm unet linear cfg (75), by the anchor 0.33 and 1.00 of the fastest.") in speed.replace(" 10 ", " ")
    _, speed = written(tmp_path, [timed("ddim", 150.0, 3.0), timed("ddpm", 75.0, 1.0), timed("heun", 74.0, 1.05)])
    assert "differently" not in speed, "75 and 74 are within their laps' spread"
    rows = [timed(f"s{i}", 100.0 + 20 * i, 10.0 - i) for i in range(4)]
    _, speed = written(tmp_path, rows)
    assert "order 6 pairs of timings differently" in speed and "; and 3 more. Of these, neither order is to be trusted." in speed
    without = [{k: v for k, v in r.items() if k != "sample_images_per_anchor"} for r in rows]
    _, speed = written(tmp_path, without)
    assert "anchor" not in speed.replace("share of the fastest", "") and "`sample_images_per_second`, higher is better" in speed


def test_a_timing_that_rows_share_stands_once(tmp_path):
    rows = [timed(f"{s}", rate, 1.0, **{"conditioning.scale": w}) | {"cell_id": f"{s}{w}", "noise_schedule": n}
            for s, rate in (("ddim", 150.0), ("ddpm", 75.0)) for w, n in ((1.5, "linear"), (3.0, "linear"), (1.5, "cosine"))]
    _, speed = written(tmp_path, rows)
    section = speed.partition("## `sample_images_per_second`")[2].partition("## ")[0]
    assert section.count("150 (142 to 158)") == 1 and "Rows that differ in noise_schedule, conditioning.scale alone share a timing, which stands here once." in section
    rows[1] |= {"sample_images_per_second": 140.0}
    _, speed = written(tmp_path, rows)
    assert "conditioning.scale" in speed.partition("## `sample_images_per_second`")[2].partition("\n\n## ")[0].partition("|")[2]


FIGURES = {"train_noisy": {"training images per second"}, "sample_noisy": {"ms per NFE and batch"}}


@pytest.mark.parametrize("flags", [{"train_noisy": True, "sample_noisy": False}, {"train_noisy": False, "sample_noisy": True}, {"noisy": True}], ids=str)
def test_a_mark_stands_where_the_figure_is_noisy_and_nowhere_else(tmp_path, flags):
    made = timed("ddim", 10.0, 2.0, peak_memory_bytes=1e6, train_peak_memory_bytes=1e6, **({"sample_noisy": None} | flags))
    _, speed = written(tmp_path, [made | {"nfe": 10.0}])
    head, _, line = (part.split("|")[1:-1] for part in speed.partition("## Cost of a network")[2].strip().splitlines()[:3])
    marked = {title.strip() for title, entry in zip(head, line, strict=True) if "†" in entry}
    expected = set().union(*(FIGURES[name] for name in FIGURES if flags.get(name) or flags.get("noisy")))
    assert marked == expected and {"parameters", "GMAC per NFE", "peak MB sampling", "peak MB training"} <= {title.strip() for title in head}
    assert ("†" in speed.partition("## `sample_images")[2].partition("## Cost")[0]) == bool(flags.get("sample_noisy") or flags.get("noisy"))
    said = {"train_noisy": "1 of 1 timings of training are noisy", "sample_noisy": "1 of 1 timings of sampling are noisy"}
    assert all((text in speed) == bool(flags.get(name)) for name, text in said.items() if "noisy" not in flags)
