"""The kinds of component: which exist, what each is, and whether it belongs to training or to sampling.

Kept apart from the contracts so that listing and reading a matrix need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of component: an entry-point group, an axis of the matrix and a column of the table."""

    name: str
    base: str                                             # "module:Class" its components derive from
    half: Literal["training", "sampling", "measuring"]    # the half of a cell its options belong to, unless an option says otherwise
    summary: str
    axis: bool = True                                     # may stand under `axes` in matrix.yaml
    scaffold: str = "diffbench.scaffold"                  # package with the template of `diffbench new`: <kind>.py and test_<kind>.py

    @property
    def group(self) -> str:
        """The entry-point group that registers components of this kind."""
        return f"diffbench.{self.name}"


BUILT_IN_KINDS = (
    Kind(name="dataset", base="diffbench.evaluation:Dataset", half="training", summary="images and their condition"),
    Kind(name="backbone", base="diffbench.contracts:Backbone", half="training", summary="the network"),
    Kind(name="noise_schedule", base="diffbench.contracts:NoiseSchedule", half="training", summary="alpha(t) and sigma(t) of x_t = alpha x_0 + sigma eps"),
    Kind(name="parameterization", base="diffbench.contracts:Parameterization", half="training", summary="what the network predicts"),
    Kind(name="objective", base="diffbench.contracts:Objective", half="training", summary="the training loss"),
    Kind(name="conditioning", base="diffbench.contracts:Conditioning", half="training", summary="how a condition enters, and how sampling is steered by it"),
    Kind(name="spacing", base="diffbench.contracts:Spacing", half="sampling", summary="which times a sampler visits"),
    Kind(name="scheduler", base="diffbench.contracts:Scheduler", half="sampling", summary="one reverse step from t to s < t"),
    Kind(name="extractor", base="diffbench.evaluation:Extractor", half="measuring", summary="image to feature vector", axis=False),
    Kind(name="metric", base="diffbench.evaluation:Metric", half="measuring", summary="samples and reference to numbers", axis=False),
)
