"""Drawing the samples of a cell: block by block, so that a try that is killed loses one block and no more."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffbench import sampling
from diffbench.checkpoints import Piece, Pieces
from diffbench.classifier import NoisyClassifier
from diffbench.compiling import Compiling
from diffbench.denoiser import Denoiser, as_condition, clipped, to_pixels
from diffbench.errors import Diverged
from diffbench.matrix import Cell
from diffbench.noise import sample_seeds
from diffbench.values import Denoise, Helpers, Progress, silent

BEYOND = 1 + 0.5 / 127.5              # half a grey level outside of [-1, 1]: less is lost by rounding anyway, and is mostly rounding itself


def blocks(cell: Cell, model: Denoiser, helpers: Helpers, device: torch.device, pieces: Pieces, batch: int, progress: Progress,
           compiling: Compiling | None = None) -> list[Piece]:
    """All samples of a cell, `batch` to a block: those that earlier tries left, and the others drawn now and left to later ones.

    A block has tensors `images` (uint8) and, where the data set has them, `labels`; facts `evaluations`, images sent through the
    network, and `clamped`, pixels outside of [-1, 1] by half a grey level or more. compiling: decides whether the network is compiled.
    Raises Diverged, once all are drawn, where samples are not finite.
    """
    cond, labels = asked_for(cell)
    done, strays = [], []
    if compiling is not None:
        compiling.begin(model)
    since, drawn = time.perf_counter(), 0                                        # by this try
    for first in range(0, cell.sample.count, batch):
        indices = range(first, min(first + batch, cell.sample.count))
        block = pieces.read(first)
        if block is None:
            def tell(step: int, steps: int, indices: range = indices, before: int = drawn) -> None:
                here = len(indices) * step // steps
                progress(indices.start + here, cell.sample.count, images_per_second=(before + here) / (time.perf_counter() - since))
            before, began = model.evaluations, time.perf_counter()
            x_0 = draw(cell, model, cond, helpers, device, indices, tell)
            drawn += len(x_0)
            if compiling is not None:
                compiling.look(model, time.perf_counter() - began, (cell.sample.count - indices.stop) / len(indices))
            is_finite = x_0.flatten(1).isfinite().all(1)
            strays += [i for i, fine in zip(indices, is_finite.tolist(), strict=True) if not fine]
            tensors = {"images": to_pixels(x_0)} | ({} if labels is None else {"labels": labels[indices.start : indices.stop]})
            block = Piece(tensors=tensors, facts={"evaluations": model.evaluations - before, "clamped": int((x_0.abs() >= BEYOND).sum())})
            if is_finite.all() and indices.stop < cell.sample.count:             # a failure is never kept; the last is published at once
                pieces.write(first, block)
        done.append(block)
    if strays:
        raise Diverged(f"{len(strays)} of {cell.sample.count} samples are not finite; the first is sample {strays[0]}")
    return done


def one_evaluation(cell: Cell, model: Denoiser, helpers: Helpers, device: torch.device) -> Callable[[int], object]:
    """Of a number of samples: one guided prediction halfway through, to be timed; it counts as no evaluation."""
    cond, _ = asked_for(cell)
    t = float(cell.spacing(cell.noise_schedule, cell.scheduler.steps)[cell.scheduler.steps // 2])

    def work(size: int) -> object:
        told = None if cond is None else as_condition(cond[:size].to(device))
        before = model.evaluations
        with torch.no_grad():
            answer = cell.conditioning.guide(model.denoise, told, helpers)(torch.zeros(size, *cell.dataset.image_shape, device=device), t)
        model.evaluations = before
        return answer
    return work


def asked_for(cell: Cell) -> tuple[Tensor | None, Tensor | None]:
    """(condition as stored, labels) of each sample: labels go round; images that are conditions, and what they show, those of the reference split."""
    count = cell.sample.count
    if cell.dataset.condition_shape is not None:
        split = cell.dataset.load()["reference"]
        index = torch.arange(count) % len(split.images)
        return split.conditions[index], None if split.labels is None else split.labels[index]
    labels = None if cell.dataset.classes is None else torch.arange(count) % cell.dataset.classes
    return labels, labels


def helpers_for(cell: Cell, device: torch.device, weights: dict[str, Tensor] | None = None) -> Helpers:
    """What guidance may use in a cell; a classifier of noised images with these weights, or untrained where only time counts."""
    if not cell.conditioning.needs_classifier:
        return Helpers(schedule=cell.noise_schedule)
    classifier = NoisyClassifier(cell.dataset.image_shape, cell.dataset.classes, cell.noise_schedule)
    if weights is not None:
        classifier.load_state_dict(weights)
    return Helpers(schedule=cell.noise_schedule, classifier=classifier.to(device).requires_grad_(False).eval())


def draw(cell: Cell, model: Denoiser, cond: Tensor | None, helpers: Helpers, device: torch.device, indices: range,
         progress: Progress = silent, watch: Callable[[Denoise], Denoise] | None = None) -> Tensor:
    """x_0 [B, C, H, W] of the samples with these indices, on the host. Sample i has condition i of `cond` (as stored) and owns its noise.

    watch: is given the denoiser as the scheduler would see it, guided and clipped, and gives the one that the scheduler does see.
    """
    seeds = sample_seeds(cell.noise_seed, indices.start, len(indices))
    told = None if cond is None else as_condition(cond[indices.start : indices.stop].to(device))
    denoise = cell.conditioning.guide(model.denoise, told, helpers)
    if cell.sample.clip:
        denoise = clipped(denoise, cell.noise_schedule)
    if watch is not None:
        denoise = watch(denoise)
    x_T = sampling.initial(cell.noise_schedule, cell.spacing, cell.scheduler.steps, seeds, cell.dataset.image_shape, device)
    return sampling.sample(denoise, cell.noise_schedule, cell.scheduler, x_T, spacing=cell.spacing, seeds=seeds,
                           temperature=cell.sample.temperature, progress=progress).x_0.cpu()
