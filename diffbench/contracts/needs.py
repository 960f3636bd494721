"""Needs: artefacts that stages must have for a component, such as weights fitted beforehand.
Named by components, made into stages by the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, TypeVar

from diffbench.contracts.component import Component

if TYPE_CHECKING:
    from torch import Tensor

    from diffbench.contracts.cell import Recipe
    from diffbench.contracts.dataset import Dataset
    from diffbench.contracts.noise_schedule import NoiseSchedule

# Three trainings: neither judge nor extractor may mark its own work, nor may the judge be the classifier that guides.
EXTRACTOR_SEED, JUDGE_SEED, GUIDE_SEED = 0, 1, 2

Read = Callable[[str, str], "dict[str, Tensor]"]      # (role of a need, name of a file of tensors) -> its tensors
Given = TypeVar("Given", bound=Component)


@dataclass(frozen=True, kw_only=True, eq=False)
class Need:
    """One artefact that a component needs: the stage that makes it, and all that its content depends on.
    Equal needs are made once.
    """

    stage: str                                                 # the name of a stage kind
    parts: tuple[Component, ...] = ()                          # components that the stage is made of, of one kind each
    settings: Mapping[str, Any] = field(default_factory=dict)  # plain values that the stage reads, such as a seed
    needs: tuple[Need, ...] = ()                               # what the stage needs itself
    recipe: Recipe | None = None                               # of a stage "train" the recipe, of "sample" the cell,
                                                               # in place of all these
    name: str = ""                                             # tells several needs of one stage apart

    @property
    def role(self) -> str:
        """Name of the artefact in the stage that needs it: "tokenizer", "train:teacher"."""
        return f"{self.stage}:{self.name}" if self.name else self.stage


def may_need(component: Component) -> bool:
    """Whether it or one in its options could need anything: most components have the method of their base."""
    return type(component).needs is not Component.needs or any(map(may_need, _inner(component)))


def needs_of(component: Component, stage: str, recipe: Recipe) -> Iterator[Need]:
    """Needs of stages of a kind for a component and for those in its options."""
    yield from component.needs(stage, recipe)
    for inner in _inner(component):
        yield from needs_of(inner, stage, recipe)


def _inner(component: Component) -> Iterator[Component]:
    """The components in its options."""
    for option in fields(component):
        value = getattr(component, option.name)
        yield from (inner for inner in (value if isinstance(value, tuple) else (value,))
                    if isinstance(inner, Component))


def given_to(component: Given, stage: str, read: Read) -> Given:
    """A component as it works in a stage, with what it and those in its options asked for."""
    def given(value: Any) -> Any:
        if isinstance(value, tuple):
            after = tuple(map(given, value))
            return after if any(new is not old for new, old in zip(after, value, strict=True)) else value
        return given_to(value, stage, read) if isinstance(value, Component) else value
    options = {option.name: getattr(component, option.name) for option in fields(component)}
    changed = {name: after for name, before in options.items() if (after := given(before)) is not before}
    return (replace(component, **changed) if changed else component).given(stage, read)


def judge_of(dataset: Dataset) -> Need:
    """The judge of a data set: a classifier used for nothing but class accuracy."""
    return Need(stage="classifier", parts=(dataset,), settings={"seed": JUDGE_SEED})


def guide_of(dataset: Dataset, schedule: NoiseSchedule) -> Need:
    """The classifier of images noised by a schedule, which guides."""
    return Need(stage="noisy_classifier", parts=(dataset, schedule), settings={"seed": GUIDE_SEED})
