"""SIGKILL at random moments, of the driver and of workers, until the run is done: never another table.

Ten kills; the long form, 200, is `DIFFBENCH_KILLS=200 pytest tests/faults/test_random_kills.py`.
"""

import os
import random
import signal
import time

import psutil
import pytest

from diffbench.testing.run_folder import check_run_folder
from tests.faults import harness

pytestmark = pytest.mark.slow
KILLS = int(os.environ.get("DIFFBENCH_KILLS", "10"))


def test_kills_at_random_moments_never_change_the_table(tmp_path):
    harness.preload()
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
    pid = os.fork()
    if pid == 0:
        try:
            trial.run()
        finally:
            os._exit(0)
    time.sleep(after)
    driver = next(iter(psutil.Process(pid).children()), None) if psutil.pid_exists(pid) else None
    victims = [] if driver is None else driver.children() if a_worker else [driver]
    for victim in victims[:1]:
        victim.send_signal(signal.SIGKILL)
    os.waitpid(pid, 0)
    return len(victims[:1])
