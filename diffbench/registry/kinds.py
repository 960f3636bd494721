"""The kinds of component: which exist, what each is, and whether it belongs to training or to sampling.

Kept apart from the contracts so that listing and reading a matrix need no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffbench.registry.entry_points import is_name

# what stands beside kinds in cells, in rules and where rows are chosen
TAKEN = ("train", "sample", "seed", "noise_seed", "steps", "why")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of component: an entry-point group, an axis of the matrix and a column of the table."""

    name: str
    base: str                                             # "module:Class" its components derive from
    # The half of a cell that it belongs to, and so the stages whose keys it enters: "training" those of the training
    # and all after it, "sampling" those of the samples and after. An option may say that it belongs to a later half.
    # What measures is the same for a whole matrix.
    half: Literal["training", "sampling", "measuring"]
    summary: str
    axis: bool = True                     # may stand under `axes` in matrix.yaml; False of what measures
    scaffold: str = "diffbench.scaffold"  # package with the template of `diffbench new`: <kind>.py and test_<kind>.py

    def __post_init__(self) -> None:
        if not is_name(self.name) or self.name in TAKEN:
            raise ValueError(f"no kind can have the name {self.name!r}: write a-z, digits and '_', at most 64, and "
                             f"none of {', '.join(TAKEN)}")
        if self.half == "measuring" and self.axis:
            raise ValueError(f"the kind {self.name!r} measures, so it is one for a whole matrix: write axis=False")

    @property
    def group(self) -> str:
        """The entry-point group that registers components of this kind."""
        return f"diffbench.{self.name}"


BUILT_IN_KINDS = (
    Kind(name="dataset", base="diffbench.contracts.dataset:Dataset", half="training",
         summary="images and their condition"),
    Kind(name="backbone", base="diffbench.contracts.model:Backbone", half="training", summary="the network"),
    Kind(name="noise_schedule", base="diffbench.contracts.noise_schedule:NoiseSchedule", half="training",
         summary="alpha(t) and sigma(t) of x_t = alpha x_0 + sigma eps"),
    Kind(name="parameterization", base="diffbench.contracts.model:Parameterization", half="training",
         summary="what the network predicts"),
    Kind(name="objective", base="diffbench.contracts.model:Objective", half="training", summary="the training loss"),
    Kind(name="conditioning", base="diffbench.contracts.model:Conditioning", half="training",
         summary="how a condition enters, and how sampling is steered by it"),
    Kind(name="spacing", base="diffbench.contracts.sampler:Spacing", half="sampling",
         summary="which times a sampler visits"),
    Kind(name="scheduler", base="diffbench.contracts.sampler:Scheduler", half="sampling",
         summary="one reverse step from t to s < t"),
    Kind(name="process", base="diffbench.contracts.process:Process", half="training",
         summary="how data become noise, and what sampling starts from"),
    Kind(name="autoencoder", base="diffbench.contracts.autoencoder:Autoencoder", half="training",
         summary="from data to the space that diffusion runs in, and back"),
    Kind(name="text_encoder", base="diffbench.contracts.text_encoder:TextEncoder", half="training",
         summary="from what is said of samples to what networks are told"),
    Kind(name="method", base="diffbench.contracts.method:Method", half="training", summary="how weights come to be"),
    Kind(name="pipeline", base="diffbench.contracts.pipeline:Pipeline", half="sampling",
         summary="how samples are made of runs of the sampler"),
    Kind(name="extractor", base="diffbench.contracts.evaluation:Extractor", half="measuring",
         summary="image to feature vector", axis=False),
    Kind(name="metric", base="diffbench.contracts.evaluation:Metric", half="measuring",
         summary="samples and reference to numbers", axis=False),
)
