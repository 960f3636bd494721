"""Enumerated faults in a short form: one point of each kind in turn, each with one of the three faults. The long form is `python -m tests.faults.sweep`."""

import os

import pytest

from tests.faults import harness, sweep

pytestmark = pytest.mark.slow
POINTS = 24


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    reason = harness.can_trace()
    if reason:
        pytest.skip(reason)
    harness.preload()
    folder = tmp_path_factory.mktemp("faults")
    return folder, *sweep.undisturbed(folder)


def test_the_points_are_all_there(undisturbed):
    """A sweep over nothing would be green too."""
    _, _, points = undisturbed
    assert {role for role, *_ in points} == {"driver", "extractor", "reference", "train", "sample", "features", "evaluate", "throughput"}
    assert {"openat", "write", "fsync", "rename", "mkdir"} <= {call for _, call, *_ in points}
    assert len(points) > 300


def test_after_any_fault_the_same_line_again_gives_the_same_table(undisturbed):
    folder, table, points = undisturbed
    kinds = sweep.one_of_each(points)
    chosen = kinds[:: max(1, len(kinds) // POINTS)]
    found = []
    for i, what in enumerate(sweep.FAULTS):
        found += sweep.sweep(folder, chosen[i::3], table, jobs=len(os.sched_getaffinity(0)), faults=(what,))
    assert len(found) == len(chosen)
    assert [f for f in found if f["verdict"] != "equal"] == []
    assert any(f["first"] != 0 for f in found), "no fault did any harm: none was injected"


def test_the_sweep_finds_a_store_that_writes_in_place(undisturbed, monkeypatch, tmp_path):
    """The negative control: without staging and rename, a kill leaves something that is taken for whole."""
    _, table, points = undisturbed

    def in_place(path, data):
        path.write_bytes(data)
    monkeypatch.setattr("diffbench.results.write_atomically", in_place)
    point = next(p for p in points if p[0] == "driver" and p[1] == "write" and "/out/cells" in p[3])
    for when in range(point[2] - 8, point[2] + 9):        # how often the event log is written depends on the time a run takes
        trial = harness.Trial(tmp_path / f"control-{when}")
        trial.run(harness.Fault("driver", "write", when, "signal=KILL"))
        if any(not path.read_bytes().endswith(b"}") for path in (trial.folder / "out" / "cells").glob("*.json")):
            return
    pytest.fail("a record that is written in place would be there and empty at one of these points")
