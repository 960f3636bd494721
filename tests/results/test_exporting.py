"""A run as one file: it comes back as it was."""

import os

import pytest
from click.testing import CliRunner

from diffbench.cli import cli
from diffbench.errors import Damaged, DiffbenchError
from diffbench.results.exporting import export_run
from diffbench.results.importing import import_run
from diffbench.store import disk
from diffbench.store.artefacts import Store
from diffbench.watching.event_log import EventLog
from tests.faults.power_loss import Recorder, violations
from tests.helpers.runs import files, make_run


def test_the_event_log_of_a_real_run_goes_with_it(archived, tmp_path):
    store, run, keys, archive = archived
    with EventLog(run) as log:
        log.note("a remark")
    (log_file,) = run.glob("events/*.jsonl")
    assert export_run(run, store, tmp_path / "with log.zip").left_out == []
    done = import_run(tmp_path / "with log.zip", Store(tmp_path / "third home"), tmp_path / "third")
    assert (done.folder / "events" / log_file.name).read_bytes() == log_file.read_bytes() and b"a remark" in log_file.read_bytes()


def test_it_comes_back_as_it_was(archived, tmp_path):
    store, run, keys, archive = archived
    other = Store(tmp_path / "other home")
    done = import_run(archive, other, tmp_path / "elsewhere" / "run")
    assert (done.artefacts, done.found, done.results_found) == (5, 0, False)
    assert files(done.folder) == files(run)
    for stage, key in keys.items():
        assert other.has(stage, key) and other.imported_from(stage, key) == "run.zip" and store.imported_from(stage, key) is None
        assert files(other.path(stage, key)) == files(store.path(stage, key)) | {"imported.json": b'{"file": "run.zip"}'}
    assert not list((other.root / "staging").iterdir()) and not list(done.folder.parent.glob(".*"))
    assert len(list((other.root / "runs").iterdir())) == 1, "gc keeps what was imported"


def test_twice_is_harmless_and_what_is_there_stays(archived, tmp_path):
    store, run, keys, archive = archived
    before = store.path("train", keys["train"]).stat().st_ino
    done = import_run(archive, store, run)
    assert (done.artefacts, done.found, done.results_found) == (0, 5, True)
    assert store.path("train", keys["train"]).stat().st_ino == before


def test_a_damaged_artefact_is_replaced_by_the_archives(archived):
    store, run, keys, archive = archived
    (store.path("train", keys["train"]) / "facts.json").write_text("{}")
    assert import_run(archive, store, run).artefacts == 1
    assert store.read_json("train", keys["train"], "facts.json")["train_loss"] == 0.125


def test_results_only(archived, tmp_path):
    store, run, keys, _ = archived
    export_run(run, store, tmp_path / "results.zip", results_only=True)
    done = import_run(tmp_path / "results.zip", Store(tmp_path / "other"), tmp_path / "there")
    assert (done.artefacts, done.found) == (0, 0) and files(done.folder) == files(run)


def test_the_same_run_gives_the_same_bytes_and_no_name_is_overwritten(archived, tmp_path):
    store, run, _, archive = archived
    export_run(run, store, tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == archive.read_bytes()
    with pytest.raises(DiffbenchError, match="already"):
        export_run(run, store, archive)


def test_what_is_not_a_runs_is_left_out(archived, tmp_path):
    store, run, _, _ = archived
    (tmp_path / "secret.json").write_text("{}")
    (run / "linked.json").symlink_to(tmp_path / "secret.json")
    (run / "notes.exe").write_text("x")
    (run / "report.html").write_text("made anew by whoever imports it")
    (run / ".run").mkdir()
    result = export_run(run, store, tmp_path / "b.zip")
    assert sorted(result.left_out) == ["linked.json", "notes.exe"]
    assert import_run(tmp_path / "b.zip", Store(tmp_path / "other"), tmp_path / "there").artefacts == 5


def test_stages_that_are_not_done_are_said_and_damaged_ones_refused(archived, tmp_path):
    store, run, keys, _ = archived
    store.set_aside("evaluate", keys["evaluate"])
    assert export_run(run, store, tmp_path / "b.zip").missing == [f"evaluate {keys['evaluate']}"]
    (store.path("train", keys["train"]) / "facts.json").write_text("{}")
    with pytest.raises(Damaged):
        export_run(run, store, tmp_path / "c.zip")
    assert not list(tmp_path.glob("*c.zip*"))
    with pytest.raises(DiffbenchError, match="plan.json is not there: give the folder of a run"):
        export_run(tmp_path / "nowhere", store, tmp_path / "d.zip")


def test_a_folder_with_something_else_in_it_is_left_alone(archived, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "thesis.tex").write_text("x")
    with pytest.raises(DiffbenchError, match="holds something else"):
        import_run(archived[3], Store(tmp_path / "other"), tmp_path / "there")
    assert os.listdir(tmp_path / "there") == ["thesis.tex"] and not list((tmp_path / "other" / "store").rglob("*"))


def test_from_the_command_line(archived, tmp_path, monkeypatch):
    store, run, keys, _ = archived
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    store.set_aside("evaluate", keys["evaluate"])
    said = CliRunner().invoke(cli, ["export", str(run), "--to", str(tmp_path / "b.zip")], catch_exceptions=False).output
    assert "5 files of results, 4 artefacts" in said and "1 stages of the plan are not done" in said
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "other"))
    for first, known in ((4, 0), (0, 4)):
        said = CliRunner().invoke(cli, ["import", str(tmp_path / "b.zip"), "--out", str(tmp_path / "there")], catch_exceptions=False).output
        assert f"{first} artefacts new in the store, {known} found there already" in said
    assert files(tmp_path / "there") == files(run)


def test_half_an_import_is_never_taken_for_whole(tmp_path, monkeypatch):
    """A power cut at any moment: what is visible is whole, and the results come last."""
    source = Store(tmp_path / "home")
    keys = make_run(source, tmp_path / "made", names=("train", "sample"))
    export_run(tmp_path / "made", source, tmp_path / "run.zip")
    (tmp_path / "disk").mkdir()
    recorder = Recorder(tmp_path / "disk", disk.Disk())
    with monkeypatch.context() as patch:
        patch.setattr(disk, "disk", recorder)
        Store(tmp_path / "disk" / "home").prepare()
        import_run(tmp_path / "run.zip", Store(tmp_path / "disk" / "home"), tmp_path / "disk" / "there")
        recorder.say("done")

    def check(place, said):
        store = Store(place / "home")
        there = [store.has(stage, key) for stage, key in keys.items()]
        assert not any(store.path(stage, key).exists() for stage, key in keys.items()) or not (store.root / "damaged").exists(), "half an artefact"
        is_visible = (place / "there").exists()
        assert not is_visible or (all(there) and files(place / "there") == files(tmp_path / "made")), "results without what they need"
        assert is_visible or "done" not in said
    count, found = violations(recorder.log, check, tmp_path / "states")
    assert not found and count > 50
