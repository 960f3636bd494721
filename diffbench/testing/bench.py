"""Test bench of launchers: starts workers that do exercises, and drivers that can be killed. Used by `launching`."""

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

from diffbench.launchers import Capacity, Ended, Job, Launcher, Resources
from diffbench.planning.stage import Stage
from diffbench.process import import_path
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from diffbench.testing.driving import PLUGIN, exercise, make

PATIENCE = 120.0                      # seconds any one thing may take on a busy machine
SLOTS = 4


@dataclass
class Bench:
    """One launcher in use, and what the checks need of it."""

    factory: str                   # "module:function"
    folder: Path
    gpus: int = 0                  # GPUs the launcher believes to have, real or not; with none, pinning is not checked
    many: int = 100                # trivial jobs in `many_jobs_keep_to_the_slots`
    outlives_driver: bool = False  # its workers go on when the driver is killed, as jobs of a queue do
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
        """The launcher, opened and asked for its capacity at the first use."""
        if self.open is None:
            self.open = make(self.factory)
            self.offered = self.open.capacity("cpu", SLOTS, SLOTS)
        return self.open

    @property
    def capacity(self) -> Capacity:
        """The capacity of the launcher for SLOTS jobs at once."""
        assert self.launcher is not None, "asking for it opens it"
        return self.offered

    def close(self) -> None:
        if self.open is not None:
            self.open.close()
            self.open = None

    def submit(self, do: str, *, device: str = "cpu", gpus: float = 0.0, threads: int = 1, exclusive: bool = False,
               is_apart: bool = False,
               **details: Any) -> Job:
        """Submits a worker that does an exercise."""
        launcher, stage = self.launcher, exercise(f"{do} {len(self.submitted)}", do, **details)
        claim = self.store.claim(stage.key)
        assert self.claims.take(claim) is None
        execution = {"device": "cpu", "threads": threads, "memory_share": 1.0, "is_deterministic": False,
                     "plugins": [PLUGIN],
                     "claim": self.claims.token(claim), "exclusive": False, "run": "bench"}
        job = Job(id=stage.key, store=self.store.root, attempt=self.store.new_attempt(stage.content(), execution),
                  resources=Resources(device=device, threads=threads, gpus=gpus, is_exclusive=exclusive),
                  is_apart=is_apart)
        self.submitted[stage.key] = stage
        launcher.submit(job)
        return job

    def ends_of(self, *jobs: Job) -> list[Ended]:
        """The ends of these jobs, in their order. Fails where an end is reported twice, or the end of another job."""
        ends: dict[str, Ended] = {}
        deadline = time.monotonic() + PATIENCE
        while len(ends) < len(jobs):
            assert time.monotonic() < deadline, (
                f"{len(jobs) - len(ends)} of {len(jobs)} jobs have not ended after {PATIENCE:g} s")
            for end in self.launcher.poll(0.2):
                assert end.id in {job.id for job in jobs}, (
                    f"the end of {self.submitted[end.id].label} is told, which was told before or not asked for")
                assert end.id not in ends, f"the end of {self.submitted[end.id].label} is told twice"
                ends[end.id] = end
        assert not self.launcher.poll(0.1), "an end is told twice"
        return [ends[job.id] for job in jobs]

    def facts(self, job: Job) -> dict[str, Any]:
        """The facts that a worker published about itself."""
        return self.store.read_json("exercise", job.id, "facts.json")

    def file(self, name: str) -> Path:
        """A path where no file is yet."""
        self.files += 1
        return self.folder / f"{name}-{self.files}"

    def drive(self, plan: list[dict[str, Any]]) -> Driver:
        """Starts a driver in a process of its own."""
        path, words = self.file("plan"), self.file("driver")
        path.write_text(json.dumps(plan))
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        command = import_path.command("diffbench.testing.driving", self.factory, str(self.store.root), str(path))
        # a file: workers that outlive the driver would hold a pipe open
        with open(words, "wb") as out:
            return Driver(subprocess.Popen(command, env=environment, stdout=out, stderr=out), words)


@dataclass(frozen=True)
class Driver:
    """A driver process and the file of its output."""

    process: subprocess.Popen
    words: Path

    def finish(self) -> None:
        """Waits for the end of the process, which must succeed."""
        assert self.process.wait(timeout=PATIENCE) == 0, self.words.read_text()


def noted_pids(path: Path, whose: Job | Driver) -> list[int]:
    """The process ids that an exercise has written to a file, once the file is there."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline, f"the worker has not begun after {PATIENCE:g} s"
        if isinstance(whose, Driver):
            assert whose.process.poll() is None, whose.words.read_text()
        else:
            assert not (whose.attempt / "error.json").exists(), (whose.attempt / "error.json").read_text()
        time.sleep(0.05)
    return json.loads(path.read_bytes())


def await_end(pids: list[int]) -> None:
    """Fails unless these processes end in time."""
    deadline = time.monotonic() + PATIENCE
    while running_pids := [pid for pid in pids if _is_running(pid)]:
        assert time.monotonic() < deadline, f"of the processes {pids} there are still {running_pids}"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        os.kill(pid, 0)
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True,
                               check=True).stdout.strip()
        return not state.startswith("Z")
    return False
