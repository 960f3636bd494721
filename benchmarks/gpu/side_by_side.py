"""Trainings in processes that share a device, with and without CUDA's multi-process service.

Used by `small_networks`.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

import torch

from benchmarks.gpu.costs import Work
from benchmarks.gpu.day import Day, NotMeasured
from benchmarks.gpu.variants import Step, batch_of, captured
from diffbench import Cell
from diffbench.machine import laps
from diffbench.stages import training_loop

BEGIN_SECONDS = 60.0                  # that processes get to import torch, to open the device and to warm up
SPARE_SECONDS = 20.0                  # beyond its window that a process gets to answer
CONTROL = "nvidia-cuda-mps-control"


class NotBegun(Exception):
    """Raised where a process could not open its device; the text is the reason."""


class Workers:
    """Processes that each hold a network of each cell and train them when told to; those not told to wait."""

    def __init__(self, day: Day, count: int, cells: Sequence[Cell]):
        self.window = day.sized(0.5, 0.02)                # seconds of one measurement
        self.at_once = day.sized(10, 1)                   # steps between looks at the clock
        self.sizes = [cell.train.batch_size for cell in cells]
        context, self.pipes, self.processes = multiprocessing.get_context("spawn"), [], []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, tuple(cells), day.device), daemon=True)
            process.start()
            theirs.close()
            self.pipes.append(ours)
            self.processes.append(process)
        self.patience = min(BEGIN_SECONDS, day.seconds_left)

    def __enter__(self) -> Workers:
        try:
            for pipe in self.pipes:
                _answer(pipe, self.patience)
        except Exception as error:
            self._end()
            raise NotBegun(f"{type(error).__name__}: {error}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def images_per_second(self, count: int, index: int, mode: str) -> float:
        """Of `count` processes together that train the network of this cell for a window, by "step" or "graph"."""
        begins = time.monotonic() + 0.05
        for pipe in self.pipes[:count]:
            pipe.send((index, mode, self.at_once, begins, begins + self.window))
        answers = [_answer(pipe, self.window + SPARE_SECONDS) for pipe in self.pipes[:count]]
        return sum(steps * self.sizes[index] / seconds for steps, seconds in answers)

    def _end(self) -> None:
        for pipe in self.pipes:
            pipe.close()                                  # which ends a process that waits
        for process in self.processes:
            process.join(2.0)
            if process.is_alive():
                process.kill()
                process.join()


def _answer(pipe: Connection, seconds: float) -> tuple[int, float]:
    if not pipe.poll(seconds):
        raise TimeoutError(f"a process did not answer within {seconds:.0f} s")
    try:
        answer = pipe.recv()
    except EOFError:
        raise RuntimeError("a process died without a word") from None
    if isinstance(answer, str):
        raise RuntimeError(f"in a process: {answer}")
    return answer


def _serve(pipe: Connection, cells: Sequence[Cell], device: torch.device) -> None:
    """A process: says (0, 0.0) when it is warm, then its steps and seconds of each window; an error is a text."""
    try:
        torch.set_num_threads(1)
        works = [{mode: _training(cell, device, mode) for mode in ("step", "graph")} for cell in cells]
        for modes in works:
            for work in modes.values():
                work()
        laps.synchronise(device)
        pipe.send((0, 0.0))
        while True:
            index, mode, at_once, begins, ends = pipe.recv()
            pipe.send(_window(works[index][mode], device, at_once, begins, ends))
    except EOFError:                                      # the other end was closed
        return
    except Exception as error:  # noqa: BLE001  told to the process that waits for it
        pipe.send(f"{type(error).__name__}: {error}"[:1000])


def _training(cell: Cell, device: torch.device, mode: str) -> Work:
    is_captured = mode == "graph"
    step = Step(cell, training_loop.build(cell, device), batch_of(cell, device), is_bfloat16=True,
                is_captured=is_captured)
    return captured(step, batch_of(cell, device, seed=1)) if is_captured else step


def _window(work: Work, device: torch.device, at_once: int, begins: float, ends: float) -> tuple[int, float]:
    """(steps, seconds) from `begins` to the first look after `ends` at time.monotonic(), one clock for all."""
    time.sleep(max(0.0, begins - time.monotonic()))
    since, steps = time.monotonic(), 0
    while time.monotonic() < ends:
        for _ in range(at_once):
            work()
        laps.synchronise(device)
        steps += at_once
    return steps, time.monotonic() - since


@dataclass(frozen=True)
class Service:
    """A multi-process service that was started here, in a folder of its own."""

    environment: dict[str, str]

    def servers(self) -> list[str]:
        """Process ids of its servers: one where processes went by it."""
        return self.answer_to("get_server_list").split()

    def answer_to(self, command: str) -> str:
        """The answer of the service to a command."""
        return subprocess.run(
            [CONTROL],
            input=f"{command}\n",
            env={**os.environ, **self.environment},
            capture_output=True,
            text=True,
            timeout=10,
        ).stdout


@contextmanager
def mps(day: Day) -> Iterator[Service]:
    """Context with a multi-process service for the processes that are started inside.

    Clocks and the device's compute mode stay as they are. Raises NotMeasured where there is none or it does not start.
    """
    if day.device.type != "cuda" or shutil.which(CONTROL) is None:
        raise NotMeasured(
            f"there is no {CONTROL} here"
            if day.device.type == "cuda"
            else "the multi-process service is one of CUDA devices"
        )
    folder = Path(day.folder) / "mps"
    folder.mkdir()
    names = {"CUDA_MPS_PIPE_DIRECTORY": str(folder), "CUDA_MPS_LOG_DIRECTORY": str(folder)}
    before = {name: os.environ.get(name) for name in names}
    with open(folder / "control.txt", "w") as log:
        # In the foreground: a process of our group, which ends with the part even where that is killed.
        process = subprocess.Popen(
            [CONTROL, "-f"], env={**os.environ, **names}, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    service = Service(names)
    try:
        time.sleep(1.0)
        if process.poll() is not None:
            raise NotMeasured(f"the multi-process service did not start: {(folder / 'control.txt').read_text()[-300:]}")
        os.environ.update(names)
        yield service
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        _stop(service, process)


def _stop(service: Service, process: subprocess.Popen[bytes]) -> None:
    try:
        service.answer_to("quit")
        process.wait(5)
    except (OSError, subprocess.SubprocessError):
        process.kill()
        process.wait()
