"""Launchers start, watch and kill worker processes with given resources.

Used by the engine, and derived from by plug-ins.

A worker answers through the store alone, so a launcher that loses contact loses no result. Every launcher passes the
suite in
`diffbench.testing.launching`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from diffbench.errors import DiffbenchError
from diffbench.machine.fingerprint import cores


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that one worker gets."""

    device: str                   # "cpu" or "cuda": the kind; which GPU is the launcher's choice
    threads: int                  # CPU threads
    gpus: float = 0.0             # whole GPUs, or the share of one, in (0, 1), that several workers divide; with 0 it
                                  # sees none
    is_exclusive: bool = False    # its device to itself; on a CPU the whole machine
    seconds: float | None = None  # how long it may run, for queues that want to know; the engine ends it


@dataclass(frozen=True, kw_only=True)
class Job:
    """One worker, `python -m diffbench.stages.worker STORE ATTEMPT`.

    Its output goes to log.txt in the attempt's folder.
    """

    id: str                           # unique within a run
    store: Path
    attempt: Path                     # holds task.json, which says all that the worker needs
    resources: Resources
    is_apart: bool = False            # shares no process with other workers: it may have ended one that they shared


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The resources that a launcher has to give."""

    slots: int                        # workers at once; more than that would only wait in a queue
    threads: int                      # CPU threads for each of that many
    machines: int                     # workers at once that each have a machine or device to themselves
    gpus: float = 0.0                 # GPUs for each of that many workers, or the share of one; 0 on a CPU
    machine_threads: int = field(default_factory=cores)       # CPU threads of a worker that has a machine to itself

    def with_threads(self, threads: int, *, keeps_slots: bool) -> Capacity:
        """The same cores with another number of threads a worker. keeps_slots: the number of workers is fixed."""
        slots = self.slots if keeps_slots else max(1, min(self.slots, self.slots * self.threads // threads))
        return replace(self, threads=threads, machine_threads=threads, slots=slots)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a worker."""

    id: str
    code: int                         # exit code; negative: ended by that signal
    reason: str = ""                  # what only the launcher knows: "the node was lost"
    is_lost: bool = False             # ended with a process it shared with others, perhaps by no doing of its own


class Launcher(ABC):
    """A place where workers run. Made by `open`, used by one engine in one thread, ended by `close`.

    Where the driver ends without `close`, its workers end too; only those of a queue that outlives its users may go on,
    and what they publish is found by the next run.
    """

    shares_gpus: ClassVar[bool] = False               # whether more workers than GPUs each get a part of one

    @classmethod
    def open(cls, address: str, device: str) -> Launcher:
        """The launcher for `--launcher NAME:ADDRESS --device DEVICE` ("cpu", "cuda", "cuda:N").

        This one has no address.

        Raises DiffbenchError where the address or the device makes no sense here.
        """
        if address:
            raise DiffbenchError(f"--launcher: {cls.__name__} has no address, got {address!r}")
        any_gpu(cls.__name__, device)
        return cls()

    @abstractmethod
    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        """The resources for stages on a kind of device ("cpu" or "cuda").

        widest: the most stages of a plan that could run at once; jobs: workers at once that the user asked for, or
        None. The same plan on the same machines gets the same number of threads, which bit-for-bit results depend on.
        """

    @abstractmethod
    def submit(self, job: Job) -> None:
        """Starts or queues a worker. It has begun when started.json is in its attempt's folder."""

    @abstractmethod
    def poll(self, seconds: float) -> list[Ended]:
        """Workers that ended since the last call, cancelled ones too, each reported once.

        Waits this long for the first.
        """

    @abstractmethod
    def cancel(self, id: str) -> None:
        """Kills a worker and all it started, or removes it from the queue; unknown ids are no error."""

    @abstractmethod
    def close(self) -> None:
        """Kills all workers and releases everything."""


def any_gpu(launcher: str, device: str) -> None:
    """Raises DiffbenchError for "cuda:N": for launchers that choose the GPUs themselves."""
    if ":" in device:
        raise DiffbenchError(f"--device {device}: {launcher} chooses the GPUs itself; use --device cuda")
