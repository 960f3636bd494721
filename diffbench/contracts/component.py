"""The base of every component: a frozen, keyword-only dataclass that is its own configuration and holds no weights."""

from __future__ import annotations

import re
from abc import ABC
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from diffbench.contracts.options import Options

if TYPE_CHECKING:
    from typing_extensions import Self

    from diffbench.contracts.cell import Cell, Recipe
    from diffbench.contracts.needs import Need, Read


class Component(Options, ABC):
    """Base of every kind: options are its fields, checked at birth;
    the registered name is the class name in snake case.
    """

    kind: ClassVar[str] = ""                                   # name of its kind, set by the class of the kind
    aliases: ClassVar[tuple[str, ...]] = ()                    # other names under which a matrix may ask for it
    default_of_kind: ClassVar[bool] = False                    # taken where a matrix is silent about this kind
    version: ClassVar[int | str] = 1                           # raise it when results change: released components are
                                                               # cached under it
    examples: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)  # options, as in a matrix, that the conformance suite
                                                               # makes it with
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}    # published sets of options: `unet: {preset: small}`

    @classmethod
    def component_name(cls) -> str:
        """'DpmSolverPp' is registered as 'dpm_solver_pp'."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__.rstrip("_")).lower()

    def why_not(self, cell: Cell) -> str | None:
        """Why this component cannot work in this cell, in one sentence, or None; the cell becomes a skipped row."""
        return None

    def needs(self, stage: str, recipe: Recipe) -> tuple[Need, ...]:
        """The artefacts that stages of a kind must have for this component; components in its options are asked
        themselves.

        stage: "train" (of the components of a training), "sample", "features" (extractor and metrics; it stands for
        "reference" too), "evaluate" (the metric, and for a metric of the denoiser the components of the training) or
        "throughput". recipe: what it works in; a cell for all but "train".
        """
        return ()

    def given(self, stage: str, read: Read) -> Self:
        """The component as it works in a stage, called there before anything else: read(role, file) gives the tensors
        of what it needs.

        Networks are also built from a component that was given nothing, to be counted or timed: then shapes alone
        matter.
        """
        return self

    def equal_to(self) -> Component:
        """The component of the same kind that computes exactly the same, where there is one: equal cells run once."""
        return self
