"""Runs from file to table: sharing, resuming, and failures that cost their own rows and nothing else."""

import json
from pathlib import Path

import pytest

import diffbench
from diffbench.results import unchanged as finished_runs
from diffbench.store.artefacts import Store
from tests.helpers.runs import files

PLUGIN = str(Path(__file__).parents[1] / "helpers" / "misbehaving.py")
MATRIX = {
    "diffbench": 1, "name": "small", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": [{"cfg": {"inner": "film", "scale": [1.0, 2.0]}}],
             "scheduler": [{"ddim": {"steps": 2}}, {"ddpm": {"steps": 2}}]},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 12, "batch_size": 5}, "throughput": {"repeats": 3, "batch_size": 2},
    "metrics": ["fid", "class_accuracy"], "run": {},
}


def matrix(**changes):
    return {**MATRIX, **changes}


def run(folder, content, **options):
    return diffbench.run(content, out=folder / "out", device="cpu", **options)


pytestmark = [pytest.mark.usefixtures("finished"), pytest.mark.slow]


def test_every_cell_has_its_row_with_every_column(finished):
    folder, done = finished
    assert done.is_complete and done.counts == {"ok": 4}
    rows = diffbench.load(folder / "out")
    assert len(rows) == 4 and list(rows["status"]) == ["ok"] * 4
    assert list(rows["scheduler"]) == ["ddim", "ddpm", "ddim", "ddpm"], "in the order of the file"
    for column in ("nfe", "parameters", "gmac_per_nfe", "train_loss", "train_images_per_second", "sample_images_per_second", "seconds_per_nfe",
                   "fd_dataset_classifier", "class_accuracy", "reference_count", "sample_count"):
        assert rows[column].notna().all(), column
    assert list(rows["nfe"]) == [2.0, 2.0, 4.0, 4.0], "w = 1 is one pass, a doubled batch counts twice"
    assert "fid" not in rows, "only Inception features may be called fid"
    assert (rows["sample_count"] == 12).all()


def test_the_formats_agree(finished):
    import pandas

    folder, _ = finished
    out = folder / "out"
    records, parquet, csv = diffbench.load(out), pandas.read_parquet(out / "results.parquet"), diffbench.load(out / "results.csv")
    pandas.testing.assert_frame_equal(records, parquet, check_dtype=False)
    assert list(csv["cell_id"]) == list(records["cell_id"]) and list(csv["fd_dataset_classifier"]) == list(records["fd_dataset_classifier"])


def test_a_denoiser_is_trained_once_for_all_that_share_it(finished):
    folder, done = finished
    plan = json.loads((folder / "out" / "plan.json").read_bytes())
    assert plan["summary"]["stages"]["train"] == 1
    assert plan["summary"]["train_steps"] == 3 and plan["summary"]["train_steps_if_every_cell_were_trained_alone"] == 12


def test_tables_grids_and_environment_lie_beside_the_results(finished):
    from PIL import Image

    folder, _ = finished
    out = folder / "out"
    assert "**Floor**" in (out / "fid.md").read_text() and "This is not FID" in (out / "fid.md").read_text()
    assert "images per second" in (out / "throughput.md").read_text().lower()
    for cell_id in diffbench.load(out)["cell_id"]:
        with Image.open(out / "samples" / f"{cell_id}.png") as picture:
            assert picture.width > 10 * 32 and picture.height > 32
    facts = json.loads((out / "environment.json").read_bytes())
    assert facts["cores"] >= 1 and facts["packages"]["torch"]
    assert not list(out.glob(".*")), "no temporary file is left"


def test_the_same_line_again_does_nothing_again_and_changes_no_number(finished):
    folder, done = finished
    before = diffbench.load(folder / "out").drop(columns=["started_at"])
    again = run(folder, MATRIX)
    assert again.stages_run == 0 and again.stages_found == done.stages_run + done.stages_found
    assert diffbench.load(folder / "out").drop(columns=["started_at"]).equals(before)


def results(folder):
    """What is made of rows, by name: content and when it was written."""
    return {name: (content, (folder / name).stat().st_mtime_ns) for name, content in files(folder).items()
            if not name.startswith("events/") and name not in finished_runs.NOT_MADE}


def test_a_folder_of_results_that_is_as_it_was_left_is_not_written_again_and_one_that_is_not_is_mended(finished):
    folder, _ = finished
    run(folder, MATRIX)
    before = results(folder / "out")
    assert {"fid.md", "results.parquet"} < set(before) and run(folder, MATRIX).counts == {"ok": 4}
    assert results(folder / "out") == before
    record, table = next(name for name in before if name.startswith("cells/")), diffbench.load(folder / "out").drop(columns=["started_at"])
    for name, damage in (("fid.md", None), (record, b'"status": "failed"'), ("results.csv", b""), (finished_runs.FILE, b"[]")):
        path = folder / "out" / name
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes().replace(b'"status": "ok"', damage) if damage.startswith(b'"') else damage)
        assert run(folder, MATRIX).counts == {"ok": 4}
        after = results(folder / "out")
        assert set(after) == set(before) and after["fid.md"][0] == before["fid.md"][0], name
        assert diffbench.load(folder / "out").drop(columns=["started_at"]).equals(table), "a row that was mended is of the run that mended it"
        assert diffbench.load(folder / "out" / "results.csv")["cell_id"].tolist() == table["cell_id"].tolist()


def test_a_damaged_artefact_is_rebuilt_to_the_same_table(tmp_path):
    """With a seed of its own, so that no test beside this one reads what is damaged here."""
    content = matrix(axes=MATRIX["axes"] | {"conditioning": "film", "seed": 77})
    run(tmp_path, content)
    before = diffbench.load(tmp_path / "out")
    plan = json.loads((tmp_path / "out" / "plan.json").read_bytes())
    victim = Store.default().path("sample", plan["cells"][1]["stages"]["sample"]) / "images.safetensors"
    data = bytearray(victim.read_bytes())
    data[-3] ^= 4
    victim.write_bytes(data)
    assert run(tmp_path, content).stages_run == 1
    measured = ["cell_id", "fd_dataset_classifier", "class_accuracy"]
    assert diffbench.load(tmp_path / "out")[measured].equals(before[measured])


def test_the_batch_size_of_sampling_does_not_change_the_images(finished, tmp_path):
    folder, _ = finished
    from safetensors.numpy import load

    other = Store(tmp_path / "store")                     # a store of its own, or the images of the other run would be found
    run(tmp_path, matrix(sample={"count": 12, "batch_size": 12}, metrics=[]), store=other)
    for cell in json.loads((folder / "out" / "plan.json").read_bytes())["cells"]:
        a, b = (load((store.path("sample", cell["stages"]["sample"]) / "images.safetensors").read_bytes())["images"].astype(int) for store in (Store.default(), other))
        assert abs(a - b).max() <= 1


def test_a_failure_costs_its_own_rows_and_says_why(tmp_path):
    names = ["raising", "crashing", "leaving", "spoiling"]
    axes = MATRIX["axes"] | {"scheduler": [*names, {"ddim": {"steps": 2}}], "conditioning": "film"}
    done = run(tmp_path, matrix(axes=axes), plugins=[PLUGIN])
    rows = diffbench.load(tmp_path / "out").set_index("scheduler")
    assert not done.is_complete and done.counts == {"failed": 3, "diverged": 1, "ok": 1}
    assert "the sky fell [/red] (misbehaving.py:" in rows.loc["raising", "reason"]
    assert "ended by signal 11" in rows.loc["crashing", "reason"]
    assert "ended with code 0 and no result" in rows.loc["leaving", "reason"]
    assert rows.loc["spoiling", "status"] == "diverged" and "samples are not finite" in rows.loc["spoiling", "reason"]
    assert rows.loc["ddim", "status"] == "ok"
    assert "the sky fell" in (tmp_path / "out" / "fid.md").read_text()


def test_a_failure_is_never_cached_and_retries_are_made(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_TEST_FLAG", str(tmp_path / "flag"))
    axes = MATRIX["axes"] | {"scheduler": "once", "conditioning": "film"}
    first = run(tmp_path, matrix(axes=axes, metrics=[]), plugins=[PLUGIN])
    assert first.counts == {"failed": 1}
    second = run(tmp_path, matrix(axes=axes, metrics=[]), plugins=[PLUGIN])
    assert second.counts == {"ok": 1} and second.stages_found > 0
    (tmp_path / "flag").unlink()
    other = tmp_path / "other"
    other.mkdir()
    assert run(other, matrix(axes=axes, metrics=[], run={"retries": 1}), plugins=[PLUGIN]).counts == {"ok": 1}


def test_a_training_that_diverges_gives_diverged_rows_and_the_rest_goes_on(tmp_path):
    axes = MATRIX["axes"] | {"train.lr": [1e-3, 1e30], "conditioning": "film", "scheduler": {"ddim": {"steps": 2}}}
    run(tmp_path, matrix(axes=axes, train={"steps": 60, "batch_size": 8, "clip": 1e30}))
    rows = diffbench.load(tmp_path / "out").set_index("train.lr")
    assert rows.loc[1e-3, "status"] == "ok"
    assert rows.loc[1e30, "status"] == "diverged"
    assert "train: the training loss became" in rows.loc[1e30, "reason"]


def test_pairs_that_cannot_work_are_skipped_rows_with_the_reason(tmp_path):
    axes = MATRIX["axes"] | {"backbone": [*MATRIX["axes"]["backbone"], {"dit": {"patch": 3, "width": 16, "depth": 1, "heads": 2}}], "spacing": ["uniform", "leading"],
                             "conditioning": ["film", {"cfg": {"inner": "none"}}], "scheduler": [{"pndm": {"steps": 4}}]}
    plan = diffbench.plan(matrix(axes=axes), device="cpu")
    reasons = {p.skipped for p in plan.cells}
    assert sum(p.skipped is None for p in plan.cells) == 1
    assert any("divisible by" in r or "patch" in r for r in reasons if r)
    assert any("cfg guides by a condition" in r for r in reasons if r)
    assert any("pndm's Adams-Bashforth weights hold for equal steps" in r for r in reasons if r)
    done = run(tmp_path, matrix(axes=axes))
    assert done.counts == {"skipped": 7, "ok": 1} and done.is_complete
    assert "Adams-Bashforth" in (tmp_path / "out" / "fid.md").read_text()


def test_images_of_one_s_own_without_labels(tmp_path):
    """They train and sample; a distance needs an extractor that can do without labels, and missing ones are a mistake, not a row."""
    import numpy
    from PIL import Image

    images = tmp_path / "images"
    images.mkdir()
    for i in range(10):
        Image.fromarray(numpy.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=numpy.uint8)).save(images / f"{i}.png")
    content = matrix(dataset={"image_folder": {"path": str(images), "size": 8}}, metrics=[],
                     axes=MATRIX["axes"] | {"conditioning": "none", "scheduler": [{"ddim": {"steps": 2}}]})
    assert run(tmp_path, content).counts == {"ok": 1}
    plan = diffbench.plan(content | {"metrics": ["fid"]}, device="cpu")
    assert plan.cells[0].skipped == "dataset_classifier needs labels; image_folder has none"
    with pytest.raises(diffbench.DataError, match="is not a folder"):
        diffbench.plan(content | {"dataset": {"image_folder": {"path": str(tmp_path / "nowhere")}}, "metrics": ["fid"]}, device="cpu")


def test_equal_cells_are_sampled_once():
    axes = MATRIX["axes"] | {"scheduler": [{"ddim": {"steps": 5, "eta": 1.0}}, {"ddpm": {"steps": 5}}], "conditioning": "film"}
    plan = diffbench.plan(matrix(axes=axes), device="cpu")
    assert len(plan.equal_cells()) == 1 and plan.summary()["stages"]["sample"] == 1


def test_throughput_is_measured_once_for_scales_that_cost_the_same():
    axes = MATRIX["axes"] | {"conditioning": {"cfg": {"inner": "film", "scale": [0.0, 1.0, 1.5, 3.0]}}, "scheduler": [{"ddim": {"steps": 2}}]}
    plan = diffbench.plan(matrix(axes=axes), device="cpu")
    keys = [p.stages["throughput:sampling"] for p in plan.cells]
    assert keys[0] == keys[1] != keys[2] == keys[3]


def test_keys_change_with_what_changes_a_result_and_with_nothing_else():
    def train_key(**changes):
        plan = diffbench.plan(matrix(**changes), device="cpu")
        return plan.cells[0].stages["train"], plan.cells[0].stages["sample"]
    base = train_key()
    assert train_key(name="other", report={"rows": ["backbone"]}, throughput={"repeats": 4}) == base
    more = train_key(axes=MATRIX["axes"] | {"conditioning": {"cfg": {"inner": "film", "scale": 4.0}}})
    assert more[0] == base[0] and more[1] != base[1], "a guidance scale changes sampling only"
    assert train_key(axes=MATRIX["axes"] | {"conditioning": {"cfg": {"inner": "film", "dropout": 0.2}}})[0] != base[0]
    assert train_key(train={"steps": 4, "batch_size": 8})[0] != base[0]
    assert train_key(sample={"count": 13})[1] != base[1]


def test_workers_are_spawned_where_the_system_cannot_fork(tmp_path, monkeypatch):
    from diffbench.launchers import processes

    monkeypatch.setattr(processes, "CAN_FORK", False)
    axes = MATRIX["axes"] | {"conditioning": "film", "scheduler": [{"ddim": {"steps": 2}}, "raising"], "seed": 5}
    done = run(tmp_path, matrix(axes=axes, metrics=[]), plugins=[PLUGIN])
    assert done.counts == {"ok": 1, "failed": 1}
    assert diffbench.load(tmp_path / "out")["git_commit"].map(lambda c: c is None or len(c.partition("+")[0]) == 40).all()


def test_a_classifier_of_noised_images_is_fitted_once_per_schedule_and_guides(tmp_path):
    axes = {**MATRIX["axes"], "noise_schedule": ["linear", "cosine"], "spacing": [{"uniform": {"start": 0.98}}],
            "conditioning": [{"classifier_guidance": {"scale": [1.0, 3.0]}}], "scheduler": [{"ddim": {"steps": 2}}]}
    plan = diffbench.plan(matrix(axes=axes), device="cpu")
    assert plan.summary()["stages"]["noisy_classifier"] == 2 and plan.summary()["stages"]["train"] == 2
    done = run(tmp_path, matrix(axes=axes))
    rows = diffbench.load(tmp_path / "out")
    assert done.counts == {"ok": 4} and rows["class_accuracy"].notna().all() and list(rows["nfe"]) == [2.0] * 4


def test_an_image_can_be_the_condition(tmp_path):
    """Super-resolution by concat; the plan says which conditionings take no image, and what is measured needs the inner labels only."""
    axes = {**MATRIX["axes"], "conditioning": ["concat", {"cfg": {"inner": "cross_attention"}}, "film"], "scheduler": [{"ddim": {"steps": 2}}]}
    done = run(tmp_path, matrix(dataset={"super_resolution": {"inner": "digits"}}, axes=axes))
    rows = diffbench.load(tmp_path / "out")
    assert done.counts == {"ok": 2, "skipped": 1} and rows["class_accuracy"].notna().sum() == 2
    assert "film takes labels, and the condition of super_resolution is an image" in rows["reason"].iloc[2]


def test_a_learned_variance_reaches_the_sampler_and_other_pairs_are_skipped_with_a_reason(tmp_path):
    axes = {**MATRIX["axes"], "objective": ["hybrid", "mse"], "conditioning": ["film"], "noise_schedule": ["linear", "vp", "rectified_flow"],
            "scheduler": [{"ddpm": {"steps": 3, "variance": "learned"}}, {"heun": {"steps": 2}}]}
    done = run(tmp_path, matrix(axes=axes, metrics=[]))
    rows = diffbench.load(tmp_path / "out")
    assert done.counts == {"ok": 4, "skipped": 8}
    assert set(rows.loc[rows["status"] == "skipped", "reason"]) == {
        "hybrid sums over the steps of a discrete schedule, and vp is continuous",
        "epsilon cannot be decoded at zero terminal SNR: alpha(1) = 0 leaves x_0 undetermined; use v or x0",
        "ddpm's learned variance is trained by hybrid or vlb, and the objective is mse"}


def test_temperature_is_part_of_a_cell(tmp_path):
    axes = {**MATRIX["axes"], "conditioning": ["film"], "scheduler": [{"ddpm": {"steps": 3}}], "sample.temperature": [1.0, 0.5]}
    run(tmp_path, matrix(axes=axes))
    first, second = (diffbench.load(tmp_path / "out")["fd_dataset_classifier"])
    assert first != second
