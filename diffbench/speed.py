"""The stage that measures speed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffbench import drawing, training
from diffbench.context import Context, Files, as_json
from diffbench.denoiser import Denoiser, as_condition, condition_of
from diffbench.machine import OtherLoad, cores
from diffbench.matrix import Cell
from diffbench.timing import Timing, measure
from diffbench.values import Split

TIMED_TRAIN_STEPS = 20                # optimiser steps in one timed run of a training


def throughput(context: Context) -> Files:
    """Seconds of a whole sampler run, or of optimiser steps, with the device to itself; networks need no training for that."""
    cell = context.cell()
    settings = context.task["throughput"]
    others = OtherLoad()
    if context.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(context.device)
    facts = _timed_training(cell, settings["repeats"], context) if context.task["of"] == "training" else _timed_sampling(cell, settings, context)
    if context.device.type == "cuda":
        facts["peak_memory_bytes"] = torch.cuda.max_memory_allocated(context.device)
    facts |= {"threads": context.threads, "is_deterministic": context.execution["is_deterministic"],
              "cores": cores(), "cores_of_others": others.cores()}
    return {"facts.json": as_json(facts)}


def _timed_sampling(cell: Cell, settings: dict[str, Any], context: Context) -> dict[str, Any]:
    batch = settings["batch_size"]
    model = training.build(cell, context.device).eval()
    split, helpers = _made_up(cell, batch), drawing.helpers_for(cell, context.device)
    timing = measure(lambda: drawing.draw(cell, model, condition_of(split), helpers, context.device, range(batch)), settings["repeats"], context.device)
    nfe = model.evaluations / batch / (len(timing.seconds) + len(timing.warmup_seconds))
    return _timing_facts(timing) | {"images": batch, "nfe": nfe, "seconds_per_nfe": timing.median / nfe, "batch_size": batch,
                                    "parameters": sum(p.numel() for p in model.parameters()), "gmac_per_nfe": gmac_per_nfe(cell, model, context.device)}


def _timed_training(cell: Cell, repeats: int, context: Context) -> dict[str, Any]:
    cell = replace(cell, train=replace(cell.train, steps=TIMED_TRAIN_STEPS))
    batch = cell.train.batch_size
    split = _made_up(cell, batch)
    timing = measure(lambda: training.train(cell, split, context.device), repeats, context.device)
    return _timing_facts(timing) | {"images": batch * TIMED_TRAIN_STEPS, "batch_size": batch}


def _made_up(cell: Cell, count: int) -> Split:
    """Random images with the shapes of a data set: time does not depend on what they show."""
    generator, dataset = torch.Generator().manual_seed(0), cell.dataset

    def images(shape: tuple[int, int, int]) -> Tensor:
        return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Split(images=images(dataset.image_shape), labels=None if dataset.classes is None else torch.arange(count) % dataset.classes,
                 conditions=None if dataset.condition_shape is None else images(dataset.condition_shape))


def gmac_per_nfe(cell: Cell, model: Denoiser, device: torch.device) -> float:
    """1e9 multiply-accumulates of one network evaluation of one image, counted by torch (its FLOPs halved)."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, *cell.dataset.image_shape, device=device)
    stored = condition_of(_made_up(cell, 1))
    cond = None if stored is None else as_condition(stored.to(device))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.denoise(x, 0.5, cond, torch.zeros(1, dtype=torch.bool, device=device))
    return counter.get_total_flops() / 2e9


def _timing_facts(timing: Timing) -> dict[str, Any]:
    return {"seconds": timing.seconds, "warmup_seconds": timing.warmup_seconds, "median_seconds": timing.median, "quartile_seconds": timing.quartiles}
