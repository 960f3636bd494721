"""Workers as tasks of a Ray cluster.

`--launcher ray` starts one on this machine; `ray://HOST:PORT`, `ray:auto` join one.

Ray is asked for places only: each task holds cores and GPUs and has a worker process forked (or spawned) for it on its
node, which reads and writes the shared store as everywhere. No function of a stage is pickled and no result travels
through Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ray
from ray import exceptions

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Ended, Job, Launcher, any_gpu
from diffbench.launchers.processes import Processes, passed_on

LOOK_SECONDS = 5.0                    # between looks at which nodes are left
INTERRUPT_SECONDS = 0.2               # Ray's way to interrupt a task wakes nobody who waits
OBJECT_STORE_BYTES = 100 * 2**20      # nothing travels through it; Ray would take 30 % of the memory
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


class RayLauncher(Launcher):
    """Launcher of tasks on a cluster whose nodes see the store under the same path.

    address: "" starts a cluster of this machine, ended with the launcher; "auto" or "HOST:PORT" joins the one this
    machine is part of.
    """

    def __init__(self, address: str = ""):
        self.refs: dict[ray.ObjectRef, Job] = {}
        self.cancelled: set[str] = set()
        if address and ray.is_initialized():
            raise DiffbenchError(f"--launcher ray://{address}: this process is connected to a cluster already; plain "
                                 "ray uses that one")
        self.joined = not ray.is_initialized()            # a program that has a connection keeps it
        self.nowhere = tempfile.TemporaryDirectory(prefix="diffbench-ray-")
        if self.joined:
            # Ray puts the working folder of this moment on the import path of its processes
            with _working_in(self.nowhere.name):
                _join(address)
        self._look_at_nodes()

    @classmethod
    def open(cls, address: str, device: str) -> RayLauncher:
        any_gpu("ray", device)
        return cls(address)

    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        """Cores, or GPUs with cores, of all nodes divided among the stages that can run at once.

        None is wider than a node.
        """
        kind = "GPU" if device == "cuda" else "CPU"
        nodes = [node for node in self.nodes if node.get(kind)]
        if not nodes:
            raise DiffbenchError(f"--launcher ray: no node of the cluster has a {kind}")
        total = int(sum(node[kind] for node in nodes))
        slots = jobs or max(1, min(widest, total))
        largest = int(max(node.get("CPU", 0) for node in nodes))
        machines = sum(node.get("CPU", 0) == largest for node in nodes)
        if kind == "CPU":
            threads = max(1, min(total // slots, int(min(node["CPU"] for node in nodes))))
            return Capacity(slots=slots, threads=threads, machines=machines, machine_threads=largest)
        share = 1.0 / math.ceil(slots / total)
        threads = int(max(1, min(node.get("CPU", 0) // (node["GPU"] / share) for node in nodes)))
        return Capacity(slots=slots, threads=threads, machines=machines, gpus=share, machine_threads=max(1, largest))

    def submit(self, job: Job) -> None:
        resources = job.resources
        task = _work.options(num_cpus=resources.threads, num_gpus=resources.gpus, max_retries=0,
                             name=f"diffbench {job.id[:8]}")
        self.refs[task.remote(str(job.store.resolve()), str(job.attempt.resolve()), resources.threads, resources.gpus,
                              passed_on(), os.getcwd())] = job

    def poll(self, seconds: float) -> list[Ended]:
        if not self.refs:
            time.sleep(seconds)
            return []
        # At least one is waited for; those that ended with it come along.
        ready, others = ray.wait(list(self.refs), num_returns=1, timeout=seconds)
        if ready and others:
            ready += ray.wait(others, num_returns=len(others), timeout=0)[0]
        ends = [self._end_of(ref) for ref in ready]
        if time.monotonic() - self.looked_at > LOOK_SECONDS:
            ends += self._ends_without_node()
        return ends

    def cancel(self, id: str) -> None:
        for ref, job in self.refs.items():
            if job.id == id:
                self.cancelled.add(id)
                # asks; by force, Ray would kill the fork server before it could end its workers
                ray.cancel(ref)

    def close(self) -> None:
        for job in list(self.refs.values()):
            self.cancel(job.id)
        with contextlib.suppress(exceptions.RayError):
            ray.wait(list(self.refs), num_returns=len(self.refs), timeout=10) if self.refs else None
        self.refs.clear()
        if self.joined:
            ray.shutdown()
        self.nowhere.cleanup()

    def _end_of(self, ref: ray.ObjectRef) -> Ended:
        job = self.refs.pop(ref)
        try:
            return Ended(id=job.id, code=ray.get(ref))
        except exceptions.RayTaskError as error:
            # the place could not be used: diffbench is not installed there, say
            return Ended(id=job.id, code=1, reason=f"the task of Ray failed: {str(error).strip().splitlines()[-1]}")
        except exceptions.RayError as error:
            if job.id in self.cancelled:
                self.cancelled.discard(job.id)
                return Ended(id=job.id, code=-signal.SIGKILL)
            return Ended(id=job.id, code=-signal.SIGKILL, reason=_why_lost(error))

    def _look_at_nodes(self) -> None:
        self.looked_at, self.nodes = time.monotonic(), [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def _ends_without_node(self) -> list[Ended]:
        """Ends jobs that wait for a node as large as one that was lost, since nobody would ever run them."""
        self._look_at_nodes()
        ends = []
        for ref, job in list(self.refs.items()):
            resources = job.resources
            if not any(node.get("CPU", 0) >= resources.threads and node.get("GPU", 0) >= resources.gpus
                       for node in self.nodes):
                ray.cancel(ref, force=True)
                del self.refs[ref]
                ends.append(Ended(id=job.id, code=-signal.SIGKILL,
                                   reason=f"no node of the cluster has {resources.threads} CPUs and {resources.gpus:g} "
                                          "GPUs any more"))
        return ends


# of this process of Ray, which does one task after another: the fork server is started once
_processes: Processes | None = None


@ray.remote
def _work(store: str, attempt: str, threads: int, gpus: float, environment: dict[str, str], folder: str) -> int:
    """Runs one worker on a node and returns its exit code. Ray interrupts this process to cancel it."""
    global _processes
    os.environ.update(environment)
    # a driver's folder that is not there matters to relative paths only
    with contextlib.suppress(OSError):
        os.chdir(folder)
    if _processes is None:
        _processes = Processes()
    _processes.start(attempt, Path(store), Path(attempt), threads,
                     os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else "")
    ends: list[Ended] = []
    while not ends:
        try:
            ends = _processes.wait(INTERRUPT_SECONDS)
        except KeyboardInterrupt:
            _processes.kill(attempt)
    return ends[0].code


@contextlib.contextmanager
def _working_in(folder: str) -> Iterator[None]:
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(folder)
        yield
    finally:
        os.fchdir(before)
        os.close(before)


def _join(address: str) -> None:
    """Connects this process to a cluster, or starts one here without dashboard, messages or files at home."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    start = {}
    if not address:
        start = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES,
                 "num_cpus": len(os.sched_getaffinity(0))}
        if not any(name.startswith("RAY_AUTH_") for name in os.environ):
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)      # else Ray makes one and keeps it in ~/.ray
    try:
        ray.init(address=address or "local", logging_level=logging.ERROR, log_to_driver=False, **start)
    except (exceptions.RayError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        problem = f"no cluster answers at {address}" if address else "Ray did not start"
        raise DiffbenchError(f"--launcher ray: {problem}: {reason}") from None


def _why_lost(error: exceptions.RayError) -> str:
    """The reason why a task ended without an answer."""
    if isinstance(error, exceptions.NodeDiedError):
        return "the node was lost"
    if isinstance(error, exceptions.OutOfMemoryError):
        return "Ray ended the task because its node was short of memory"
    return f"the task of Ray was lost: {type(error).__name__}"
