"""A bit flips, a file is cut: rebuilt or identical, never a changed read. 50 flips per kind of file; 200 with DIFFBENCH_FAULTS=long."""

import os
import random
from pathlib import Path

import pytest
from pandas.testing import assert_frame_equal

import diffbench
from diffbench.errors import Damaged
from diffbench.results.exporting import export_run
from diffbench.results.folder import RunFolder
from diffbench.results.importing import import_run
from diffbench.results.rows import CLOCKED
from diffbench.store.artefacts import IMPORTED, Store

FLIPS = 200 if os.environ.get("DIFFBENCH_FAULTS") == "long" else 50
MATRIX = {
    "diffbench": 1, "name": "small", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": ["film"], "scheduler": [{"ddim": {"steps": 2}}], "seed": [91]},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 12, "batch_size": 12}, "throughput": {"repeats": 3, "batch_size": 2},
    "metrics": ["fid", "class_accuracy"],
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, shared_folder):
    """(store, folder of results, rows) of a real run with every kind of stage that needs no guide.

    Run on the store of the whole session, where the classifiers are fitted once, and taken from there as one file: what rots here is ours.
    """
    folder, shared = tmp_path_factory.mktemp("run"), Store(shared_folder / "store")
    assert diffbench.run(MATRIX, out=folder / "first", device="cpu", store=shared).is_complete
    export_run(folder / "first", shared, folder / "run.zip")
    store = Store(folder / "home")
    import_run(folder / "run.zip", store, folder / "out")
    return store, folder / "out", diffbench.load(folder / "out")


pytestmark = pytest.mark.slow


def one_of_each(store):
    """{stage: key}."""
    return {path.parts[-3]: path.name for path in sorted((store.root / "store").glob("*/*/*"))}


def imported(rows):
    """Rows as a run says them whose artefacts came from elsewhere."""
    return rows.assign(reason=rows["reason"] + "; imported from run.zip", imported_from="run.zip")


def flipped(data, rng):
    bit = rng.randrange(len(data) * 8)
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_a_flipped_bit_in_any_file_of_any_stage_never_changes_what_is_read(finished):
    store, rng = finished[0], random.Random(0)
    assert set(one_of_each(store)) == {"classifier", "evaluate", "extractor", "features", "reference", "sample", "throughput", "train"}
    found, harmless = 0, 0
    for stage, key in one_of_each(store).items():
        folder = store.path(stage, key)
        whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != IMPORTED}
        for name in whole:
            for _ in range(FLIPS):
                (folder / name).write_bytes(flipped(whole[name], rng))
                try:
                    assert store.check(stage, key)
                    assert name == "manifest.json", "only what no checksum covers may pass: the white space of a manifest"
                    harmless += 1
                except Damaged as damaged:
                    found += 1
                    assert (damaged.stage, damaged.key) == (stage, key)
                    os.rename(max((store.root / "damaged").iterdir(), key=lambda p: p.stat().st_ctime_ns), folder)
                for other in whole.keys() - {"manifest.json"}:
                    try:
                        assert store.read(stage, key, other) == whole[other]
                    except Damaged:
                        assert name in (other, "manifest.json")
            (folder / name).write_bytes(whole[name])
        assert store.has(stage, key)
    assert found > 20 * FLIPS and harmless < found / 10


def test_a_manifest_cut_at_any_byte_is_found(finished):
    store = finished[0]
    key = one_of_each(store)["evaluate"]
    path = store.path("evaluate", key) / "manifest.json"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(Damaged):
            store.read("evaluate", key, "values.json")
    path.write_bytes(whole)
    assert store.has("evaluate", key)


def test_what_rotted_is_built_again_to_the_same_rows(finished, tmp_path):
    store, _, before = finished
    rng = random.Random(1)
    rotted = [(stage["name"], key) for key, stage in RunFolder(finished[1]).stages().items() if stage["name"] in ("train", "sample", "features", "evaluate")]
    for stage, key in rotted:
        path = store.path(stage, key) / rng.choice([p.name for p in store.path(stage, key).iterdir() if p.name not in ("manifest.json", IMPORTED)])
        path.write_bytes(flipped(path.read_bytes(), rng))
    again = diffbench.run(MATRIX, out=tmp_path / "again", device="cpu", store=store)
    assert again.stages_run == len(rotted) >= 5
    columns = [c for c in before if not CLOCKED.search(c)]
    assert_frame_equal(diffbench.load(tmp_path / "again")[columns], imported(before)[columns])
    assert len(list((store.root / "damaged").iterdir())) == len(rotted)


def test_a_run_goes_to_another_place_as_one_file_and_is_found_done_there(finished, tmp_path, monkeypatch):
    store, out, before = finished
    exported = export_run(out, store, tmp_path / "run.zip")
    assert not exported.missing and not exported.left_out and exported.artefacts == len(list((store.root / "store").glob("*/*/*")))
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "empty home"))
    there = tmp_path / "another folder" / "small"
    there.parent.mkdir()
    assert import_run(tmp_path / "run.zip", Store.default(), there).artefacts == exported.artefacts
    assert diffbench.load(there).equals(before)
    again = diffbench.run(MATRIX, out=there, device="cpu")
    assert again.stages_run == 0 and again.stages_found == exported.artefacts and again.is_complete
    assert_frame_equal(diffbench.load(there).drop(columns="started_at"), imported(before).drop(columns="started_at"))
    assert Path(there / "fid.md").read_text() == (out / "fid.md").read_text()
