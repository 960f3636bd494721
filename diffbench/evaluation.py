"""The contracts of what gives images and of what judges them: data sets, extractors and metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diffbench.contracts import Component
from diffbench.uncertainty import Jackknife
from diffbench.values import Evidence, Progress, Real, Split, TrainedModel, silent


class Dataset(Component):
    """Images and their condition, in three disjoint splits.

    `train` teaches the denoiser and the classifiers, `reference` is what distances are measured to, `held_out` gives the
    floor: what the same metrics say of real images nobody has seen.
    """

    kind = "dataset"

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def classes(self) -> int | None:
        """Number of labels, or None where there are none."""
        return None

    @property
    def condition_shape(self) -> tuple[int, int, int] | None:
        """(C, h, w) of the image that is the condition, or None where the condition is the label."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content; raises DataError, with what to do, where the data are missing or damaged."""

    def remark(self) -> str:
        """What a reader should know of how files became images, such as how many were left out, in half a sentence, or ""."""
        return ""

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits "train", "reference" and "held_out"."""


class Extractor(Component):
    """Images to feature vectors, for distribution metrics."""

    kind = "extractor"

    has_logits: ClassVar[bool] = False                # whether `look` gives logits

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what it reads from outside, such as a file of weights, or "" where nothing; raises DataError where that is missing."""
        return ""

    def remark(self, image_shape: tuple[int, int, int]) -> str:
        """What a reader should know of how images of this shape [C, H, W] are seen, in half a sentence, or ""."""
        return ""

    @property
    def column_suffix(self) -> str:
        """What a column of a distance on these features ends in: nothing for Inception-v3 in its published weights and nothing else."""
        return f"_{self.component_name()}"

    @property
    def distance_column(self) -> str:
        """Name of the Fréchet distance: `fid` for Inception-v3 in its published weights, else `fd_<extractor>`."""
        return f"fd{self.column_suffix}" if self.column_suffix else "fid"

    @abstractmethod
    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[dict[str, Tensor], dict[str, float | str]]:
        """(weights by name, facts about the fit such as accuracy); weights are stored and shared by all cells."""

    @abstractmethod
    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        """uint8 [N, C, H, W] to float64 [N, d] on the host, in evaluation mode."""

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device, progress: Progress = silent) -> dict[str, Tensor]:
        """All that is seen of images in one pass: `features` and, where its network classifies, `logits`, float64 [N, K]."""
        return {"features": self.features(weights, images, device)}


class Metric(Component):
    """Named numbers about a cell, units in the names; what it looks at is one of the two kinds below."""

    kind = "metric"
    looks_at: ClassVar[Literal["samples", "denoiser"]]
    higher_is_better: ClassVar[bool] = False          # of the main column
    directions: ClassVar[Mapping[str, bool]] = {}     # and of its other columns by name, where one is better

    def column(self, extractor: Extractor) -> str:
        """Name of the main column."""
        return self.component_name()

    def for_smoke(self) -> Metric:
        """The same with as little work as still walks its code: what `--smoke` measures."""
        return self


class SampleMetric(Metric):
    """A metric of generated images, seen by an extractor and, where it asks, by a judge."""

    looks_at = "samples"
    needs_judge: ClassVar[bool] = False               # reads Evidence.predicted
    needs_training: ClassVar[bool] = False            # reads Real.train
    needs_logits: ClassVar[bool] = False              # reads Evidence.logits
    prefers_copies: ClassVar[bool] = False            # is at its best for copies of real images: `memorisation` is then measured too
    beside_held_out: ClassVar[bool] = False           # a row also gives what held-out real images have, as "<column>_of_held_out"

    @abstractmethod
    def measure(self, generated: Evidence, real: Real) -> dict[str, float | Jackknife]:
        """Numbers by name: "" is the main one, "_x" joins the main column's name, any other is a column of its own.

        A Jackknife gives four columns: its value, and "_debiased", "_low" and "_high"; its 20 values with a block left out are kept
        beside the numbers, so that two rows can be compared block by block.
        """


class DenoiserMetric(Metric):
    """A metric of the trained denoiser itself, in which no sample is drawn: measured once for all cells that share a training."""

    looks_at = "denoiser"

    @abstractmethod
    def measure(self, model: TrainedModel, progress: Progress = silent) -> dict[str, float | Jackknife]:
        """Numbers by name, as for `SampleMetric`; a function of the model and its seed alone."""
