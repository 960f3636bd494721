"""Runs of a three-cell matrix in forked processes that have everything imported, so that hundreds of faults can be tried one by one.

`Trial.run` starts a driver, with a fault injected by strace into it or into the workers of one stage, and says how it ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

import diffbench
from diffbench.api import running
from diffbench.launchers import Capacity, Ended, Job, Launcher
from diffbench.results.rows import CLOCKED
from diffbench.stages import worker
from diffbench.store.artefacts import Store
from tests.helpers.forking import Forked

MATRIX = {
    "diffbench": 1, "name": "three", "dataset": "digits",
    "axes": {"backbone": {"dit": {"patch": 4, "width": 8, "depth": 1, "heads": 1}}, "conditioning": "none",
             "scheduler": [{"ddim": {"steps": 2}}, {"ddpm": {"steps": 2}}, {"euler_sde": {"steps": 2}}]},
    "train": {"steps": 100, "batch_size": 4}, "sample": {"count": 20, "batch_size": 10}, "throughput": {"repeats": 3, "batch_size": 2},
    "extractor": "pixels", "metrics": ["fid"], "run": {"checkpoint": 0.001},
}
CALLS = ("openat", "write", "pwrite64", "fsync", "fdatasync", "rename", "renameat", "renameat2", "ftruncate", "truncate", "mkdir", "mkdirat", "unlink", "unlinkat")
LIMIT_SECONDS = 120


@dataclass(frozen=True)
class Fault:
    """What happens to the k-th call of a name, in the driver or in each worker of a stage."""

    role: str                         # "driver" or the name of a stage
    call: str
    when: int
    what: str                         # strace's words: "signal=KILL", "error=ENOSPC", "error=EIO"
    path: Path | None = None          # only calls about this file count

    def options(self) -> list[str]:
        """For strace."""
        paths = [] if self.path is None else ["-P", str(self.path)]
        return [*paths, "-e", f"trace={self.call}", "-e", f"inject={self.call}:{self.what}:when={self.when}"]


@dataclass
class Trial:
    """A folder with a store and a run."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def run(self, fault: Fault | None = None, trace: bool = False, before: Callable[[], None] | None = None) -> int:
        """The matrix, from the state the folder is in; the exit code as the command line would give it, negative for a signal.

        before: a function of a module that the driver calls first.
        """
        driver = Forked(self._drive, fault, trace, before)
        tracer = None
        if fault is not None and fault.role == "driver":
            tracer = attach(driver.pid, fault.options(), self.folder / "driver.strace")
        elif trace:
            tracer = attach(driver.pid, ["-y", "-e", f"trace={','.join(CALLS)}"], self.folder / "driver.strace")
        code = wait(driver.go(), LIMIT_SECONDS)
        if tracer is not None:
            tracer.wait(timeout=300)
        return code

    def start(self) -> Forked:
        """The driver of a run that goes on, with no fault."""
        return Forked(self._drive, None, False, None).go()

    def table(self) -> str:
        """The results without what a clock says."""
        table = diffbench.load(self.folder / "out")
        table = table[[name for name in table.columns if not CLOCKED.search(name)]]
        return table.to_csv(index=False) + (self.folder / "out" / "fid.md").read_text()

    def points(self) -> list[tuple[str, str, int, str]]:
        """(role, call, k, path) of every call of the last traced run that touches the folder and changes what lies there."""
        found = []
        for log in sorted(self.folder.glob("*.strace")):
            counts: dict[str, int] = {}
            for line in log.read_text(errors="replace").splitlines():
                match = re.match(r"(?:\d+\s+)?(\w+)\(", line)
                if match is None or match[1] not in CALLS:
                    continue
                call = match[1]
                counts[call] = counts.get(call, 0) + 1
                if str(self.folder) in line and (call != "openat" or re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)):
                    found.append((log.stem.partition("-")[0], call, counts[call], _kind_of_path(line, str(self.folder))))
        return sorted(set(found))

    def _drive(self, fault: Fault | None, trace: bool, before: Callable[[], None] | None) -> int:
        """In the driver's process."""
        os.setsid()
        log = os.open(self.folder / "driver.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            if before is not None:
                before()
            made = diffbench.plan(MATRIX, device="cpu")
            launcher = ForkLauncher(self.folder, fault, trace)
            finished = running.execute(made, out=self.folder / "out", store=Store(self.folder / "home"), make_launcher=lambda: launcher)
            return 0 if finished.is_complete else 1
        except diffbench.DiffbenchError as error:
            print(error)
            return 2
        except BaseException:  # noqa: BLE001  said in driver.txt, and by the code
            traceback.print_exc()
            return 70
        finally:
            with contextlib.suppress(OSError):
                sys.stdout.flush()


class ForkLauncher(Launcher):
    """Forks workers from the driver itself, where everything is imported; strace is attached to those a fault is meant for."""

    def __init__(self, folder: Path, fault: Fault | None, trace: bool):
        self.folder, self.fault, self.trace = folder, fault, trace
        self.pids: dict[int, str] = {}

    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        return Capacity(slots=2, threads=1, machines=1, machine_threads=1)

    def submit(self, job: Job) -> None:
        stage = json.loads((job.attempt / "task.json").read_bytes())["stage"]
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                ctypes.CDLL(None).prctl(1, signal.SIGKILL)                  # PR_SET_PDEATHSIG: it ends with its driver
                if self.fault is not None and self.fault.role == stage:
                    attach(os.getpid(), self.fault.options(), Path(os.devnull))
                elif self.trace:
                    attach(os.getpid(), ["-y", "-e", f"trace={','.join(CALLS)}"], self.folder / f"{stage}-{os.getpid()}.strace")
                log = os.open(job.attempt / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                torch.set_num_threads(1)
                code = worker.run(str(job.store), str(job.attempt))
            finally:
                os._exit(code)
        self.pids[pid] = job.id

    def poll(self, seconds: float) -> list[Ended]:
        end = time.monotonic() + seconds
        while True:
            found = []
            for pid in list(self.pids):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    found.append(Ended(id=self.pids.pop(pid), code=os.waitstatus_to_exitcode(status)))
            if found or time.monotonic() > end:
                return found
            time.sleep(0.005)

    def cancel(self, id: str) -> None:
        for pid, job in self.pids.items():
            if job == id:
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        for pid in self.pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self.pids = {}


def attach(pid: int, options: list[str], log: Path) -> subprocess.Popen:
    """strace on one thread, from the moment this returns."""
    tracer = subprocess.Popen(["strace", "-qq", "-p", str(pid), "-o", str(log), *options], stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + 300
    while "TracerPid:\t0" in status.read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"strace cannot attach to {pid}")
        time.sleep(0.001)
    return tracer


def wait(driver: Forked, seconds: float) -> int:
    """The exit code of a driver; it is killed, and said to hang, when it takes longer."""
    try:
        return driver.wait(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)         # itself, or workers that a killed driver left


def can_trace() -> str | None:
    """Why strace cannot be used here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            attach(process.pid, ["-e", "trace=fsync"], Path(os.devnull))
        except RuntimeError as error:
            return f"{error}: tracing is not allowed here"
        finally:
            process.kill()
    return None


def _kind_of_path(line: str, root: str) -> str:
    """The file a call is about, random parts left out: what tells one point from another of its kind."""
    path = line.partition(root)[2]
    path = re.split(r"[\"'>,)]", path)[0]
    path = re.sub(r"[0-9a-f]{16,}", "KEY", path)
    path = re.sub(r"/[0-9a-f]{2}/", "/KK/", path)
    path = re.sub(r"\.[0-9a-z_]+-[0-9a-z_]{8}\b|[0-9a-f]{8}-\w{8}", "TEMP", path)
    return re.sub(r"\d+", "N", path)
