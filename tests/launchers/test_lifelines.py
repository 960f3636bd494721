"""What a worker leaves behind is found and ended, in a session of its own too."""

import json
import os
import subprocess
import sys

import pytest

from diffbench.process import worker_settings
from diffbench.stages import worker

LEAVES = """
import os, subprocess, sys
from diffbench.launchers.lifelines import adopt_orphans, end_orphans
adopt_orphans()
known = subprocess.Popen(["sleep", "600"])
left = int(subprocess.run(["sh", "-c", "setsid sh -c 'echo $$; exec sleep 600 >&-' &"], stdout=subprocess.PIPE, text=True).stdout)
end_orphans({known.pid})
os.waitpid(left, 0)                                       # it has become a child of this process, and has ended
print(known.poll())
end_orphans()
print(known.wait())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone gives orphans to a process that asks for them")
def test_orphans_in_a_session_of_their_own_are_ended_and_known_children_are_not():
    done = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True)
    assert done.stdout == "None\n-9\n", done.stderr


def test_a_worker_that_waits_says_for_whom_until_it_has_its_device(tmp_path):
    path = tmp_path / "waiting.json"
    waiting = worker._Waiting(path, "cpu")
    waiting.over()
    waiting("throughput of RUN, pid 7")
    waiting("train of OTHER, pid 8")
    facts = json.loads(path.read_bytes())
    assert facts == {"for": "train of OTHER, pid 8", "device": "cpu", "since": waiting.since}
    waiting.over()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("own", "waits", "memory"), [
    ({}, "passively", "kept"), ({"OMP_WAIT_POLICY": "active"}, "OMP_WAIT_POLICY=active", "kept"), ({"KMP_BLOCKTIME": "200"}, "KMP_BLOCKTIME=200", "kept"),
    ({"MALLOC_TRIM_THRESHOLD_": "4096"}, "passively", "as MALLOC_TRIM_THRESHOLD_ says"),
    ({"GLIBC_TUNABLES": "glibc.malloc.tcache_count=7"}, "passively", "as GLIBC_TUNABLES says")])
def test_what_the_user_has_set_stays(monkeypatch, own, waits, memory):
    environment = {name: value for name, value in os.environ.items() if name not in (*worker_settings.PASSIVE, *worker_settings.ALLOCATOR, "GLIBC_TUNABLES")}
    monkeypatch.setattr(os, "environ", environment | own)
    monkeypatch.setattr(worker_settings, "_memory", "as the allocator does")
    monkeypatch.setattr(worker_settings, "_keep_freed_memory", lambda: True)
    worker_settings.prepare()
    assert worker_settings.facts() == {"threads_wait": waits, "freed_memory": memory}
    monkeypatch.setattr(worker_settings, "_keep_freed_memory", lambda: False)             # another C library
    monkeypatch.setattr(worker_settings, "_memory", "as the allocator does")
    monkeypatch.setattr(os, "environ", dict(environment))
    worker_settings.prepare()
    assert worker_settings.facts() == {"threads_wait": "passively", "freed_memory": "as the allocator does"}


LOOP = """
from pathlib import Path
from diffbench.process import worker_settings
worker_settings.prepare()
import torch
kept = []
for i in range(20):
    large = torch.ones(8 << 20, dtype=torch.float64)           # 64 MiB, gone with the next
    del large
    kept.append(torch.ones((1 << 16) + i))                     # small ones that stay lie where it lay
peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(worker_settings.facts()["freed_memory"], peak)            # of this process: getrusage counts what the one that spawned it held
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the setting is of glibc's allocator")
def test_a_loop_over_large_blocks_holds_one_at_a_time():
    environment = {name: value for name, value in os.environ.items() if name not in (*worker_settings.ALLOCATOR, "GLIBC_TUNABLES")}
    done = subprocess.run([sys.executable, "-c", LOOP], env=environment, capture_output=True, text=True, check=True)
    kept, kilobytes = done.stdout.split()
    assert int(kilobytes) < 900 * 1024, f"memory is {kept}: 20 blocks of 64 MiB in turns took {int(kilobytes) / 1024:.0f} MiB in all"
