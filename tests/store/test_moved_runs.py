"""Runs that were moved or copied are known again by whatever opens them, and keep what they need."""

import shutil

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.cli import cli
from diffbench.store import disk, registrations
from diffbench.store.garbage import needs_of_runs
from tests.helpers.runs import make_run
from tests.store.test_garbage import DAY, age, collect, left


def test_a_run_that_was_moved_is_known_again_by_whatever_opens_it(store, tmp_path, monkeypatch):
    keys = make_run(store, tmp_path / "runs" / "a")
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    (tmp_path / "archive").mkdir()
    (tmp_path / "runs" / "a").rename(tmp_path / "archive" / "a-2026")
    age(store.root, DAY)
    assert not collect(store, tmp_path)
    assert [one.folder for one in needs_of_runs(store, tmp_path).missing] == [tmp_path / "runs" / "a"]
    diffbench.load(tmp_path / "archive" / "a-2026")
    named = needs_of_runs(store, tmp_path)
    assert list(named.runs) == [tmp_path / "archive" / "a-2026"] and not named.missing and not named.forgotten
    assert not collect(store, tmp_path) and left(store) == set(keys.values())
    (registration,) = (store.root / "runs").iterdir()
    assert registrations.read(registration).matrix == "made"


@pytest.mark.parametrize("command", [["export", "{run}", "--to", "{run}.zip"], ["watch", "--once", "{run}"], ["compare", "{run}", "a", "b"],
                                     ["report", "{run}"]], ids=lambda words: words[0])
def test_each_command_finds_a_moved_run_again(store, tmp_path, monkeypatch, command):
    make_run(store, tmp_path / "a")
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b" / "events").mkdir()
    (tmp_path / "b" / "events" / "x.jsonl").write_text("")
    for name in ("columns.json", "environment.json"):
        (tmp_path / "b" / name).write_text("{}")
    CliRunner().invoke(cli, [word.format(run=tmp_path / "b") for word in command])
    assert tmp_path / "b" in needs_of_runs(store, tmp_path).runs


def test_a_copy_keeps_what_the_original_needed_and_a_new_run_in_its_place_does_too(store, tmp_path):
    first = make_run(store, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "copy")
    store.found_again(tmp_path / "copy")
    shutil.rmtree(tmp_path / "a")
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == set(first.values())
    second = make_run(store, tmp_path / "copy", seed=7)   # another matrix in the same folder: the earlier one is not forgotten
    age(store.root, DAY)
    assert not collect(store, tmp_path) and left(store) == {*first.values(), *second.values()}


def test_a_store_that_cannot_be_written_holds_up_nobody_who_looks(store, tmp_path, monkeypatch):
    make_run(store, tmp_path / "a")
    monkeypatch.setenv("DIFFBENCH_HOME", str(store.root))
    (tmp_path / "a").rename(tmp_path / "b")

    def refuse(*_):
        raise PermissionError(13, "read-only")
    monkeypatch.setattr(disk.disk, "create", refuse)
    assert len(diffbench.load(tmp_path / "b")) == 1
    (registration,) = (store.root / "runs").iterdir()
    registration.write_text("{")
    assert len(diffbench.load(tmp_path / "b")) == 1
