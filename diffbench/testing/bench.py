"""A bench for launchers: starts workers that do exercises, and drivers that can be killed, and tells what became of them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffbench.claims import Claims
from diffbench.launchers import Capacity, Ended, Job, Launcher, Resources
from diffbench.planning import Stage
from diffbench.store import Store
from diffbench.testing.driving import PLUGIN, exercise, make

PATIENCE = 120.0                      # seconds any one thing may take on a busy machine
SLOTS = 4


@dataclass
class Bench:
    """One launcher at work, and what the checks need of it."""

    factory: str                      # "module:function"
    folder: Path
    gpus: int = 0                     # GPUs the launcher believes to have, real or not; with none, pinning is not checked
    many: int = 100                   # trivial jobs in `many_jobs_keep_to_the_slots`
    outlives_driver: bool = False     # its workers go on when the driver is killed, as jobs of a queue do
    submitted: dict[str, Stage] = field(default_factory=dict)
    files: int = 0

    def __enter__(self) -> Bench:
        self.store, self.claims, self.open = Store(self.folder / "home"), Claims(), None
        self.store.prepare()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self.claims.close()

    @property
    def launcher(self) -> Launcher:
        """The launcher, opened when it is first used, and asked for its capacity."""
        if self.open is None:
            self.open = make(self.factory)
            self.offered = self.open.capacity("cpu", SLOTS, SLOTS)
        return self.open

    @property
    def capacity(self) -> Capacity:
        """What the launcher has for SLOTS jobs at once."""
        assert self.launcher is not None, "asking for it opens it"
        return self.offered

    def close(self) -> None:
        if self.open is not None:
            self.open.close()
            self.open = None

    def submit(self, do: str, *, device: str = "cpu", gpus: float = 0.0, threads: int = 1, exclusive: bool = False, **details: Any) -> Job:
        """A worker that does an exercise."""
        launcher, stage = self.launcher, exercise(f"{do} {len(self.submitted)}", do, **details)
        claim = self.store.claim(stage.key)
        assert self.claims.take(claim) is None
        execution = {"device": "cpu", "threads": threads, "memory_share": 1.0, "is_deterministic": False, "plugins": [PLUGIN],
                     "claim": self.claims.token(claim), "exclusive": False}
        job = Job(id=stage.key, store=self.store.root, attempt=self.store.new_attempt(stage, execution),
                  resources=Resources(device=device, threads=threads, gpus=gpus, is_exclusive=exclusive))
        self.submitted[stage.key] = stage
        launcher.submit(job)
        return job

    def ended(self, *jobs: Job) -> list[Ended]:
        """The ends of these jobs, in their order; every one is told once and no other."""
        found: dict[str, Ended] = {}
        deadline = time.monotonic() + PATIENCE
        while len(found) < len(jobs):
            assert time.monotonic() < deadline, f"{len(jobs) - len(found)} of {len(jobs)} jobs have not ended after {PATIENCE:g} s"
            for one in self.launcher.poll(0.2):
                assert one.id in {job.id for job in jobs}, f"the end of {self.submitted[one.id].label} is told, which was told before or not asked for"
                assert one.id not in found, f"the end of {self.submitted[one.id].label} is told twice"
                found[one.id] = one
        assert not self.launcher.poll(0.1), "an end is told twice"
        return [found[job.id] for job in jobs]

    def facts(self, job: Job) -> dict[str, Any]:
        """What a worker saw of itself and published."""
        return self.store.read_json("exercise", job.id, "facts.json")

    def file(self, name: str) -> Path:
        """A path where nothing is yet."""
        self.files += 1
        return self.folder / f"{name}-{self.files}"

    def drive(self, plan: list[dict[str, Any]]) -> Driver:
        """A driver in a process of its own."""
        path, words = self.file("plan"), self.file("driver")
        path.write_text(json.dumps(plan))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = [sys.executable, "-m", "diffbench.testing.driving", self.factory, str(self.store.root), str(path)]
        with open(words, "wb") as out:                    # a file: workers that outlive the driver would hold a pipe open
            return Driver(subprocess.Popen(command, env=environment, stdout=out, stderr=out), words)


@dataclass(frozen=True)
class Driver:
    """A driver and what it says."""

    process: subprocess.Popen
    words: Path

    def finish(self) -> None:
        """Waits for its end, which must be a good one."""
        assert self.process.wait(timeout=PATIENCE) == 0, self.words.read_text()


def noted(path: Path, whose: Job | Driver) -> list[int]:
    """The processes an exercise has noted, once it has."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"the worker has not begun after {PATIENCE:g} s"
        if isinstance(whose, Driver):
            assert whose.process.poll() is None, whose.words.read_text()
        else:
            assert not (whose.attempt / "error.json").exists(), (whose.attempt / "error.json").read_text()
        time.sleep(0.05)
    return json.loads(path.read_bytes())


def gone(pids: list[int]) -> None:
    """Fails unless these processes end soon."""
    deadline = time.monotonic() + PATIENCE
    while left := [pid for pid in pids if _is_running(pid)]:
        assert time.monotonic() < deadline, f"of the processes {pids} there are still {left}"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether a process is there and is not a zombie."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        os.kill(pid, 0)
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout.strip()
        return not state.startswith("Z")
    return False
