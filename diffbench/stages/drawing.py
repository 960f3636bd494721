"""Drawing the samples of a cell: block by block, so that a try that is killed loses one block and no more."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

from diffbench.contracts.cell import Cell
from diffbench.contracts.condition import Condition
from diffbench.contracts.labels import shares_of
from diffbench.contracts.model import Helpers
from diffbench.contracts.values import Denoise, Progress, form, silent
from diffbench.diffusion import sampling
from diffbench.diffusion.denoiser import Denoiser, clipped, not_finite
from diffbench.diffusion.latents import Latents
from diffbench.diffusion.noise import sample_seeds, seeds_of_run
from diffbench.diffusion.noisy_classifier import NoisyClassifier
from diffbench.diffusion.pixels import as_condition, condition_of, to_pixels
from diffbench.errors import BrokenComponent, Diverged
from diffbench.stages.checkpoints import Piece, Pieces
from diffbench.stages.compiling import Compiling
from diffbench.stats.label_shares import label_sequence

# half a grey level outside of [-1, 1]: less is lost by rounding anyway, and is mostly rounding itself
BEYOND = 1 + 0.5 / 127.5


def blocks(cell: Cell, model: Denoiser, helpers: Helpers, device: torch.device, pieces: Pieces, batch: int,
           progress: Progress,
           compiling: Compiling | None = None) -> list[Piece]:
    """All samples of a cell, `batch` to a block: those that earlier tries left, and the others drawn now and left to
    later ones.

    A block has tensors `images` (uint8) and, where the data set has them, `labels`; facts `evaluations`, images sent
    through the network, and `clamped`, pixels outside of [-1, 1] by half a grey level or more. compiling: decides
    whether the network is compiled. Raises Diverged, once all are drawn, where samples are not finite.
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
                progress(indices.start + here, cell.sample.count,
                         images_per_second=(before + here) / (time.perf_counter() - since))
            before, began = model.evaluations, time.perf_counter()
            x_0 = draw(cell, model, cond, helpers, device, indices, tell)
            drawn += len(x_0)
            if compiling is not None:
                compiling.look(model, time.perf_counter() - began, (cell.sample.count - indices.stop) / len(indices))
            is_finite = x_0.flatten(1).isfinite().all(1)
            strays += [i for i, fine in zip(indices, is_finite.tolist(), strict=True) if not fine]
            tensors = {"images": to_pixels(x_0)} | ({} if labels is None
                                                    else {"labels": labels[indices.start : indices.stop]})
            block = Piece(tensors=tensors, facts={"evaluations": model.evaluations - before,
                                                  "clamped": int((x_0.abs() >= BEYOND).sum())})
            # a failure is never kept; the last is published at once
            if is_finite.all() and indices.stop < cell.sample.count:
                pieces.write(first, block)
        done.append(block)
    if strays:
        cause = not_finite(cell, cell.spacing(cell.noise_schedule, cell.scheduler.steps)[:-1])
        raise Diverged(
            f"{len(strays)} of {cell.sample.count} samples are not finite; the first is sample {strays[0]}{cause}"
        )
    return done


def one_evaluation(cell: Cell, model: Denoiser, helpers: Helpers, device: torch.device) -> Callable[[int], object]:
    """Of a number of samples: one guided prediction halfway through, to be timed; it counts as no evaluation."""
    cond, _ = asked_for(cell)
    t = float(cell.spacing(cell.noise_schedule, cell.scheduler.steps)[cell.scheduler.steps // 2])

    def work(size: int) -> object:
        condition = as_condition(None if cond is None else cond[:size], device)
        before = model.evaluations
        with torch.no_grad():
            x_t = torch.zeros(size, *model.shape, device=device)
            answer = cell.conditioning.guide(model.denoise, condition, helpers)(x_t, t)
        model.evaluations = before
        return answer
    return work


def asked_for(cell: Cell) -> tuple[Condition | None, Tensor | None]:
    """(condition as stored, labels) of each sample: labels by the shares of `sample.labels`; images that are
    conditions, and what they show, those
    of the reference split."""
    count = cell.sample.count
    if cell.dataset.condition_shape is not None:
        split = cell.dataset.load()["reference"]
        index = torch.arange(count) % len(split.images)
        return condition_of(split, index), None if split.labels is None else split.labels[index]
    labels = None if cell.dataset.classes is None else label_sequence(shares_of(cell), count)
    return None if labels is None else Condition(label=labels), labels


def helpers_for(cell: Cell, device: torch.device, weights: dict[str, Tensor] | None = None) -> Helpers:
    """Helpers that guidance may use in a cell;
    a classifier of noised images with these weights, or untrained where only time counts.
    """
    if not cell.conditioning.needs_classifier:
        return Helpers(schedule=cell.noise_schedule)
    classifier = NoisyClassifier(cell.data_shape, cell.dataset.classes, cell.noise_schedule)
    if weights is not None:
        classifier.load_state_dict(weights)
    return Helpers(schedule=cell.noise_schedule, classifier=classifier.to(device).requires_grad_(False).eval())


def draw(cell: Cell, model: Denoiser, cond: Condition | None, helpers: Helpers, device: torch.device, indices: range,
         progress: Progress = silent, watch: Callable[[Denoise], Denoise] | None = None) -> Tensor:
    """Samples with these indices, [B, C, H, W], on the host. Sample i has condition i of `cond`, and noise of its own.

    watch: is given the denoiser as the scheduler would see it, guided and clipped, and gives the one that the scheduler
    does see.
    """
    seeds = sample_seeds(cell.noise_seed, indices.start, len(indices))
    condition = as_condition(None if cond is None else cond[indices.start : indices.stop], device)
    denoise = cell.conditioning.guide(model.denoise, condition, helpers)
    if cell.sample.clip and cell.autoencoder.bounds is not None:
        denoise = clipped(denoise, cell.noise_schedule, cell.process, *cell.autoencoder.bounds)
    if watch is not None:
        denoise = watch(denoise)
    steps = cell.scheduler.steps

    def sampler(run: int = 0) -> Tensor:
        own = seeds_of_run(seeds, run)
        x_T = sampling.initial(cell.noise_schedule, cell.spacing, steps, own, cell.data_shape, device, cell.process)
        return sampling.draw(denoise, cell.noise_schedule, cell.scheduler, x_T, cell.spacing, cell.process, seeds=own,
                             temperature=cell.sample.temperature,
                             progress=lambda done, of: progress(run * steps + done, cell.pipeline.runs * steps)).x_0
    x_0 = cell.pipeline.run(sampler, {}, indices)
    if not isinstance(x_0, Tensor) or x_0.shape != (len(indices), *cell.data_shape):
        raise BrokenComponent(f"pipeline {cell.pipeline.component_name()}: its run must give samples "
                              f"{[len(indices), *cell.data_shape]}, got {form(x_0)}")
    return Latents(cell, device).decode(x_0).cpu()
