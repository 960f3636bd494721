"""What no run names goes; what a run names, somebody works on or has just been written stays; a removal that is cut off leaves nothing half."""

import json
import os
import shutil
import socket
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from diffbench.cli.gc import command
from diffbench.errors import DiffbenchError
from diffbench.store import disk, garbage
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from diffbench.store.garbage import Forget, find_garbage, needs_of_runs, remove
from tests.faults.power_loss import Recorder, violations
from tests.helpers.runs import NAMES, make_run

DAY = 86400.0


def age(folder, seconds):
    then = time.time() - seconds
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then), follow_symlinks=False)


def gone(store, folder):
    """Deletes a run's folder, and its registration as `gc --forget` does."""
    shutil.rmtree(folder)
    for registration in (store.root / "runs").iterdir():
        if json.loads(registration.read_bytes())["folder"] == str(folder):
            registration.unlink()


def left(store):
    return {p.name for p in (store.root / "store").glob("*/*/*")}


def collect(store, working, older_than=3600.0, forget=()):
    return remove(store, find_garbage(store, working, older_than, Forget(folders=tuple(forget))), working)


def test_what_a_run_names_stays_until_its_folder_is_deleted_and_forgotten(store, tmp_path):
    first, second = make_run(store, tmp_path / "a", 1), make_run(store, tmp_path / "b", 2)
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == {*first.values(), *second.values()}
    shutil.rmtree(tmp_path / "a")
    assert not collect(store, tmp_path) and left(store) == {*first.values(), *second.values()}
    removed = collect(store, tmp_path, forget=[tmp_path / "a"])
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
    dry = CliRunner().invoke(command, ["--dry-run", "--forget-missing"], catch_exceptions=False).output
    assert sorted(p for p in store.root.rglob("*")) == before and f"forgotten: {tmp_path / 'a'} (matrix made)\n" in dry
    wet = CliRunner().invoke(command, ["--yes", "--forget-missing"], catch_exceptions=False).output
    freed = dry[dry.index("would free"):].replace("would free", "freed")
    assert wet == dry.replace("would free", "to remove:") + freed and not left(store)
    for name in NAMES:
        assert f"  {name}: 1, " in dry
    again = CliRunner().invoke(command, [], catch_exceptions=False).output
    assert len(keys) == 5 and "to remove: 0 B: there is nothing that no run names" in again


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
    gone(store, tmp_path / "a")
    assert not collect(store, tmp_path) and find_garbage(store, tmp_path).young == 5
    age(store.root, 2 * DAY)
    assert not collect(store, tmp_path, 7 * DAY)
    assert len(collect(store, tmp_path, DAY)) == 5
    with pytest.raises(DiffbenchError, match="younger than an hour is never removed"):
        find_garbage(store, tmp_path, 60.0)


def test_a_clock_that_is_set_back_removes_nothing(store, tmp_path, monkeypatch):
    make_run(store, tmp_path / "a")
    gone(store, tmp_path / "a")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - 30 * DAY)
    assert not collect(store, tmp_path)


def test_what_somebody_works_on_stays_and_void_claims_go(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    gone(store, tmp_path / "a")
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
    for path in (store.root / "staging" / "0123abcd-0123456789abcdef", store.partial("train", keys["train"]), store.partial("train", other), store.root / "attempts" / other / "01",
                 store.root / "attempts" / keys["train"] / "01", store.root / "trash" / "artefact-0123456789abcdef"):
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
    gone(store, tmp_path / "a")
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
    (missing,) = needs_of_runs(store, tmp_path, Forget(missing=True)).missing
    assert str(missing) == "/nowhere/a on node7 (matrix made)" and socket.gethostname() != "node7"
    assert len(collect(store, tmp_path, forget=[Path("/nowhere/a")])) == 5


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
    gone(store, tmp_path / "a")
    age(store.root, DAY)
    found = find_garbage(store, tmp_path)
    assert len(found.items) == 5
    make_run(store, tmp_path / "b")                       # the same stages: all there already
    assert not remove(store, found, tmp_path) and left(store) == set(keys.values())


def test_two_at_once_are_no_harm(store, tmp_path):
    make_run(store, tmp_path / "a")
    gone(store, tmp_path / "a")
    age(store.root, DAY)
    one, other = find_garbage(store, tmp_path), find_garbage(store, tmp_path)
    assert len(remove(store, one, tmp_path)) == 5 and not remove(store, other, tmp_path)


@pytest.mark.parametrize("is_flushed", [True, False])
def test_a_power_cut_leaves_no_half_artefact_in_place(tmp_path, monkeypatch, is_flushed):
    """Not even one that would be found damaged. Without the flush between moving and deleting it would be there."""
    (tmp_path / "disk").mkdir()
    store = Store(tmp_path / "disk" / "home")
    recorder = Recorder(tmp_path / "disk", disk.Disk())
    with monkeypatch.context() as patch:
        patch.setattr(disk, "disk", recorder)
        patch.setattr(garbage, "YOUNGEST_SECONDS", 0.0)
        keys = make_run(store, tmp_path / "a", names=("train",))
        recorder.say("published")
        start = len(recorder.log)
        gone(store, tmp_path / "a")
        assert len(collect(store, tmp_path, 0.0)) == 1
    log = [o for i, o in enumerate(recorder.log) if is_flushed or i < start or o[0] != "flush_folder"]

    def check(place, said):
        folder = Store(place / "home").path("train", keys["train"])
        assert "published" not in said or not folder.exists() or len(os.listdir(folder)) == 5, "half an artefact in place"
    assert bool(violations(log, check, tmp_path / "states")[1]) != is_flushed


def test_nothing_is_removed_without_a_yes(store, tmp_path, monkeypatch):
    make_run(store, tmp_path / "a")
    gone(store, tmp_path / "a")
    age(store.root, DAY)
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DiffbenchError, match="nothing is removed without being asked, and there is no terminal to ask on: give --yes"):
        CliRunner().invoke(command, [], catch_exceptions=False)
    assert len(left(store)) == 5
    monkeypatch.setattr("diffbench.cli.gc.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    assert "nothing was removed" in CliRunner().invoke(command, [], input="n\n", catch_exceptions=False).output and len(left(store)) == 5
    assert "freed" in CliRunner().invoke(command, [], input="y\n", catch_exceptions=False).output and not left(store)


def test_what_may_be_forgotten(store, tmp_path):
    make_run(store, tmp_path / "a")
    with pytest.raises(DiffbenchError, match="--forget .*: the run is there; delete its folder first"):
        find_garbage(store, tmp_path, forget=Forget(folders=(tmp_path / "a",)))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(DiffbenchError, match=f"no run is registered there; those that are not to be seen: {tmp_path / 'a'}"):
        find_garbage(store, tmp_path, forget=Forget(folders=(tmp_path / "b",)))


def test_a_store_among_other_things_leaves_them_alone(tmp_path):
    """DIFFBENCH_HOME=. in a folder that has a staging/ or a trash/ of its own."""
    store = Store(tmp_path)
    make_run(store, tmp_path / "a")
    for kind in ("staging", "trash", "damaged"):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / "thesis-2").write_text("mine")
    age(tmp_path, DAY)
    assert not collect(store, tmp_path / "elsewhere")
    assert all((tmp_path / kind / "thesis-2").read_text() == "mine" for kind in ("staging", "trash", "damaged"))
    assert sum("is nothing that a store has" in line for line in find_garbage(store, tmp_path / "elsewhere").strange) == 3
