"""Trained models: drawn from, looked into, saved. Made by `loading_models`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.api import saved_model
from diffbench.api.saved_model import Parts
from diffbench.contracts.cell import Cell
from diffbench.contracts.condition import Condition
from diffbench.contracts.labels import shares_of
from diffbench.contracts.needs import given_to
from diffbench.contracts.refusals import first_refusal
from diffbench.contracts.sampler import Scheduler
from diffbench.contracts.values import Denoise, Prediction, Progress, silent
from diffbench.diffusion import sampling
from diffbench.diffusion.denoiser import Denoiser, clipped, not_finite
from diffbench.diffusion.noise import sample_seeds
from diffbench.diffusion.pixels import as_condition, to_pixels
from diffbench.diffusion.weights import fill
from diffbench.errors import Diverged, OptionError
from diffbench.registry.registry import Registry
from diffbench.stages import drawing, training_loop
from diffbench.stats.label_shares import label_sequence
from diffbench.store.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Images that a model has drawn."""

    images: Tensor                    # uint8 [N, C, H, W]
    labels: Tensor | None             # int64 [N], the classes they were drawn under; None where there are none
    nfe: float                        # network evaluations per image, a doubled batch counting two


class Model:
    """A trained denoiser and the sampler of its row. Made by `load_model`.

    cell: its components and settings; network: the module of its backbone, forward(x [B, C, H, W], c_noise [B],
    signals); labels are class numbers in [0, cell.dataset.classes).
    """

    def __init__(self, parts: Parts, registry: Registry, device: torch.device):
        self._parts, self._registry, self.device = parts, registry, device
        self.cell = self._given(parts.cell)
        self._denoiser: Denoiser = training_loop.build(self.cell, device).eval().requires_grad_(False)
        fill(self._denoiser, parts.weights, parts.origin)
        guided = self.cell.conditioning.needs_classifier
        self._helpers = drawing.helpers_for(self.cell, device,
                                            parts.tensors("noisy_classifier", saved_model.WEIGHTS) if guided else None)

    @property
    def network(self) -> nn.Module:
        """The backbone's module, in evaluation mode, with the weights that samples are drawn from."""
        return self._denoiser.network

    def __repr__(self) -> str:
        cell, parameters = self.cell, sum(p.numel() for p in self._denoiser.parameters())
        return (f"<Model {cell.backbone.component_name()}, {parameters:,} parameters, x_t {cell.data_shape}, "
                f"{cell.scheduler.component_name()} {cell.scheduler.steps} steps, {self._parts.origin}>")

    def sample(self, count: int | None = None, *, labels: int | Sequence[int] | Tensor | None = None,
               conditions: Tensor | None = None, scheduler: str | Mapping[str, Any] | Scheduler | None = None,
               steps: int | None = None, scale: float | None = None, seed: int | None = None,
               batch_size: int | None = None, progress: Progress = silent) -> Samples:
        """Images, as the row's sampler draws them where nothing else is said: then the stored ones, to the bit on the
        same device and processor.

        count: how many; None is as many as the row has, or one for each label or condition that is given.
        labels: the class of each, or one for all; None is the row's sequence of classes. conditions: uint8
        [N, C, h, w], the image that each is drawn under, for data sets whose condition is an image; None is those of
        the row. scheduler: a name, {name: options} as in a matrix, or a scheduler. steps, scale: of the scheduler and
        of the guidance. seed: of the noise; image i has the same noise for every scheduler and batch. batch_size:
        images at a time; None is as many as the row's.
        Raises OptionError for what does not fit, DataError where the row's conditions are not here, Diverged where
        images are not finite.
        """
        cell = self._changed(scheduler, steps, scale, seed)
        condition, sample_labels = self._condition(count, labels, conditions)
        total, batch = _total(cell, count, condition), batch_size or self._parts.drawn["batch_size"]
        before, blocks = self._denoiser.evaluations, []
        with self._as_then():
            for first in range(0, total, batch):
                indices = range(first, min(first + batch, total))
                blocks.append(drawing.draw(cell, self._denoiser, condition, self._helpers, self.device, indices,
                                           _of_block(progress, indices, total)))
        x_0 = torch.cat(blocks)
        strays = (~x_0.flatten(1).isfinite().all(1)).nonzero().flatten().tolist()
        if strays:
            cause = not_finite(cell, cell.spacing(cell.noise_schedule, cell.scheduler.steps)[:-1])
            raise Diverged(f"{len(strays)} of {total} samples are not finite; the first is sample {strays[0]}{cause}")
        return Samples(images=to_pixels(x_0), labels=None if sample_labels is None else sample_labels[:total],
                       nfe=(self._denoiser.evaluations - before) / total)

    def trajectory(self, count: int = 1, *, labels: int | Sequence[int] | Tensor | None = None,
                   conditions: Tensor | None = None, scheduler: str | Mapping[str, Any] | Scheduler | None = None,
                   steps: int | None = None, scale: float | None = None, seed: int | None = None) -> Iterator[Tensor]:
        """Every state of the sampler run that `sample` makes with these arguments: steps + 1 tensors float32
        [count, C, H, W], x_T first and x_0 last.
        """
        cell = self._changed(scheduler, steps, scale, seed)
        condition, _ = self._condition(count, labels, conditions)
        seeds = sample_seeds(cell.noise_seed, 0, count)
        x_T = sampling.initial(cell.noise_schedule, cell.spacing, cell.scheduler.steps, seeds, cell.data_shape,
                               self.device, cell.process)
        yield from sampling.states(self._bound(cell, None if condition is None else condition[:count]),
                                   cell.noise_schedule, cell.scheduler, x_T, cell.spacing, cell.process,
                                   seeds, cell.sample.temperature)

    @torch.no_grad()
    def denoise(self, x_t: Tensor, t: float, *, labels: int | Sequence[int] | Tensor | None = None,
                conditions: Tensor | None = None, scale: float | None = None) -> Prediction:
        """The prediction of x_0 and eps that the row's scheduler sees: guided and, where the row clips, clipped.

        x_t: float32 [B, C, H, W] = alpha(t) x_0 + sigma(t) eps, x_0 in [-1, 1]; t: a float in (0, 1]; labels,
        conditions, scale: as for `sample`, of these B.
        """
        cell = self._changed(None, None, scale, None)
        condition, _ = self._condition(len(x_t), labels, conditions)
        return self._bound(cell, None if condition is None else condition[: len(x_t)])(x_t.to(self.device), t)

    def save(self, folder: str | Path) -> Path:
        """Writes the model to a new folder, which `load_model` reads on a machine that has neither run nor data:
        safetensors and one JSON file, nothing pickled.

        Raises DiffbenchError where there is something in the folder already.
        """
        return saved_model.write(user_path(folder), self._parts, self._registry)

    def _bound(self, cell: Cell, condition: Condition | None) -> Denoise:
        denoise = cell.conditioning.guide(self._denoiser.denoise, as_condition(condition, self.device), self._helpers)
        if cell.sample.clip and cell.autoencoder.bounds is not None:
            return clipped(denoise, cell.noise_schedule, cell.process, *cell.autoencoder.bounds)
        return denoise

    def _given(self, cell: Cell) -> Cell:
        """A cell whose components have what they need."""
        return cell.each(lambda component: given_to(component, "sample", self._parts.tensors))

    def _changed(self, scheduler: str | Mapping[str, Any] | Scheduler | None, steps: int | None, scale: float | None,
                 seed: int | None) -> Cell:
        """The cell with another sampling half; OptionError with the reason that a plan would skip it for."""
        cell = self._parts.cell
        if scheduler is not None:
            cell = replace(cell, scheduler=self._scheduler(scheduler))
        if steps is not None:
            cell = replace(cell, scheduler=replace(cell.scheduler, steps=steps))      # type: ignore[call-arg]
        if scale is not None:
            if "scale" not in {field.name for field in fields(cell.conditioning)}:
                raise OptionError(f"{cell.conditioning.component_name()} has no guidance scale; of a model that was "
                                  "trained with cfg or classifier_guidance it can be chosen")
            cell = replace(cell, conditioning=replace(cell.conditioning, scale=scale))      # type: ignore[call-arg]
        if seed is not None:
            cell = replace(cell, sample=replace(cell.sample, seed=seed))
        if cell == self._parts.cell:
            return self.cell
        if reason := first_refusal(cell):
            raise OptionError(reason)
        return self._given(cell)

    def _scheduler(self, given: str | Mapping[str, Any] | Scheduler) -> Scheduler:
        if isinstance(given, Scheduler):
            return given
        if isinstance(given, str):
            return self._registry.create("scheduler", given)
        if len(given) != 1:
            raise OptionError(f"a scheduler is one name with its options, such as {{'ddim': {{'steps': 50}}}}, got "
                              f"{dict(given)!r}")
        (name, options), = given.items()
        return self._registry.create("scheduler", name, **(options or {}))

    def _condition(self, count: int | None, labels: int | Sequence[int] | Tensor | None,
                   conditions: Tensor | None) -> tuple[Condition | None, Tensor | None]:
        """(condition as stored, labels) of at least so many images; of those of the row where none are given."""
        dataset = self.cell.dataset
        if conditions is not None:
            return _images(conditions, dataset.condition_shape, dataset.component_name()), None
        if dataset.condition_shape is not None:
            if labels is not None:
                raise OptionError(f"{dataset.component_name()} draws its images under images: give conditions, uint8 "
                                  f"[N, {', '.join(map(str, dataset.condition_shape))}], and no labels")
            condition, sample_labels = drawing.asked_for(replace(self.cell, sample=replace(
                self.cell.sample, count=max(2, count or self.cell.sample.count))))
            return condition, sample_labels
        if dataset.classes is None:
            if labels is not None:
                raise OptionError(f"{dataset.component_name()} has no classes, and the model knows no labels")
            return None, None
        if labels is None:
            sequence = label_sequence(self._parts.shares or shares_of(self.cell), count or self.cell.sample.count)
        else:
            sequence = _labels(labels, count, dataset.classes)
        return Condition(label=sequence), sequence

    @contextlib.contextmanager
    def _as_then(self) -> Iterator[None]:
        """The number of threads and the determinism of the row, as long as images are drawn."""
        threads, were = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
        torch.set_num_threads(self._parts.drawn["threads"])
        if self._parts.drawn["is_deterministic"]:
            torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(were)


def _total(cell: Cell, count: int | None, condition: Condition | None) -> int:
    """Number of images to draw."""
    if count is not None and count < 1:
        raise OptionError(f"count must be an integer >= 1, got {count}")
    if count is not None and condition is not None and len(condition) < count:
        raise OptionError(f"{count} images are asked for, and there are {len(condition)} conditions")
    return count or (cell.sample.count if condition is None else len(condition))


def _of_block(progress: Progress, indices: range, total: int) -> Progress:
    """Callback that takes the steps of a block and reports them to `progress` as a share of all images."""
    def tell(done: int, of: int, **figures: float) -> None:
        progress(indices.start + len(indices) * done // of, total)
    return tell


def _labels(given: int | Sequence[int] | Tensor, count: int | None, classes: int) -> Tensor:
    labels = torch.as_tensor(given)
    if labels.dtype.is_floating_point or labels.dtype == torch.bool or labels.ndim > 1 or not labels.numel():
        raise OptionError(f"labels must be a class number or a list of them, got {given!r}")
    labels = labels.to(torch.int64).reshape(-1)
    if labels.min() < 0 or labels.max() >= classes:
        raise OptionError(f"labels must lie in 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}")
    if isinstance(given, int) or torch.as_tensor(given).ndim == 0:
        labels = labels.expand(count or 1)
    if count is not None and len(labels) != count:
        raise OptionError(f"{count} images are asked for under {len(labels)} labels: give one label for each, or one")
    return labels


def _images(given: Tensor, shape: tuple[int, ...] | None, dataset: str) -> Condition:
    if shape is None:
        raise OptionError(f"{dataset} has no images as conditions: give labels")
    if given.dtype != torch.uint8 or tuple(given.shape[1:]) != shape:
        raise OptionError(f"conditions must be uint8 [N, {', '.join(map(str, shape))}], got {given.dtype} "
                          f"{list(given.shape)}")
    return Condition(image=given)
