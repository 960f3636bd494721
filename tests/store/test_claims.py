"""Claims: one at a time, void when those who held them are gone, and never by anybody's clock."""

import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from diffbench.store import claims
from diffbench.store.claims import Claims


def test_one_of_many_gets_a_claim_and_the_others_are_told_who(tmp_path):
    everyone = [Claims() for _ in range(8)]
    for round_ in range(20):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda c, n=round_: c.take(tmp_path / "claims" / str(n)), everyone))
        assert sum(a is None for a in answers) == 1
        assert {a.pid for a in answers if a} == {os.getpid()}
    for each in everyone:
        each.close()
    assert not list((tmp_path / "claims").iterdir()), "nothing is left, hidden or not"


def hold(folder, ready):
    Claims().take(folder)
    ready.set()
    time.sleep(60)


@pytest.mark.skipif(not claims.table.place(), reason="needs /proc to tell the dead from the living")
def test_the_claim_of_a_process_that_was_killed_is_free_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "key", ready))
    process.start()
    assert ready.wait(10)
    mine = Claims()
    assert mine.take(tmp_path / "key").pid == process.pid
    process.kill()
    process.join()
    assert mine.take(tmp_path / "key") is None
    mine.close()


def elsewhere(folder):
    """A claim as a process of another machine would leave it."""
    folder.mkdir(parents=True)
    (folder / "owner.json").write_text(json.dumps({"token": "t", "host": "far", "pid": 1, "since": "once", "place": "another boot", "start": "5"}))


def test_a_claim_of_another_machine_is_void_when_it_has_been_still_for_a_lease_of_our_own_clock(tmp_path, monkeypatch):
    elsewhere(tmp_path / "key")
    now = [1000.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(claims.time, "time", lambda: -1e9)                       # a wall clock set back says nothing
    mine = Claims()
    assert mine.take(tmp_path / "key").host == "far"
    now[0] += claims.LEASE_SECONDS - 1
    assert mine.take(tmp_path / "key").host == "far"
    claims.beat(tmp_path / "key", "t")                                           # it lives
    now[0] += 2
    assert mine.take(tmp_path / "key").host == "far"
    now[0] += claims.LEASE_SECONDS
    assert mine.take(tmp_path / "key") is None
    assert claims._token(tmp_path / "key") == mine.token(tmp_path / "key")
    mine.close()


def test_a_folder_without_an_owner_is_void_after_a_lease_too(tmp_path, monkeypatch):
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "beat").write_text("x")
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    mine = Claims()
    assert mine.take(tmp_path / "key").host == "?"
    now[0] += claims.LEASE_SECONDS
    assert mine.take(tmp_path / "key") is None
    mine.close()


def test_what_was_taken_over_is_neither_released_nor_kept_alive_by_its_old_owner(tmp_path):
    old, folder = Claims(), tmp_path / "key"
    old.take(folder)
    token = old.token(folder)
    claims._remove(folder, token)
    elsewhere(folder)
    claims.beat(folder, token)
    assert not (folder / "beat").exists()
    assert not claims.join(folder, token)
    old.close()
    assert claims._token(folder) == "t"


def test_a_living_claim_that_was_mistaken_for_a_void_one_is_put_back(tmp_path):
    folder = tmp_path / "key"
    elsewhere(folder)
    claims._remove(folder, "the token that was read before")
    assert claims._token(folder) == "t"


def test_a_worker_keeps_the_claim_of_a_driver_that_is_gone(tmp_path):
    """A job in a cluster's queue outlives the run that submitted it."""
    folder = tmp_path / "key"
    elsewhere(folder)
    gone = {"token": "t", "host": "here", "pid": 2**22 + 1, "since": "once", "place": claims.table.place(),
            "start": "5"}
    (folder / "owner.json").write_text(json.dumps(gone))
    assert claims.join(folder, "t")
    mine = Claims()
    holder = mine.take(folder)
    assert holder is not None and holder.pid == gone["pid"], "this process stands in it and lives"
    mine.close()


def test_what_a_killed_process_left_beside_claims_is_swept_and_the_rest_is_not(tmp_path):
    mine = claims._aside(tmp_path)
    dead = mine.with_name(mine.name.replace(f"-{os.getpid()}-", "-4194305-"))
    far = mine.with_name(mine.name.replace(claims._short(claims.table.place()), "00000000"))
    for folder in (mine, dead, far):
        folder.mkdir()
    claims.sweep(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, far])


def test_a_claim_that_was_deleted_is_no_longer_held(tmp_path):
    mine, other = Claims(), Claims()
    mine.take(tmp_path / "key")
    assert mine.holds(tmp_path / "key")
    claims._remove(tmp_path / "key", mine.token(tmp_path / "key"))
    assert other.take(tmp_path / "key") is None and not mine.holds(tmp_path / "key")
    mine.close()
    assert other.holds(tmp_path / "key")
    other.close()
