"""The stage that measures what a training and a sampler run cost: time, memory, energy, arithmetic."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.cell import Cell
from diffbench.contracts.condition import Condition
from diffbench.contracts.values import Split
from diffbench.diffusion.denoiser import Denoiser
from diffbench.diffusion.pixels import as_condition, condition_of
from diffbench.errors import is_out_of_memory
from diffbench.machine import anchor, nvml
from diffbench.machine import laps as timing
from diffbench.machine.fingerprint import cores
from diffbench.machine.laps import Stopwatch, Timing, Warm
from diffbench.machine.load import Load
from diffbench.machine.peak_memory import PeakMemory
from diffbench.matrix.settings import TIMED_TRAIN_STEPS
from diffbench.process import worker_settings
from diffbench.stages import drawing, training_loop
from diffbench.stages.context import Context, Files, as_json

ENERGY_SECONDS = 2.0                  # shortest window: the driver's counter moves every 20 to 100 ms


def throughput(context: Context) -> Files:
    """Seconds of a whole sampler run, or of optimiser steps, with the device to itself;
    networks need no training for that.
    """
    load, cell = Load(context.device), context.cell()
    meter = _Meter(context.device, context.task["throughput"]["repeats"])
    facts = (_training(cell, meter) if context.task["of"] == "training"
             else _sampling(cell, context.task["throughput"]["batch_size"], meter))
    facts |= {"threads": context.threads, "process": worker_settings.facts(),
              "is_deterministic": context.execution["is_deterministic"], "cores": cores(),
              "device": context.device.type, "not_measured": meter.not_measured,
              "load": load.facts() | {"disturbance": context.hold.disturbance(), "unlocked": context.hold.unlocked}}
    return {"facts.json": as_json(facts)}


def _sampling(cell: Cell, sizes: list[int], meter: _Meter) -> dict[str, Any]:
    """The figures of the first batch size that fits, and beside them those of every size."""
    model, helpers = training_loop.build(cell, meter.device).eval(), drawing.helpers_for(cell, meter.device)
    by_size = {size: _of_batch(cell, model, helpers, size, meter) for size in sorted(sizes)}
    fitting = [size for size in sizes if "reason" not in by_size[size]]
    if not fitting:
        raise MemoryError(by_size[min(sizes)]["reason"])
    return by_size[fitting[0]] | {"parameters": sum(p.numel() for p in model.parameters()),
                                  "gmac_per_nfe": gmac_per_nfe(cell, model, meter.device),
                                  "by_batch_size": [by_size[size] for size in sizes]}


def _of_batch(cell: Cell, model: Denoiser, helpers: Any, batch: int, meter: _Meter) -> dict[str, Any]:
    """Cost of one batch size, or the reason why it cannot be had."""
    cond, watch = _made_up_condition(cell, batch), Stopwatch(meter.device)
    evaluations = 0

    def run() -> None:
        nonlocal evaluations
        before = model.evaluations
        drawing.draw(cell, model, cond, helpers, meter.device, range(batch), watch=watch.watch)
        evaluations = model.evaluations - before
    try:
        measured = meter.measure(run, watch.take)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = f"out of memory: {' '.join(str(error).split())[:300]}"
    else:
        laps, nfe = measured.timing, evaluations / batch
        joules = meter.joules(run)
        return {"batch_size": batch, "images": batch, "nfe": nfe, "steps": cell.scheduler.steps, **measured.facts(),
                "network_seconds": laps.inside,
                "seconds_per_nfe": laps.median / nfe, "network_seconds_per_nfe": laps.median_inside / nfe,
                "scheduler_seconds_per_step":
                    (laps.median - laps.median_inside) / (cell.scheduler.steps * cell.pipeline.runs),
                "energy_joules": None if joules is None else joules / batch}
    if meter.device.type == "cuda":                       # when the error and what it held are gone
        torch.cuda.empty_cache()
    return {"batch_size": batch, "reason": reason}


def _training(cell: Cell, meter: _Meter) -> dict[str, Any]:
    """Optimiser steps by the training's own clock: what building the network and its optimiser takes stands apart."""
    cell = replace(cell, train=replace(cell.train, steps=TIMED_TRAIN_STEPS))
    batch = cell.train.batch_size
    split, stepping = _made_up(cell, batch), 0.0

    def run() -> None:
        nonlocal stepping
        stepping += training_loop.train(cell, split, meter.device).seconds

    def take() -> float:
        nonlocal stepping
        taken, stepping = stepping, 0.0
        return taken
    measured = meter.measure(run, take)
    whole, steps = measured.timing, replace(measured.timing, seconds=measured.timing.inside)
    return {"batch_size": batch, "images": batch * TIMED_TRAIN_STEPS, "steps": TIMED_TRAIN_STEPS,
            **replace(measured, timing=steps).facts(),
            "set_up_seconds": [all_of - some for all_of, some in zip(whole.seconds, whole.inside, strict=True)]}


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What the meter read of one piece of work."""

    warm: Warm
    timing: Timing
    peak_memory_bytes: int | None

    def facts(self) -> dict[str, Any]:
        """As they are written; every lap is kept."""
        laps = self.timing
        return {"seconds": laps.seconds, "median_seconds": laps.median, "quartile_seconds": laps.quartiles,
                "spread": laps.spread,
                "warmup_seconds": self.warm.seconds, "is_settled": self.warm.is_settled, "runs_per_lap": self.warm.runs,
                "anchor_seconds": laps.anchor, "in_anchors": laps.in_anchors,
                "peak_memory_bytes": self.peak_memory_bytes}


class _Meter:
    """Reads clock, memory and energy in the same way for whatever runs.
    Make it before the network: memory counts from here.
    """

    def __init__(self, device: torch.device, repeats: int):
        self.device, self.repeats = device, repeats
        self.memory = PeakMemory(device)
        self.not_measured: dict[str, str] = {}            # column -> why it is empty

    def measure(self, run: Callable[[], None], take: Callable[[], float]) -> _Measured:
        """Laps of a piece of work beside an anchor's; `take` tells the seconds inside its watched part."""
        self.memory.reset()
        warm = timing.warm_up(run, self.device)
        peak = self.memory.bytes()                        # before there is an anchor
        if peak is None:
            self.not_measured["peak_memory_bytes"] = self.memory.reason
        laps = timing.timed(run, warm, self.repeats, self.device, take=take, anchor=anchor.make(self.device))
        return _Measured(warm=warm, timing=laps, peak_memory_bytes=peak)

    def joules(self, run: Callable[[], None]) -> float | None:
        """Joules of one run, over a window of its own without anchors; what the GPU uses when idle is part of them."""
        try:
            timing.synchronise(self.device)
            before, since, runs = nvml.energy_joules(self.device), time.perf_counter(), 0
            while time.perf_counter() - since < ENERGY_SECONDS:
                run()
                timing.synchronise(self.device)
                runs += 1
            return (nvml.energy_joules(self.device) - before) / runs
        except nvml.NotReported as error:
            self.not_measured["energy_joules"] = str(error)
            return None


def _made_up(cell: Cell, count: int) -> Split:
    """Random images with the shapes of a data set: time does not depend on what they show."""
    generator, dataset = torch.Generator().manual_seed(0), cell.dataset

    def images(shape: tuple[int, int, int]) -> Tensor:
        return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Split(images=images(dataset.image_shape), labels=None if dataset.classes is None
                 else torch.arange(count) % dataset.classes,
                 conditions=None if dataset.condition_shape is None else images(dataset.condition_shape))


def _made_up_condition(cell: Cell, count: int) -> Condition | None:
    return condition_of(_made_up(cell, count), torch.arange(count))


def gmac_per_nfe(cell: Cell, model: Denoiser, device: torch.device) -> float:
    """1e9 multiply-accumulates of one network evaluation of one image, counted by torch (its FLOPs halved)."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, *model.shape, device=device)
    cond = as_condition(_made_up_condition(cell, 1), device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.denoise(x, 0.5, cond, torch.zeros(1, dtype=torch.bool, device=device))
    return counter.get_total_flops() / 2e9
