"""Enumerated faults in a short form: one point of each kind in turn, each with one of the three faults. The long form is `python -m tests.faults.sweep`."""

import os

import pytest

from diffbench.results import rows
from tests.faults import harness, sweep

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]        # 100 s alone on two cores, several times that beside other tests
POINTS = 12


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    reason = harness.can_trace()
    if reason:
        pytest.skip(reason)
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


def write_in_place():
    def in_place(path, data):
        path.write_bytes(data)
    rows.write_atomically = in_place


def test_the_sweep_finds_a_store_that_writes_in_place(undisturbed, tmp_path):
    """The negative control: without staging and rename, a kill leaves something that is taken for whole."""
    folder, _, _ = undisturbed
    record = min(path.name for path in (folder / "undisturbed" / "out" / "cells").glob("*.json"))
    trial = harness.Trial(tmp_path / "control")
    path = trial.folder / "out" / "cells" / record
    trial.run(harness.Fault("driver", "write", 1, "signal=KILL", path), before=write_in_place)
    assert path.read_bytes() == b"", "a record that is written in place is there and empty when its write is killed"
