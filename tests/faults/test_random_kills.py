"""SIGKILL at random moments, of the driver and of workers, until the run is done: never another table.

Ten kills; the long form, 200, is `DIFFBENCH_KILLS=200 pytest tests/faults/test_random_kills.py`.
"""

import contextlib
import os
import random
import signal
import time

import psutil
import pytest

from diffbench.testing.run_folder import check_run_folder
from tests.faults import harness
from tests.helpers import forking

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]        # a minute alone, several times that beside other tests
KILLS = int(os.environ.get("DIFFBENCH_KILLS", "10"))


def test_kills_at_random_moments_never_change_the_table(tmp_path):
    forking.server()                                      # its start is no part of a run
    calm = harness.Trial(tmp_path / "calm")
    began = time.monotonic()
    assert calm.run() == 0
    whole = time.monotonic() - began
    dice, killed = random.Random(0), 0
    number = 0
    while killed < KILLS:
        number += 1
        trial = harness.Trial(tmp_path / f"{number}")
        for _ in range(3):
            killed += kill_once(trial, dice.uniform(0, whole), dice.random() < 0.5)
        assert trial.run() == 0
        assert trial.table() == calm.table()
        assert check_run_folder(trial.folder / "out", trial.folder / "home") == []


def kill_once(trial, after, a_worker):
    """1 where something was killed while the run went on."""
    driver = trial.start()
    time.sleep(after)
    killed = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(driver.pid)
        for victim in (process.children() if a_worker else [process])[:1]:
            victim.send_signal(signal.SIGKILL)
            killed = 1
    harness.wait(driver, harness.LIMIT_SECONDS)
    return killed
