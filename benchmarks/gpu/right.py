"""Checks of results on the device: components against the CPU, bits, memory, neighbours, energy. Used by the day."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

# before CUDA is touched: one step asks for the same bits twice
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import diffbench
from benchmarks.gpu.agreement import (
    backbones_agree,
    conditionings_agree,
    extractors_agree,
    noise_has_the_same_bits,
    schedulers_agree,
    small_cell,
    small_matrix,
)
from benchmarks.gpu.day import Day, Finding, NotMeasured, state
from diffbench.machine import nvml
from diffbench.stages import training_loop
from diffbench.stages.checkpoints import Checkpoints, Pieces
from diffbench.store.artefacts import Store


def gpu_tests_pass(day: Day) -> Finding:
    """The tests that are marked `gpu`."""
    report = day.folder / "tests.xml"
    files = [str(path) for path in sorted(Path("tests").rglob("test_*.py")) if "mark.gpu" in path.read_text()]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
               f"--junitxml={report}", *files]
    completed = subprocess.run(command, capture_output=True, text=True, timeout=max(10.0, day.seconds_left))
    if not report.exists():
        raise RuntimeError(f"pytest ended with {completed.returncode}: "
                           f"{completed.stdout[-2000:]}{completed.stderr[-2000:]}")
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [f"{case.get('name')}: {(problem.get('message') or '')[:300]}" for case in cases
           for problem in (*case.iter("failure"), *case.iter("error"))]
    skipped = sum(case.find("skipped") is not None for case in cases)
    if bad or not cases:
        raise AssertionError("; ".join(bad) or "no test is marked gpu")
    return Finding(f"{len(cases) - skipped} of {len(cases)} tests marked gpu passed, {skipped} were skipped",
                   {"tests": len(cases), "skipped": skipped})


def resumed_training_has_the_same_bits(day: Day) -> Finding:
    """A training that is interrupted and goes on from its checkpoint in deterministic mode, against one that is not."""
    cell = small_cell(conditioning="film", scheduler={"ddim": {"steps": 2}},
                      train={"steps": 200, "batch_size": day.sized(128, 4)})
    split = cell.dataset.load()["train"]

    def interrupted(done: int, of: int, **_: float) -> None:
        if done == 100:
            raise KeyboardInterrupt
    with _deterministic():
        uninterrupted = training_loop.train(cell, split, day.device)
        checkpoints = Checkpoints(pieces=Pieces(folder=day.folder / "pieces", aside=day.folder, belongs={}),
                                  seconds=0.0)
        with contextlib.suppress(KeyboardInterrupt):
            training_loop.train(cell, split, day.device, interrupted, checkpoints=checkpoints)
        resumed = training_loop.train(cell, split, day.device, checkpoints=checkpoints)
    assert resumed.resumed_at, "it began anew"
    different = [name for name, value in uninterrupted.weights.items() if not torch.equal(value, resumed.weights[name])]
    assert not different, (
        f"{len(different)} of {len(uninterrupted.weights)} tensors differ after a resume at step {resumed.resumed_at}")
    return Finding(f"resumed at step {resumed.resumed_at[0]}, all {len(uninterrupted.weights)} tensors have the same "
                   "bits")


def a_batch_too_large_is_halved(day: Day) -> Finding:
    """A sampling whose batch does not fit into the memory that is left ends with a smaller one."""
    content = small_matrix(conditioning="film", scheduler={"ddim": {"steps": 2}}, train={"steps": 2, "batch_size": 8},
                       sample={"count": day.sized(4096, 8), "batch_size": day.sized(4096, 8)}, metrics=[])
    content["dataset"] = {"gaussian_mixture": {"size": day.sized(64, 8)}}
    content["axes"]["backbone"] = {"unet": {"channels": day.sized(64, 8), "multipliers": [1], "blocks": 1,
                                            "attention": []}}
    with _memory_left(day.device, 3 * 2**30):
        finished, facts = _run(content, day, "halved"), {}
    (facts,) = _facts(day.folder / "halved", "sample")
    if day.device.type != "cuda":
        raise NotMeasured("a CPU has no memory of its own; the run itself ended well")
    assert finished.is_complete and facts["batch_size"] < facts[
        "batch_size_asked"], f"batch {facts['batch_size']}: nothing was halved"
    return Finding(f"a batch of {facts['batch_size_asked']} that did not fit was sampled in batches of "
                   f"{facts['batch_size']}",
                 {"asked": facts["batch_size_asked"], "used": facts["batch_size"]})


def two_processes_share_a_gpu(day: Day) -> Finding:
    """Two trainings at once on one device, each a process."""
    content = small_matrix(conditioning=["film", "none"], scheduler={"ddim": {"steps": 2}}, sample={"count": 40},
                       train={"steps": day.sized(200, 2), "batch_size": 64})
    begin = time.monotonic()
    finished = _run(content, day, "shared", jobs=2)
    assert finished.is_complete, f"rows: {finished.counts}"
    return Finding(f"{finished.stages_run} stages by two workers in {time.monotonic() - begin:.0f} s",
                   {"stages": finished.stages_run})


def energy_is_that_of_the_load(day: Day) -> Finding:
    """Joules by the driver's counter over a known load, against the power that it tells meanwhile."""
    try:
        before = nvml.energy_joules(day.device)
    except nvml.NotReported as error:
        raise NotMeasured(str(error)) from None
    a, watts, over = torch.randn(8192, 8192, device=day.device, dtype=torch.bfloat16), [], threading.Event()

    def listen() -> None:
        while not over.wait(0.1):
            watts.append(float(state(day.device)["watts"]))
    listener, begin = threading.Thread(target=listen), time.monotonic()
    listener.start()
    while time.monotonic() - begin < 4.0:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize(day.device)
    seconds, joules = time.monotonic() - begin, nvml.energy_joules(day.device) - before
    over.set()
    listener.join()
    expected = seconds * sum(watts) / len(watts)
    assert abs(joules / expected - 1) < 0.25, (
        f"{joules:.0f} J counted, {expected:.0f} J by {len(watts)} readings of power")
    return Finding(f"{joules:.0f} J in {seconds:.1f} s of matrix products, {joules / expected:.2f} times what readings "
                   "of power give",
                 {"joules": joules, "seconds": seconds, "by_power": expected})


STEPS = (schedulers_agree, backbones_agree, conditionings_agree, extractors_agree, noise_has_the_same_bits,
         resumed_training_has_the_same_bits,
         a_batch_too_large_is_halved, two_processes_share_a_gpu, energy_is_that_of_the_load, gpu_tests_pass)


def _run(content: dict[str, Any], day: Day, name: str, **options: Any) -> Any:
    home = day.folder / f"{name}-home"
    return diffbench.run(content, out=day.folder / name, device=day.device.type, store=Store(home), **options)


def _facts(run: Path, stage: str) -> list[dict[str, Any]]:
    store = Store(run.with_name(f"{run.name}-home"))
    plan = json.loads((run / "plan.json").read_bytes())
    return [store.read_json(stage, key, "facts.json") for key, stage_facts in plan["stages"].items()
            if stage_facts["name"] == stage]


@contextlib.contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextlib.contextmanager
def _memory_left(device: torch.device, bytes_left: int) -> Iterator[None]:
    """Context in which this process holds all of the device's memory but this much."""
    if device.type != "cuda":
        yield
        return
    free, _ = torch.cuda.mem_get_info(device)
    block = torch.empty(max(0, free - bytes_left), dtype=torch.uint8, device=device)
    try:
        yield
    finally:
        del block
        torch.cuda.empty_cache()
