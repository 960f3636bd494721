"""The sampling loop: it owns the times, the noise and the counter, so that no scheduler has to."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.process import Process
from diffbench.contracts.sampler import Scheduler, Spacing
from diffbench.contracts.values import Denoise, Prediction, Progress, form, silent
from diffbench.diffusion import noise
from diffbench.errors import BrokenComponent, OptionError


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The end of one sampler run."""

    x_0: Tensor                       # [B, C, H, W]
    nfe: float                        # images sent to `denoise` per sample


def sample(denoise: Denoise, schedule: NoiseSchedule, scheduler: Scheduler, x_T: Tensor, *,
           spacing: Spacing | None = None,
           process: Process | None = None, seeds: Sequence[int] | None = None, temperature: float = 1.0,
           progress: Progress = silent) -> Drawn:
    """Runs a scheduler from x_T down to the clean level.

    denoise(x_t, t) -> Prediction(x0, eps): x_t [B, C, H, W] in the dtype of x_T, t a float.
    x_T: [B, C, H, W] at the first time of the spacing, standard deviation sqrt(alpha² + sigma²); see `initial`.
    spacing, process: the defaults of the registry where None.
    seeds: one 64-bit integer per sample, 0..B-1 where None; the noise of a sample depends on its seed and the step
    alone.
    temperature: factor on the noise that a stochastic scheduler injects, >= 0; x_T is left as it is.
    progress: is told after each step how many are done; on a GPU they may only have been asked for.
    Raises OptionError where the scheduler cannot walk these times on this schedule, with the reason that a plan skips
    such a cell for; BrokenComponent where a step or the denoiser gives anything but tensors of the shape and dtype of
    x_T.
    """
    spacing, process = spacing or _default("spacing"), process or _default("process")
    _check(schedule, spacing, scheduler)
    return draw(denoise, schedule, scheduler, x_T, spacing, process, seeds=seeds, temperature=temperature,
                progress=progress)


def draw(
    denoise: Denoise,
    schedule: NoiseSchedule,
    scheduler: Scheduler,
    x_T: Tensor,
    spacing: Spacing,
    process: Process,
    *,
    seeds: Sequence[int] | None = None,
    temperature: float = 1.0,
    progress: Progress = silent,
) -> Drawn:
    """`sample` for a cell, of which the plan has asked whether it can work."""
    counter = _Counter(denoise)
    visited = states(counter, schedule, scheduler, x_T, spacing, process, seeds, temperature)
    for step, x_t in enumerate(visited):  # noqa: B007  the last state is the result
        progress(step, scheduler.steps)
    return Drawn(x_0=x_t, nfe=counter.images / len(x_T))


def trajectory(denoise: Denoise, schedule: NoiseSchedule, scheduler: Scheduler, x_T: Tensor, *,
               spacing: Spacing | None = None,
               process: Process | None = None, seeds: Sequence[int] | None = None,
               temperature: float = 1.0) -> Iterator[Tensor]:
    """Every state of a sampler run, x_T first and x_0 last: steps + 1 tensors. Arguments and errors as for `sample`."""
    spacing, process = spacing or _default("spacing"), process or _default("process")
    _check(schedule, spacing, scheduler)
    return states(denoise, schedule, scheduler, x_T, spacing, process, seeds, temperature)


def states(
    denoise: Denoise,
    schedule: NoiseSchedule,
    scheduler: Scheduler,
    x_T: Tensor,
    spacing: Spacing,
    process: Process,
    seeds: Sequence[int] | None,
    temperature: float = 1.0,
) -> Iterator[Tensor]:
    """Every state of a sampler run of which it is not asked whether it can work."""
    seeds = range(len(x_T)) if seeds is None else seeds
    if len(seeds) != len(x_T):
        raise ValueError(f"seeds must hold one integer per sample: {len(x_T)} samples, {len(seeds)} seeds")
    visited = spacing(schedule, scheduler.steps)
    schedule.prepare(visited)                             # no derivative is taken inside the loop
    times = visited.tolist()
    x_t, state = x_T, scheduler.init()
    source = noise.Source(seeds, tuple(x_T.shape[1:]), scheduler.steps, x_T.device)
    yield x_t
    for index, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
        def step_noise(draw: int = 0, index: int = index) -> Tensor:
            drawn = process.step_noise(source(index, draw).to(x_T.dtype))
            return drawn if temperature == 1 else temperature * drawn
        # no_grad, not inference_mode: a guidance may differentiate a classifier inside the step.
        with torch.no_grad():
            x_s, state = scheduler.step(denoise, schedule, x_t, t, s, state, step_noise)
        if form(x_s) != form(x_T):
            raise BrokenComponent(f"{scheduler.component_name()}: a step must give x_s as {form(x_T)}, got {form(x_s)} "
                                  f"from the step at t = {t:g}")
        x_t = x_s
        yield x_t


def initial(schedule: NoiseSchedule, spacing: Spacing, steps: int, seeds: Sequence[int], shape: tuple[int, ...],
            device: torch.device | str = "cpu", process: Process | None = None) -> Tensor:
    """x_T of samples with these seeds, whose data have this shape, at the first time of a spacing.

    process: the default of the registry where None.
    """
    first, drawn = float(spacing(schedule, steps)[0]), noise.normal(seeds, shape, noise.INITIAL, device=device)
    return (process or _default("process")).prior(drawn, schedule.at(first))


class _Unknown(AttributeError):
    """A part of a cell that a sampler run alone does not have."""


@dataclass(frozen=True)
class _Walk:
    """What is known of a cell where there is a sampler run alone."""

    noise_schedule: NoiseSchedule
    spacing: Spacing
    scheduler: Scheduler

    def __getattr__(self, name: str) -> Any:
        raise _Unknown(name)


def _check(schedule: NoiseSchedule, spacing: Spacing, scheduler: Scheduler) -> None:
    """Raises OptionError with the reason for which a plan would skip the cell, as far as it lies in these three; the
    spacing is asked first.
    """
    walk: Any = _Walk(schedule, spacing, scheduler)
    for component in (spacing, scheduler):
        with contextlib.suppress(_Unknown):               # what it refuses then depends on the rest of the cell
            if reason := component.why_not(walk):
                raise OptionError(reason)


@dataclass
class _Counter:
    denoise: Denoise
    images: int = 0

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        self.images += len(x_t)
        predicted = self.denoise(x_t, t)
        for name in ("x0", "eps"):                            # others would be broadcast or promoted without a word
            if form(getattr(predicted, name)) != form(x_t):
                raise BrokenComponent(f"the denoiser must give {name} as {form(x_t)}, got "
                                      f"{form(getattr(predicted, name))} at t = {t:g}")
        return predicted


@functools.cache
def _default(kind: str) -> Any:
    from diffbench.registry.registry import load_registry

    return load_registry().default(kind)
