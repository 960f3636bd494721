"""Artefacts whose hashes are right and whose content is not: never used, set aside, built again; never published, never imported."""

import json
import sys

import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.errors import Damaged, DiffbenchError
from diffbench.results.exporting import export_run
from diffbench.results.importing import import_run
from diffbench.store import contents, manifest, shapes
from diffbench.store.artefacts import Store
from diffbench.store.stage_kinds import files_of
from tests.faults.harness import Trial
from tests.helpers import runs

NAN = torch.full((3, 2), float("nan"), dtype=torch.float64)


def rewrite(store, stage, key, name, data):
    """Another content for a file, and a manifest that matches it."""
    folder = store.path(stage, key)
    files = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != manifest.MANIFEST} | {name: data}
    for path, content in {**files, manifest.MANIFEST: manifest.manifest_of(stage, key, files)}.items():
        (folder / path).write_bytes(content)
    assert manifest.verify(folder, stage, key)


def tensors(**given):
    return safetensors.torch.save(given)


WRONG = {
    ("evaluate", "values.json"): [b"null", b"[]", b'{"values": {}}', b'{"values": {"": NaN}, "left_out": {}}', b'{"values": {"": "x"}, "left_out": {}}',
                                  b"[" * 100_000, b'{"values": {"": 1e999}, "left_out": {}}', b'{"values": {"": 1}, "left_out": {"": [1, null]}}', b"\xff"],
    ("sample", "facts.json"): [b"null", b"{}", json.dumps({**json.loads(runs.contents("sample")["facts.json"]), "nfe": True}).encode()],
    ("features", "facts.json"): [b'{"feature_count": -1, "remark": ""}', b'{"feature_count": 2, "remark": null}'],
    ("sample", "images.safetensors"): [b"", b"junk", tensors(), tensors(images=torch.zeros(3, 1, 8, 8)), tensors(images=torch.zeros(3, 8, dtype=torch.uint8)),
                                       tensors(images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), labels=torch.arange(4))],
    ("features", "seen.safetensors"): [tensors(images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), features=NAN),
                                       tensors(images=torch.zeros(3, 1, 8, 8, dtype=torch.uint8), features=torch.ones(2, 2))],
    ("train", "weights.safetensors"): [tensors(w=torch.tensor([1.0, float("nan")])), b"\x08\0\0\0\0\0\0\0[[[[[[[[",
                                       (2**62).to_bytes(8, "little") + b"{}"],
    ("train", "facts.json"): [b"{}", b'{"losses": [1, "x"], "steps_per_loss": 1, "train_loss": null, "compiled": true}'],
}
CASES = [(stage, name, data) for (stage, name), every in WRONG.items() for data in every]


@pytest.mark.parametrize(("stage", "name", "data"), CASES, ids=[f"{s}-{n}-{i}" for i, (s, n, _) in enumerate(CASES)])
def test_content_that_a_stage_does_not_write_is_damage_and_is_neither_published_nor_imported(tmp_path, stage, name, data):
    store = Store(tmp_path / "home")
    keys = runs.make_run(store, tmp_path / "made")
    read = store.read_json if name.endswith(".json") else store.read_tensors
    read(stage, keys[stage], name)
    with pytest.raises(ValueError, match="."):
        contents.check_files(stage, {**runs.contents(stage), name: data})
    rewrite(store, stage, keys[stage], name, data)
    with pytest.raises(Damaged, match="is damaged: ") as error:
        read(stage, keys[stage], name)
    assert error.value.is_content and store.has(stage, keys[stage]), "who reads decides what becomes of it"
    export_run(tmp_path / "made", store, tmp_path / "run.zip")
    with pytest.raises(DiffbenchError, match=f"is not what a {stage} stage writes"):
        import_run(tmp_path / "run.zip", Store(tmp_path / "other"), tmp_path / "there")
    assert not (tmp_path / "there").exists() and not list((tmp_path / "other" / "store").rglob("*"))


@pytest.mark.parametrize("stage", [s for s in runs.NAMES if s != "evaluate"])
def test_a_file_that_is_missing_is_wrong_too(stage):
    whole = runs.contents(stage)
    contents.check_files(stage, whole)
    assert files_of(stage)
    for name in files_of(stage):
        with pytest.raises(ValueError, match=f"there is no {name}"):
            contents.check_files(stage, {n: d for n, d in whole.items() if n != name})


@pytest.mark.parametrize("size", [10**30, -1, 2**63, 3, 10**9, True])
def test_a_manifest_with_another_size_is_damaged(tmp_path, size):
    store = Store(tmp_path)
    store.prepare()
    folder = store.publish("evaluate", "a" * 64, {}, runs.contents("evaluate"))
    content = json.loads((folder / "manifest.json").read_bytes())
    content["files"]["values.json"]["size"] = size
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(Damaged):
        store.read("evaluate", "a" * 64, "values.json")
    assert not store.has("evaluate", "a" * 64)


@pytest.mark.slow
def test_wrong_content_is_built_again_and_the_table_is_the_same(tmp_path):
    """Every kind of stage of a real run at once."""
    trial = Trial(tmp_path)
    assert trial.run() == 0, (tmp_path / "driver.txt").read_text()
    before, store = trial.table(), Store(tmp_path / "home")
    there = {}
    for path in sorted((store.root / "store").glob("*/*/*")):
        there.setdefault(path.parts[-3], []).append(path.name)
    odd = [("evaluate", 0, "values.json", b"null"), ("evaluate", 1, "values.json", b'{"values": {"": "x"}, "left_out": {}}'), ("sample", 0, "facts.json", b"[]"),
           ("sample", 1, "images.safetensors", b"junk"), ("features", 2, "seen.safetensors", tensors(x=NAN)), ("reference", 0, "facts.json", b"{}"),
           ("train", 0, "weights.safetensors", tensors(other=torch.zeros(2))), ("throughput", 0, "facts.json", b"{}")]
    for stage, i, name, data in odd:
        rewrite(store, stage, there[stage][i], name, data)
    for stage in ("features", "evaluate", "sample"):      # so that what was spoilt is read by other stages, too
        store.set_aside(stage, there[stage][-1])
    for picture in (tmp_path / "out" / "samples").glob("*.png"):
        picture.unlink()                                  # to be drawn again, from images that no stage reads any more
    for codes in ((0, 1), (0,)):                          # what only a picture is made of is set aside, which is told, and built by the next
        assert trial.run() in codes, (tmp_path / "driver.txt").read_text()
        assert trial.table() == before
    for stage, keys in there.items():
        for key in keys:
            contents.check_folder(stage, store.path(stage, key), 10**6)


@pytest.mark.slow
def test_rows_made_from_what_was_imported_say_so(tmp_path):
    trial = Trial(tmp_path / "a")
    assert trial.run() == 0
    export_run(tmp_path / "a" / "out", Store(tmp_path / "a" / "home"), tmp_path / "theirs.zip")
    other = Trial(tmp_path / "b")
    import_run(tmp_path / "theirs.zip", Store(tmp_path / "b" / "home"), tmp_path / "b" / "imported")
    assert other.run() == 0
    table = diffbench.load(tmp_path / "b" / "out")
    assert set(table["imported_from"]) == {"theirs.zip"} and table["reason"].str.contains("imported from theirs.zip").all()
    assert diffbench.load(tmp_path / "a" / "out")["imported_from"].isna().all()


@pytest.mark.parametrize(("data", "why"), [(b"[NaN]", "it holds NaN"), (b"[" * 100_000, "nested too deeply|it holds more than 1,000 values"), (b"[-Infinity]", "it holds -Infinity"),
                                           (b"[" + b"[]," * 2000 + b"[]]", "it holds more than 1,000 values"), (b"1" * 5000, "digits")])
def test_json_that_is_not_read(data, why):
    if why == "digits" and not hasattr(sys, "get_int_max_str_digits"):
        pytest.skip("this release of Python reads integers of any length")
    with pytest.raises(ValueError, match=why):
        shapes.parse(data, 1000)


def test_half_a_letter_becomes_one_that_can_be_written():
    assert shapes.parse(rb'{"a\udce9": ["\ud83d\ude00", "\uD800x"]}') == {"a�": ["😀", "�x"]}
