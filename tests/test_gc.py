"""What no run names goes; what a run names, somebody works on or has just been written stays; a removal that is cut off leaves nothing half."""

import json
import os
import shutil
import socket
import time

import pytest
from click.testing import CliRunner

from diffbench import durable, garbage
from diffbench.claims import Claims
from diffbench.cli.gc import command
from diffbench.errors import DiffbenchError
from diffbench.garbage import find_garbage, named_by_runs, remove
from diffbench.store import Store
from tests.faults.power_loss import Recorder, violations
from tests.runs import NAMES, make_run

DAY = 86400.0


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "home")


def age(folder, seconds):
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


def left(store):
    return {p.name for p in (store.root / "store").glob("*/*/*")}


def collect(store, working, older_than=3600.0):
    return remove(store, find_garbage(store, working, older_than), working)


def test_what_a_run_names_stays_and_goes_with_its_folder(store, tmp_path):
    first, second = make_run(store, tmp_path / "a", 1), make_run(store, tmp_path / "b", 2)
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == {*first.values(), *second.values()}
    shutil.rmtree(tmp_path / "a")
    removed = collect(store, tmp_path)
    assert {item.key for item, _ in removed} == set(first.values()) and left(store) == set(second.values())
    assert all(size > 200 for _, size in removed)
    assert len(list((store.root / "runs").iterdir())) == 1 and not list((store.root / "trash").iterdir())
    assert all(store.has(stage, key) for stage, key in second.items())


def test_a_dry_run_says_the_same_and_removes_nothing(store, tmp_path, monkeypatch):
    keys = make_run(store, tmp_path / "a")
    age(store.root, DAY)
    shutil.rmtree(tmp_path / "a")
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    monkeypatch.chdir(tmp_path)
    before = sorted(p for p in store.root.rglob("*"))
    dry = CliRunner().invoke(command, ["--dry-run"], catch_exceptions=False).output
    assert sorted(p for p in store.root.rglob("*")) == before
    wet = CliRunner().invoke(command, [], catch_exceptions=False).output
    assert wet == dry.replace("would free", "freed") and not left(store)
    for name in NAMES:
        assert f"  {name}: 1, " in dry
    assert len(keys) == 5 and "freed 0 B: there is nothing that no run names" in CliRunner().invoke(command, [], catch_exceptions=False).output


def test_ancestors_stay_also_where_the_plan_names_the_last_stage_only(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    (tmp_path / "a" / "plan.json").write_text(json.dumps({"stages": {keys["evaluate"]: {"name": "evaluate", "parents": {}}}}))
    store.register_run(tmp_path / "a", [])
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == set(keys.values())


def test_a_run_in_the_working_folder_need_not_be_registered(store, tmp_path):
    keys = make_run(store, tmp_path / "runs" / "a")
    for registration in (store.root / "runs").iterdir():
        registration.unlink()
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == set(keys.values())
    assert len(collect(store, tmp_path / "elsewhere")) == 5


def test_what_is_young_stays(store, tmp_path):
    make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    assert not collect(store, tmp_path) and find_garbage(store, tmp_path).young == 5
    age(store.root, 2 * DAY)
    assert not collect(store, tmp_path, 7 * DAY)
    assert len(collect(store, tmp_path, DAY)) == 5
    with pytest.raises(DiffbenchError, match="younger than an hour is never removed"):
        find_garbage(store, tmp_path, 60.0)


def test_a_clock_that_is_set_back_removes_nothing(store, tmp_path, monkeypatch):
    make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 30 * DAY)
    assert not collect(store, tmp_path)


def test_what_somebody_works_on_stays_and_void_claims_go(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    (store.partial("train", keys["train"])).mkdir(parents=True)
    age(store.root, DAY)
    claims = Claims()
    assert claims.take(store.claim(keys["train"])) is None
    void = store.claim(keys["sample"])
    shutil.copytree(store.claim(keys["train"]), void)
    owner = json.loads((void / "owner.json").read_bytes())
    (void / "owner.json").write_text(json.dumps({**owner, "start": "1"}))        # a process of this number that is no more
    collect(store, tmp_path)
    assert left(store) == {keys["train"]} and store.partial("train", keys["train"]).exists()
    assert store.claim(keys["train"]).exists() and not void.exists()
    claims.close()
    assert {item.kind for item, _ in collect(store, tmp_path)} == {"artefact", "partial"}


def test_leftovers_go_and_logs_of_what_is_named_stay(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    other = "f" * 64
    for path in (store.root / "staging" / "abc-1", store.partial("train", keys["train"]), store.partial("train", other), store.root / "attempts" / other / "01",
                 store.root / "attempts" / keys["train"] / "01", store.root / "trash" / "x"):
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    make_run(store, tmp_path / "a")
    store.set_aside("evaluate", keys["evaluate"])
    waiting = store.partial("evaluate", keys["evaluate"])                        # not done, and named: the next try goes on from here
    waiting.mkdir(parents=True)
    age(store.root, DAY)
    removed = sorted(item.kind for item, _ in collect(store, tmp_path))
    assert removed == ["attempts", "damaged", "partial", "partial", "staging", "trash"]
    assert waiting.exists() and (store.root / "attempts" / keys["train"] / "01" / "file").exists()
    assert not list((store.root / "staging").iterdir()) and not list((store.root / "trash").iterdir())


def test_links_are_neither_followed_nor_touched(store, tmp_path):
    make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    outside = tmp_path / "precious"
    (outside / "ab" / ("a" * 64)).mkdir(parents=True)
    (outside / "ab" / ("a" * 64) / "file").write_text("x")
    (store.root / "store" / "linked").symlink_to(outside)
    (store.root / "staging" / "linked").symlink_to(outside)
    inside = next((store.root / "store" / "train").glob("*/*"))
    (inside / "linked").symlink_to(outside)
    age(store.root, DAY)
    age(outside, DAY)
    assert len(collect(store, tmp_path)) == 5
    assert (outside / "ab" / ("a" * 64) / "file").read_text() == "x"
    assert (store.root / "store" / "linked").is_symlink()
    assert any("is a link" in line for line in find_garbage(store, tmp_path).strange)


def test_a_run_on_another_machine_that_cannot_be_seen_keeps_what_it_needs(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    (registration,) = (store.root / "runs").iterdir()
    registration.write_text(json.dumps({**json.loads(registration.read_bytes()), "host": "node7", "folder": "/nowhere/a"}))
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == set(keys.values())
    (note,) = named_by_runs(store, tmp_path).notes
    assert "on node7 cannot be seen from here" in note and str(registration) in note
    assert socket.gethostname() != "node7"


def test_a_registration_that_cannot_be_read_stops_everything(store, tmp_path):
    make_run(store, tmp_path / "a")
    (registration,) = (store.root / "runs").iterdir()
    registration.write_bytes(registration.read_bytes()[:-9])
    age(store.root, DAY)
    with pytest.raises(DiffbenchError, match="not known what its run needs"):
        collect(store, tmp_path)
    assert len(left(store)) == 5


def test_a_run_that_begins_meanwhile_keeps_what_it_names(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    age(store.root, DAY)
    found = find_garbage(store, tmp_path)
    assert len(found.items) == 5
    make_run(store, tmp_path / "b")                       # the same stages: all there already
    assert not remove(store, found, tmp_path) and left(store) == set(keys.values())


def test_two_at_once_are_no_harm(store, tmp_path):
    make_run(store, tmp_path / "a")
    shutil.rmtree(tmp_path / "a")
    age(store.root, DAY)
    one, other = find_garbage(store, tmp_path), find_garbage(store, tmp_path)
    assert len(remove(store, one, tmp_path)) == 5 and not remove(store, other, tmp_path)


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_power_cut_leaves_no_half_artefact_in_place(tmp_path, monkeypatch, is_flushed):
    """Not even one that would be found damaged. Without the flush between moving and deleting it would be there."""
    (tmp_path / "disk").mkdir()
    store = Store(tmp_path / "disk" / "home")
    recorder = Recorder(tmp_path / "disk", durable.Disk())
    with monkeypatch.context() as patch:
        patch.setattr(durable, "disk", recorder)
        patch.setattr(garbage, "YOUNGEST_SECONDS", 0.0)
        keys = make_run(store, tmp_path / "a", names=("train",))
        recorder.say("published")
        start = len(recorder.log)
        shutil.rmtree(tmp_path / "a")
        assert len(collect(store, tmp_path, 0.0)) == 1
    log = [o for i, o in enumerate(recorder.log) if is_flushed or i < start or o[0] != "flush_folder"]

    def check(place, said):
        folder = Store(place / "home").path("train", keys["train"])
        assert "published" not in said or not folder.exists() or len(os.listdir(folder)) == 5, "half an artefact in place"
    assert bool(violations(log, check, tmp_path / "states")[1]) != is_flushed
