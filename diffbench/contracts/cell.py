"""A cell: one point of a matrix, a recipe that is trained and a sampler. Components are asked whether they fit one."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from diffbench.contracts.settings import Sample, Train

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from diffbench.contracts.autoencoder import Autoencoder
    from diffbench.contracts.component import Component
    from diffbench.contracts.dataset import Dataset
    from diffbench.contracts.method import Method
    from diffbench.contracts.model import Backbone, Conditioning, Objective, Parameterization
    from diffbench.contracts.noise_schedule import NoiseSchedule
    from diffbench.contracts.pipeline import Pipeline
    from diffbench.contracts.process import Process
    from diffbench.contracts.sampler import Scheduler, Spacing
    from diffbench.contracts.text_encoder import TextEncoder

# Of a kind whose default computes what there is without the kind: it stands in no key, and has no column of its own.
_OPTIONAL = {"is_optional": True}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The training half of a cell: what a denoiser is made of and how it is trained. A training sees no sampler."""

    dataset: Dataset
    backbone: Backbone
    noise_schedule: NoiseSchedule
    parameterization: Parameterization
    objective: Objective
    conditioning: Conditioning
    process: Process = field(metadata=_OPTIONAL)
    autoencoder: Autoencoder = field(metadata=_OPTIONAL)
    text_encoder: TextEncoder = field(metadata=_OPTIONAL)
    method: Method = field(metadata=_OPTIONAL)
    train: Train
    seed: int
    extra: dict[str, Component] = field(default_factory=dict, hash=False)  # by kind, of kinds that plug-ins add to
                                                                           # this half

    def each(self, change: Callable[[Component], Component]) -> Self:
        """The same with each of its components replaced by what `change` makes of it."""
        of = Cell if isinstance(self, Cell) else Recipe
        changed: dict[str, Any] = {kind: change(getattr(self, kind)) for kind in component_kinds(of)}
        for extra in ("extra", "sampling_extra"):
            if hasattr(self, extra):
                changed[extra] = {kind: change(component) for kind, component in getattr(self, extra).items()}
        return replace(self, **changed)

    @property
    def train_steps(self) -> int:
        """Steps that its training takes; 0 where its method trains nothing."""
        return self.train.steps if self.method.trains else 0

    @property
    def data_shape(self) -> tuple[int, ...]:
        """(C, *space) of what is noised: of the data, or of their latents where there is an autoencoder."""
        return self.autoencoder.latent_shape(self.dataset.shape)

    def training_components(self) -> dict[str, Any]:
        """The components that a training is made of, by kind; those of kinds that plug-ins add come last."""
        return {name: getattr(self, name) for name in component_kinds(Recipe)} | self.extra


@dataclass(frozen=True, kw_only=True)
class Cell(Recipe):
    """One point of the matrix: a recipe, and how its samples are drawn."""

    spacing: Spacing
    scheduler: Scheduler
    pipeline: Pipeline = field(metadata=_OPTIONAL)
    sample: Sample
    sampling_extra: dict[str, Component] = field(default_factory=dict, hash=False)     # the same of the sampling half

    @property
    def noise_seed(self) -> int:
        """Seed of the noise that its samples are drawn from."""
        return self.seed if self.sample.seed == "cell" else int(self.sample.seed)

    def components(self) -> dict[str, Any]:
        """Its components by kind, in the order of the result table; those of kinds that plug-ins add come last."""
        return {name: getattr(self, name) for name in component_kinds()} | {**self.extra, **self.sampling_extra}

    def component(self, kind: str) -> Any:
        """Its component of a kind; None where the kind is a plug-in's and the matrix names none for this cell."""
        return self.components().get(kind)


@functools.cache
def component_kinds(of: type[Recipe] | None = None) -> tuple[str, ...]:
    """The kinds that every cell, or every recipe, has a component of."""
    return tuple(f.name for f in fields(of or Cell) if f.name not
                 in ("train", "sample", "seed", "extra", "sampling_extra"))


@functools.cache
def optional_kinds() -> tuple[str, ...]:
    """Those of them whose default computes what there is without the kind, so that it is no part of keys."""
    return tuple(f.name for f in fields(Cell) if f.metadata == _OPTIONAL)
