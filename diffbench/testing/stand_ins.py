"""Stand-ins for the rest of a cell while one component is checked: small images, a whole cell, grids that keep singular ends out."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts import Component, NoiseSchedule, Scheduler, Spacing
from diffbench.evaluation import Dataset
from diffbench.matrix import Cell
from diffbench.registry import HOME, Ref, Registry
from diffbench.settings import Sample, Train
from diffbench.specs import Reader
from diffbench.values import Denoise, Noise, Split


@dataclass(frozen=True, kw_only=True)
class StandInImages(Dataset):
    """Grey 8x8 images of two classes, dark and bright, with a little noise; or, `by_image`, each with a 4x4 image as its condition."""

    by_image: bool = False            # the condition is a small image of the same brightness instead of the label

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (1, 8, 8)

    @property
    def classes(self) -> int:
        return 2

    @property
    def condition_shape(self) -> tuple[int, int, int] | None:
        return (1, 4, 4) if self.by_image else None

    def fingerprint(self) -> str:
        return "0" * 64

    def load(self) -> dict[str, Split]:
        return {name: self._split(seed) for seed, name in enumerate(("train", "reference", "held_out"))}

    def _split(self, seed: int) -> Split:
        labels = torch.arange(200) % 2
        bright = 64 + 128 * labels[:, None, None, None]
        images = bright + torch.randint(-20, 21, (200, 1, 8, 8), generator=torch.Generator().manual_seed(seed))
        conditions = bright.expand(200, 1, 4, 4).to(torch.uint8) if self.by_image else None
        return Split(images=images.to(torch.uint8), labels=labels, conditions=conditions)


@dataclass(frozen=True, kw_only=True)
class Between(Spacing):
    """Times from `start` to `end` that are not the ends of a schedule: for measuring an order of convergence.

    By default log(sigma/alpha) follows 3 u² - 2 u³: the first steps are so short that a multistep scheduler's start-up does not
    count. `equal`: equal steps in t, for schedulers that take no others. `even`: equal steps in log(sigma/alpha).
    """

    start: float = 0.95               # first time
    end: float = 0.05                 # last time, above the clean level
    equal: bool = False               # equal steps in t
    even: bool = False                # equal steps in log(sigma/alpha)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> Tensor:
        u = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        if self.equal:
            return self.start + (self.end - self.start) * u
        high, low = math.log(schedule.nsr(self.start)), math.log(schedule.nsr(self.end))
        times = schedule.t_of_nsr((high + (low - high) * (u if self.even else u**2 * (3 - 2 * u))).exp())
        times[0], times[-1] = self.start, self.end
        return times


@dataclass(frozen=True, kw_only=True)
class OneCall(Scheduler):
    """Takes any number of steps: for checking a grid, not a sampler."""

    steps: int = 1

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None, noise: Noise) -> tuple[Tensor, None]:
        return denoise(x_t, t).x0, None


def examples(registry: Registry, kind: str, name: str) -> list[Component]:
    """The configurations of a component that its class names in `examples`, read as a matrix would read them."""
    reader = Reader(registry)
    made = [c for options in registry.component(kind, name).examples for c in reader.components(kind, {name: dict(options)}, ())]
    if reader.problems:
        raise AssertionError(f"the examples of {kind} {name} cannot be made: " + "; ".join(problem.message for problem in reader.problems))
    return made


def all_examples(registry: Registry, kind: str) -> list[Component]:
    """Those of every registered component of a kind."""
    return [component for ref in registry.refs(kind) for component in examples(registry, kind, ref.full_name)]


def surroundings(registry: Registry, ref: Ref) -> Registry:
    """What a component is checked beside: the built-in ones and those of its own package. What else is installed must not change a verdict."""
    return registry.part(lambda other: other.distribution in (HOME, ref.distribution))


def one_schedule_of_a_sort(registry: Registry) -> Registry:
    """The registry with one noise schedule of each sort: on a grid or continuous, ending at zero SNR, at a little, or exploding."""
    refs = registry.refs("noise_schedule")
    refs.sort(key=lambda ref: not ref.summary().is_default)
    seen: set[tuple[bool, bool, bool]] = set()
    chosen = []
    for ref in refs:
        ends = {(s.grid is None, s.at(1.0).alpha == 0, s.at(1.0).alpha == 1) for s in examples(registry, "noise_schedule", ref.full_name)}
        if ends - seen:
            seen |= ends
            chosen.append(ref)
    return registry.part(lambda ref: ref.kind != "noise_schedule" or ref in chosen)


def cell_with(registry: Registry, **parts: Any) -> Cell:
    """A cell of these parts; what is not said is the default of its kind, on stand-in images."""
    chosen: dict[str, Any] = {"dataset": StandInImages(), "train": Train(steps=0), "sample": Sample(count=2), "seed": 0} | parts
    for f in fields(Cell):
        if f.name not in chosen:
            chosen[f.name] = _first(registry, f.name)
    return Cell(**chosen)


def _first(registry: Registry, kind: str) -> Any:
    """The default of a kind, or the first that can be made without options."""
    if any(ref.summary().is_default for ref in registry.refs(kind)):
        return registry.default(kind)
    return next(component for ref in registry.refs(kind) for component in examples(registry, kind, ref.full_name))
