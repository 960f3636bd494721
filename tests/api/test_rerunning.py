"""One row made again: what is the same is found the same, and whatever differs is found and named."""

import json
import shutil

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.api import running
from diffbench.cli import rerun as command
from diffbench.errors import DiffbenchError
from diffbench.results.exporting import export_run
from diffbench.results.importing import import_run
from diffbench.store.artefacts import Store
from tests.helpers.rerun import ROW, change, record, update
from tests.helpers.runs import files

pytestmark = pytest.mark.slow


def test_a_row_made_again_is_the_same_to_the_bit(repeated):
    run, _, kept, found = repeated
    assert found.agrees and found.is_bitwise and found.is_comparable_to_the_bit and found.disagreements == () and found.notes == ()
    assert {a.stage for a in found.artefacts} == {"train", "sample", "extractor", "features", "reference", "evaluate"}
    assert all(a.is_equal for a in found.artefacts)
    columns = {n.column for n in found.numbers}
    assert {"nfe", "parameters", "train_loss", "fd_pixels", "fd_pixels_low", "clamped_share", "sample_count"} <= columns
    assert "sample_images_per_second" in {c.column for c in found.clocks} and not columns & {c.column for c in found.clocks}
    assert "ddpm, 2 steps, seed 0" in found.made_of


def test_nothing_is_reused_and_only_the_one_cell_is_made(repeated):
    run, store, kept, found = repeated
    assert [p.name for p in (kept / "run" / "cells").iterdir()] == [f"{found.cell_id}.json"]
    stages = [p.name for p in (kept / "home" / "store").iterdir()]
    assert sorted(stages) == ["evaluate", "extractor", "features", "reference", "sample", "throughput", "train"]
    outcomes = [json.loads(p.read_bytes()) for p in (kept / "home").glob("store/*/*/*/outcome.json")]
    assert {o["threads"] for o in outcomes} == {1}, "as many threads as then"
    assert len(outcomes) == len(list((kept / "home" / "attempts").iterdir())), "every artefact was made there"


def test_a_run_is_only_read(again):
    run, store, compare = again
    before = files(run), files(store.root)
    assert compare().agrees
    assert (files(run), files(store.root)) == before


def test_a_number_that_differs_in_its_last_bit_is_found(again):
    run, _, compare = again
    change(record(run), fd_pixels=lambda v: v * (1 + 2**-50))
    found = compare()
    assert not found.agrees and not found.is_bitwise and len(found.disagreements) == 1 and found.disagreements[0].startswith("fd_pixels: ")


def test_a_pixel_that_differs_is_found_and_where(again):
    run, store, compare = again
    import safetensors.torch

    key = next(c["stages"]["sample"] for c in json.loads((run / "plan.json").read_bytes())["cells"] if c["cell_id"] == record(run).stem)
    tensors = store.read_tensors("sample", key, "images.safetensors")
    tensors["images"][7, 0, 0, 0] ^= 1
    there = {p.name: p.read_bytes() for p in store.path("sample", key).iterdir() if p.name != "manifest.json"}
    task = json.loads(there.pop("task.json"))
    shutil.rmtree(store.path("sample", key))
    store.publish("sample", key, task, there | {"images.safetensors": safetensors.torch.save(tensors)})
    found = compare()
    assert found.disagreements == (f"sample {next(a.label for a in found.artefacts if a.stage == 'sample')}: 1 of 400 images differ, by at most 1 of 255",)
    assert all(n.is_equal for n in found.numbers) and not found.is_bitwise


def test_without_the_run_s_store_numbers_and_pictures_are_compared(again, tmp_path):
    """An archive of results from elsewhere is enough."""
    run, store, compare = again
    elsewhere = Store(tmp_path / "elsewhere")
    export_run(run, store, tmp_path / "run.zip", results_only=True)
    import_run(tmp_path / "run.zip", elsewhere, tmp_path / "there")
    found = diffbench.rerun(tmp_path / "there", ROW, store=elsewhere)
    assert found.agrees and found.is_bitwise and [a.stage for a in found.artefacts if a.is_equal] == ["picture"]
    assert all("does not hold it" in a.said for a in found.artefacts if a.is_equal is None) and len(found.artefacts) > 5
    from PIL import Image

    picture = tmp_path / "there" / "samples" / f"{found.cell_id}.png"
    with Image.open(picture) as image:
        image.load()
    image.putpixel((5, 5), image.getpixel((5, 5)) ^ 3)
    image.save(picture)
    assert "of 255" in diffbench.rerun(tmp_path / "there", ROW, store=elsewhere).disagreements[0]


def test_a_damaged_artefact_is_not_compared_and_not_touched(again):
    run, store, compare = again
    path = next((store.root / "store" / "train").glob("*/*/weights.safetensors"))
    path.write_bytes(path.read_bytes()[:-1])
    (train,) = (a for a in compare().artefacts if a.stage == "train")
    assert train.is_equal is None and "is damaged: weights.safetensors does not match" in train.said and path.exists()


@pytest.mark.parametrize(("share", "agrees"), [(0.9, True), (1.1, False)])
def test_elsewhere_a_number_agrees_within_half_of_its_interval(again, share, agrees):
    run, _, compare = again
    row = json.loads(record(run).read_bytes())
    half = (row["fd_pixels_high"] - row["fd_pixels_low"]) / 2
    change(record(run), fd_pixels_debiased=row["fd_pixels_debiased"] + share * half, train_loss=2 * row["train_loss"])
    assert not compare().agrees, "here it has to be the same"
    update(run, packages=("torch", "1.0"))
    found = compare()
    assert found.agrees is agrees and [str(c).startswith("torch 1.0 then, ") for c in found.changes] == [True] and not found.is_bitwise
    assert {n.column for n in found.numbers if n.is_within is None} == {"train_loss"}, "nothing is known of its error"
    if not agrees:
        assert found.disagreements[0].startswith("fd_pixels_debiased: ") and f"more than half of its interval, {half:.3g}" in found.disagreements[0]


def test_counts_are_exact_everywhere(again):
    run, _, compare = again
    update(run, packages=("torch", "1.0"))
    assert compare().agrees
    change(record(run), nfe=3.0, sample_count=61)
    assert [d.partition(":")[0] for d in compare().disagreements] == ["nfe", "sample_count"]


def test_threads_and_batches_that_differ_are_named(again):
    run, store, compare = again
    change(record(run), threads=4, sample_batch_size=12)
    found = compare()
    assert list(map(str, found.changes)) == ["threads 4 then, 1 now", "sample_batch_size 12 then, 40 now"] and not found.is_comparable_to_the_bit


def test_a_stage_that_an_earlier_run_made_otherwise_is_named(again):
    run, store, compare = again
    outcome = next((store.root / "store" / "train").glob("*/*/outcome.json"))
    folder, key = outcome.parent, outcome.parent.name
    there = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "manifest.json"}
    task = json.loads(there.pop("task.json"))
    there["outcome.json"] = json.dumps(json.loads(there["outcome.json"]) | {"threads": 8, "machine": "another"}).encode()
    shutil.rmtree(folder)
    store.publish("train", key, task, there)
    said = list(map(str, compare().changes))
    assert said[0] == "threads of train 8 then, 1 now" and said[1].startswith("machine of train another then, ")


def test_what_is_computed_from_something_else_is_named_at_its_root(again):
    run, store, compare = again
    plan = json.loads((run / "plan.json").read_bytes())
    key = next(c["stages"]["train"] for c in plan["cells"] if c["cell_id"] == record(run).stem)
    other = "ab" * 32
    (run / "plan.json").write_text(json.dumps(plan).replace(key, other))
    (found,) = compare().stages_changed
    assert "train dit" in found and "the run's store, which would tell, is not here" in found
    there = {p.name: p.read_bytes() for p in store.path("train", key).iterdir() if p.name != "manifest.json"}
    task = json.loads(there.pop("task.json"))
    task["identity"]["train"]["lr"], task["identity"]["harness"], task["key"] = 1.0, "before", other
    store.publish("train", other, task, there)
    (found,) = compare().stages_changed
    assert found.endswith("computed from something else than then: harness, train.lr"), "the samples follow from it"
    assert compare().agrees and not compare().is_comparable_to_the_bit


def test_an_environment_of_an_earlier_version_says_less(again):
    run, _, compare = again
    here = json.loads((run / "environment.json").read_bytes())
    (run / "environment.json").write_text(json.dumps({"python": here["python"], "packages": {"torch": here["packages"]["torch"]}}))
    found = compare()
    assert found.agrees and found.is_comparable_to_the_bit and "earlier version" in found.notes[0]


def test_a_repetition_that_fails_confirms_nothing(again, monkeypatch):
    run, _, compare = again
    real = running.execute

    def fails(made, *, out, **options):
        done = real(made, out=out, **options)
        change(next((out / "cells").iterdir()), status="failed", reason="train: the sky fell")
        return done
    monkeypatch.setattr(running, "execute", fails)
    assert compare().disagreements == ("the row could not be made again: failed: train: the sky fell",)


def test_from_the_command_line(again, tmp_path, monkeypatch):
    run, store, _ = again
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))

    def ask(*arguments):
        return CliRunner().invoke(command.command, [str(run), *arguments], catch_exceptions=False)
    done = ask(ROW)
    assert done.exit_code == 0 and done.stdout.rstrip().endswith("the same to the bit") and "same bits: 1 " in done.stdout and "not compared" not in done.stdout
    found = json.loads(ask(record(run).stem[:6], "--json").stdout)
    assert found["agrees"] is found["is_bitwise"] is True and found["disagreements"] == [] and found["clocks"][0]["ratio"] > 0
    change(record(run), fd_pixels_debiased=lambda v: v + 1e-9, threads=2)
    done = ask(ROW)
    assert done.exit_code == 0 and "not comparable to the bit: threads 2 then, 1 now" in done.stdout and "agrees within its intervals" in done.stdout
    change(record(run), fd_pixels_debiased=lambda v: v + 100)
    done = ask(ROW)
    assert done.exit_code == 1 and "disagrees: fd_pixels_debiased" in done.stdout and done.stdout.rstrip().endswith("NOT the same")
    assert json.loads(ask(ROW, "--json").stdout)["agrees"] is False


@pytest.mark.parametrize(("row", "said"), [
    ("steps=2", "means 2 rows of .*, and one is repeated at a time: .*; write one of these, or more conditions"),
    ("scheduler=heun", "no cell has scheduler=heun; there are"),
    ("scheduler=ddpm,seed=1", "no cell has seed=1"),
    ("zz", "no cell of .* is 'zz'"),
])
def test_a_request_that_means_no_single_row_is_refused(again, row, said):
    with pytest.raises(DiffbenchError, match=said):
        again[2](row)


def test_what_cannot_be_repeated_here_is_refused_in_a_sentence(again, tmp_path):
    run, _, compare = again
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(DiffbenchError, match="--keep .*full: there is something already"):
        diffbench.rerun(run, ROW, keep=tmp_path / "full")
    kept = record(run).read_bytes()
    change(record(run), device="cuda:7")
    with pytest.raises(DiffbenchError, match="was made on 'cuda:7', and the same device is needed: the device 'cuda:7' is not there"):
        compare()
    record(run).write_bytes(kept)
    update(run, request=("plugins", [{"path": str(tmp_path / "gone.py"), "sha256": "0" * 64}]))
    with pytest.raises(DiffbenchError, match="the run used the plug-in file gone.py, and there is no .*: name it with --plugin"):
        compare()
    (tmp_path / "gone.py").write_text("raise SystemExit('a stranger named this file')")
    with pytest.raises(DiffbenchError, match="is not what the run used: its SHA-256 differs"):
        compare()
    update(run, request=("plugins", []))
    matrix = (run / "matrix.json").read_bytes()
    for damage, said in ((b"{", "matrix.json cannot be read: .*; running the matrix again writes it anew"),
                         (b"[]", "matrix.json cannot be read: it is \\[\\], expected a mapping"),
                         (matrix.replace(b'"pixels"', b'"pixies"'), "no extractor named 'pixies'")):
        (run / "matrix.json").write_bytes(damage)
        with pytest.raises(DiffbenchError, match=said):
            compare()
    (run / "matrix.json").unlink()
    with pytest.raises(DiffbenchError, match="matrix.json is not there: give the folder of a run"):
        compare()
    (run / "matrix.json").write_bytes(matrix)
    change(record(run), status="failed", reason="train: the sky fell")
    with pytest.raises(DiffbenchError, match="the sky fell"):
        compare()
    with pytest.raises(DiffbenchError, match="holds no results of a run"):
        diffbench.rerun(tmp_path / "nowhere", ROW)
