"""Stand-ins for the rest of a cell while one component is checked: images, cells, grids. Used by all checks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.cell import Cell, component_kinds
from diffbench.contracts.component import Component
from diffbench.contracts.dataset import Dataset
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Scheduler, Spacing
from diffbench.contracts.settings import Sample, Train
from diffbench.contracts.values import Denoise, Noise, Split
from diffbench.matrix.reading import Reader
from diffbench.registry.ref import HOME, Ref
from diffbench.registry.registry import Registry


@dataclass(frozen=True, kw_only=True)
class StandInImages(Dataset):
    """Grey 8x8 images of two classes, dark and bright, with a little noise. `by_image`: conditions are 4x4 images."""

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
    """Times from `start` to `end`, inside the ends of a schedule, for measuring an order of convergence.

    By default log(sigma/alpha) follows 3 u² - 2 u³: the first steps are so short that a multistep scheduler's start-up
    does not count. `equal`: equal steps in t, for schedulers that take no others. `even`: equal steps in
    log(sigma/alpha).
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
    """A scheduler that accepts any number of steps, for checking a grid."""

    steps: int = 1

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        return denoise(x_t, t).x0, None


def examples(registry: Registry, kind: str, name: str) -> list[Component]:
    """The configurations of a component that its class names in `examples`."""
    reader = Reader(registry)
    components = [c for options in registry.component(kind, name).examples
                  for c in reader.components(kind, {name: dict(options)}, ())]
    if reader.problems:
        raise AssertionError(f"the examples of {kind} {name} cannot be made: "
                             + "; ".join(problem.message for problem in reader.problems))
    return components


def all_examples(registry: Registry, kind: str) -> list[Component]:
    """The examples of every registered component of a kind."""
    return [component for ref in registry.refs(kind) for component in examples(registry, kind, ref.full_name)]


def surroundings(registry: Registry, ref: Ref) -> Registry:
    """The components that one is checked with: the built-in ones and those of its own package, no others."""
    return registry.part(lambda other: other.distribution in (HOME, ref.distribution))


def one_schedule_of_a_sort(registry: Registry) -> Registry:
    """The registry with one noise schedule of each sort: on a grid or not; zero, little or full signal at the end."""
    refs = registry.refs("noise_schedule")
    refs.sort(key=lambda ref: not ref.summary().is_default)
    seen_ends: set[tuple[bool, bool, bool]] = set()
    chosen_refs = []
    for ref in refs:
        ends = {(s.grid is None, s.at(1.0).alpha == 0, s.at(1.0).alpha == 1)
                for s in examples(registry, "noise_schedule", ref.full_name)}
        if ends - seen_ends:
            seen_ends |= ends
            chosen_refs.append(ref)
    return registry.part(lambda ref: ref.kind != "noise_schedule" or ref in chosen_refs)


def cell_with(registry: Registry, **parts: Any) -> Cell:
    """A cell of these parts, with the default of each other kind, on stand-in images."""
    values: dict[str, Any] = {"dataset": StandInImages(), "train": Train(steps=0), "sample": Sample(count=2),
                              "seed": 0} | parts
    return Cell(**{kind: _first(registry, kind) for kind in component_kinds() if kind not in values} | values)


def _first(registry: Registry, kind: str) -> Any:
    """The default of a kind, or the first component that needs no options."""
    if any(ref.summary().is_default for ref in registry.refs(kind)):
        return registry.default(kind)
    return next(component for ref in registry.refs(kind) for component in examples(registry, kind, ref.full_name))
