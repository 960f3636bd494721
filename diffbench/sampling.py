"""The sampling loop: it owns the times, the noise and the counter, so that no scheduler has to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench import noise
from diffbench.contracts import NoiseSchedule, Scheduler, Spacing
from diffbench.errors import BrokenComponent
from diffbench.values import Denoise, Prediction, Progress, form, silent


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """The end of one sampler run."""

    x_0: Tensor                       # [B, C, H, W]
    nfe: float                        # images sent to `denoise` per sample


def sample(denoise: Denoise, schedule: NoiseSchedule, scheduler: Scheduler, x_T: Tensor, *, spacing: Spacing | None = None,
           seeds: Sequence[int] | None = None, temperature: float = 1.0, progress: Progress = silent) -> Drawn:
    """Runs a scheduler from x_T down to the clean level.

    denoise(x_t, t) -> Prediction(x0, eps): x_t [B, C, H, W] in the dtype of x_T, t a float.
    x_T: [B, C, H, W] at the first time of the spacing, standard deviation sqrt(alpha² + sigma²); see `initial`.
    spacing: the default spacing of the registry where None.
    seeds: one 64-bit integer per sample, 0..B-1 where None; the noise of a sample depends on its seed and the step alone.
    temperature: factor on the noise that a stochastic scheduler injects, >= 0; x_T is left as it is.
    progress: is told after each step how many are done; on a GPU they may only have been asked for.
    Raises BrokenComponent where a step or the denoiser gives anything but tensors of the shape and dtype of x_T.
    """
    counter = _Counter(denoise)
    states = trajectory(counter, schedule, scheduler, x_T, spacing=spacing, seeds=seeds, temperature=temperature)
    for step, x_t in enumerate(states):  # noqa: B007  the last state is the result
        progress(step, scheduler.steps)
    return Drawn(x_0=x_t, nfe=counter.images / len(x_T))


def trajectory(denoise: Denoise, schedule: NoiseSchedule, scheduler: Scheduler, x_T: Tensor, *, spacing: Spacing | None = None,
               seeds: Sequence[int] | None = None, temperature: float = 1.0) -> Iterator[Tensor]:
    """Every state of a sampler run, x_T first and x_0 last: steps + 1 tensors. Arguments as for `sample`."""
    seeds = range(len(x_T)) if seeds is None else seeds
    if len(seeds) != len(x_T):
        raise ValueError(f"seeds must hold one integer per sample: {len(x_T)} samples, {len(seeds)} seeds")
    visited = (spacing or _default_spacing())(schedule, scheduler.steps)
    schedule.prepare(visited)                             # no derivative is taken inside the loop
    times = visited.tolist()
    x_t, state = x_T, scheduler.init()
    source = noise.Source(seeds, tuple(x_T.shape[1:]), scheduler.steps, x_T.device)
    yield x_t
    for index, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
        def step_noise(draw: int = 0, index: int = index) -> Tensor:
            drawn = source(index, draw).to(x_T.dtype)
            return drawn if temperature == 1 else temperature * drawn
        # no_grad, not inference_mode: a guidance may differentiate a classifier inside the step.
        with torch.no_grad():
            x_s, state = scheduler.step(denoise, schedule, x_t, t, s, state, step_noise)
        if form(x_s) != form(x_T):
            raise BrokenComponent(f"{scheduler.component_name()}: a step must give x_s as {form(x_T)}, got {form(x_s)} from the step at t = {t:g}")
        x_t = x_s
        yield x_t


def initial(schedule: NoiseSchedule, spacing: Spacing, steps: int, seeds: Sequence[int], shape: tuple[int, ...], device: torch.device | str = "cpu") -> Tensor:
    """x_T, [len(seeds), *shape]: noise with the standard deviation that unit-variance data have at the first time."""
    alpha, sigma = schedule.scales(float(spacing(schedule, steps)[0]))
    return (alpha**2 + sigma**2) ** 0.5 * noise.normal(seeds, shape, noise.INITIAL, device=device)


@dataclass
class _Counter:
    denoise: Denoise
    images: int = 0

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        self.images += len(x_t)
        predicted = self.denoise(x_t, t)
        for name in ("x0", "eps"):                            # others would be broadcast or promoted without a word
            if form(getattr(predicted, name)) != form(x_t):
                raise BrokenComponent(f"the denoiser must give {name} as {form(x_t)}, got {form(getattr(predicted, name))} at t = {t:g}")
        return predicted


def _default_spacing() -> Spacing:
    from diffbench.registry import load_registry

    return load_registry().default("spacing")
