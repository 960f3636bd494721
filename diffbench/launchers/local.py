"""The default launcher: worker processes on this machine, each with its share of cores and GPUs. Used by the engine."""

from __future__ import annotations

import math
from collections.abc import Iterable

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Ended, Job, Launcher
from diffbench.launchers.gpus import Gpus, visible_gpus
from diffbench.launchers.processes import Processes
from diffbench.launchers.queue import Queue
from diffbench.machine.fingerprint import cores


class LocalLauncher(Launcher):
    """Launcher that starts jobs in the order of submission, as slots and GPUs become free.

    gpus: what CUDA_VISIBLE_DEVICES calls the GPUs to use; none where everything runs on the CPU.
    """

    shares_gpus = True

    def __init__(self, gpus: Iterable[str] = ()) -> None:
        self.gpus = Gpus(gpus)
        self.slots = cores()                              # until `capacity` is asked for
        self.queue = Queue()
        self.running: dict[str, tuple[Job, list[str]]] = {}
        self.processes = Processes()

    @classmethod
    def open(cls, address: str, device: str) -> LocalLauncher:
        if address:
            raise DiffbenchError(f"--launcher: local has no address, got {address!r}")
        return cls([] if device == "cpu" else visible_gpus(device))

    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        """The cores divided among the stages that can run at once; or one worker a GPU, more if `jobs` says so."""
        count = len(self.gpus.free) if device == "cuda" else 0
        self.slots = jobs or max(1, min(widest, count if device == "cuda" else cores()))
        share = 0.0 if not count else 1.0 / math.ceil(self.slots / count)
        return Capacity(slots=self.slots, threads=max(1, cores() // self.slots), machines=1, gpus=share)

    def submit(self, job: Job) -> None:
        self.queue.jobs.append(job)
        self._start_waiting()

    def poll(self, seconds: float) -> list[Ended]:
        ends = self.queue.take_ends()
        ends += self.processes.wait(0 if ends else seconds)
        for end in ends:
            job, names = self.running.pop(end.id, (None, []))
            if job is not None:
                self.gpus.give_back(names, job.resources.gpus)
        self._start_waiting()
        return ends

    def cancel(self, id: str) -> None:
        if not self.queue.withdraw(id) and id in self.running:
            self.processes.kill(id)

    def close(self) -> None:
        self.queue.jobs.clear()
        self.processes.close()
        self.running.clear()

    def _start_waiting(self) -> None:
        while self.queue.jobs and len(self.running) < self.slots:
            job, in_use = self.queue.jobs[0], [running_job.resources for running_job, _ in self.running.values()]
            # On a CPU the whole machine is the device; a GPU to oneself is a whole one.
            is_exclusive = job.resources.is_exclusive or any(resources.is_exclusive for resources in in_use)
            if job.resources.device == "cpu" and in_use and is_exclusive:
                return
            names = self.gpus.take(job.resources.gpus) if job.resources.gpus else []
            if names is None:
                return
            self.queue.jobs.popleft()
            self.running[job.id] = (job, names)
            self.processes.start(job.id, job.store, job.attempt, job.resources.threads, ",".join(names), job.is_apart)
