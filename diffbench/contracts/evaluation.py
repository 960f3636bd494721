"""The contracts of what gives images and of what judges them: data sets, extractors and metrics."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from diffbench.contracts.component import Component
from diffbench.contracts.labels import shares_of
from diffbench.contracts.needs import EXTRACTOR_SEED, Need, judge_of
from diffbench.contracts.values import Denoise, Progress, Split, silent
from diffbench.stats.jackknife import Measured, jackknife_blocks, why_no_blocks
from diffbench.stats.label_shares import have_fixed_shares, label_sequence

if TYPE_CHECKING:
    from diffbench.contracts.cell import Cell, Recipe
    from diffbench.contracts.noise_schedule import NoiseSchedule
    from diffbench.stats.frechet import Moments


class Extractor(Component):
    """Images to feature vectors, for distribution metrics."""

    kind = "extractor"

    has_logits: ClassVar[bool] = False                # whether `look` gives logits

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what it reads from outside, such as a file of weights, or "" where nothing;
        raises DataError where that is missing.
        """
        return ""

    def needs(self, stage: str, recipe: Recipe) -> tuple[Need, ...]:
        """Its own weights, where images are looked at."""
        if stage != "features":
            return ()
        return (Need(stage="extractor", parts=(recipe.dataset, self),
                     settings={"seed": EXTRACTOR_SEED, "weights": self.fingerprint()}),)

    def remark(self, image_shape: tuple[int, int, int]) -> str:
        """Note for readers on how images of this shape [C, H, W] are seen, in half a sentence, or ""."""
        return ""

    @property
    def column_suffix(self) -> str:
        """Ending of the name of a column of a distance on these features:
        nothing for Inception-v3 in its published weights and nothing else.
        """
        return f"_{self.component_name()}"

    @property
    def distance_column(self) -> str:
        """Name of the Fréchet distance: `fid` for Inception-v3 in its published weights, else `fd_<extractor>`."""
        return f"fd{self.column_suffix}" if self.column_suffix else "fid"

    @abstractmethod
    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        """(weights by name, facts about the fit such as accuracy); weights are stored and shared by all cells.
        train: in memory.
        """

    @abstractmethod
    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        """uint8 [N, C, H, W] to float64 [N, d] on the host, in evaluation mode."""

    def feature_count(self, image_shape: tuple[int, int, int]) -> int | None:
        """d for images of this shape [C, H, W], where it is known before anything is fitted, else None."""
        return None

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device,
             progress: Progress = silent) -> dict[str, Tensor]:
        """All that is seen of images in one pass:
        `features` and, where its network classifies, `logits`, float64 [N, K].
        """
        return {"features": self.features(weights, images, device)}


class Metric(Component):
    """Named numbers about a cell, units in the names; what it looks at is one of the two kinds below."""

    kind = "metric"
    looks_at: ClassVar[Literal["samples", "denoiser"]]         # which of the two it measures
    higher_is_better: ClassVar[bool] = False          # of the main column
    directions: ClassVar[Mapping[str, bool]] = {}     # and of its other columns by name, where one is better

    def column(self, extractor: Extractor) -> str:
        """Name of the main column."""
        return self.component_name()

    def fingerprint(self) -> str:
        """Text for what its numbers depend on besides its options and its code, such as the SHA-256 of a file of
        weights or the version of a library, or "" where nothing; raises DataError where that is missing.
        """
        return ""

    def for_smoke(self) -> Metric:
        """The same with as little work as still walks its code: what `--smoke` measures."""
        return self


class SampleMetric(Metric):
    """A metric of generated images, seen by an extractor and, where it asks, by a judge."""

    looks_at = "samples"
    needs_judge: ClassVar[bool] = False        # reads Evidence.predicted
    needs_training: ClassVar[bool] = False     # reads Real.train
    needs_logits: ClassVar[bool] = False       # reads Evidence.logits
    needs_class_names: ClassVar[bool] = False  # reads Real.class_names
    has_floor: ClassVar[bool] = True           # real images in place of generated ones have a value as well
    prefers_copies: ClassVar[bool] = False     # is at its best for copies of real images: `memorisation` is then
                                               # measured too
    beside_held_out: ClassVar[bool] = False    # a row also gives what held-out real images have, as
                                               # "<column>_of_held_out"
    removes_bias: ClassVar[bool] = False       # read off blocks, which must hold each class in its share

    def needs(self, stage: str, recipe: Recipe) -> tuple[Need, ...]:
        """A judge of the data set, where it asks for one and images are looked at."""
        return (judge_of(recipe.dataset),) if stage == "features" and self.needs_judge else ()

    def why_no_interval(self, cell: Cell, extractor: Extractor) -> str:
        """Why the main number of a cell may come without an interval, as known before any sample is drawn, or ""."""
        if not self.removes_bias:
            return ""
        dataset, count = cell.dataset, cell.sample.count
        if dataset.classes is None or dataset.condition_shape is not None:
            return why_no_blocks(count, None)
        return why_no_blocks(count, label_sequence(shares_of(cell), count))

    @abstractmethod
    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        """Numbers by name: "" is the main one, "_x" joins the main column's name, any other is a column of its own.

        A Jackknife gives four columns: its value, and "_debiased", "_low" and "_high"; its 20 values with a block left
        out are kept beside the numbers, so that two rows can be compared block by block. A NoInterval gives its value
        and, as "_no_interval", its reason.
        """


class DenoiserMetric(Metric):
    """A metric of the trained denoiser itself, in which no sample is drawn:
    measured once for all cells that share a training.
    """

    looks_at = "denoiser"

    @abstractmethod
    def measure(self, model: TrainedModel, progress: Progress = silent) -> dict[str, Measured]:
        """Numbers by name, as for `SampleMetric`; a function of the model and its seed alone."""


def blocks_of(generated: Evidence, *, is_biased: bool = True) -> Tensor | str:
    """The blocks of a set of images, int64 [N], or the sentence that says why there are none.

    Stratified by class where the shares of classes were fixed beforehand, as for generated samples (see `labels`). Real
    images drawn at random vary in their shares too, and stratified blocks would hide that part of bias and error
    (measured on ten Gaussian classes: 37 % coverage instead of 97 %).
    is_biased: False for a statistic whose bias is not removed. Blocks that do not hold each class in its share will do
    for it: at most they make its error too large.
    """
    labels = generated.labels if generated.labels is not None and have_fixed_shares(generated.labels) else None
    count = len(generated.features)
    return why_no_blocks(count, labels if is_biased else None) or jackknife_blocks(count, labels)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All a metric may see of a set of images."""

    images: Tensor                    # uint8 [N, C, H, W]
    labels: Tensor | None             # int64 [N]: the condition asked for, or the true label
    features: Tensor                  # float64 [N, d]
    predicted: Tensor | None          # int64 [N]: what the judge (a classifier used for nothing else) sees
    logits: Tensor | None = None      # float64 [N, K]: of the extractor, where its network classifies
    moments: Moments | None = None    # of the features, where many sets are compared with this one


@dataclass(frozen=True, kw_only=True)
class Real:
    """What is known of the real images that generated ones are measured against."""

    reference: Evidence               # distances are measured to it
    held_out: Evidence                # seen by nobody: the value that good samples would have
    train: Evidence | None = None     # what the denoiser learnt from, where a metric asks for it
    class_names: tuple[str, ...] = () # of the data set, by label, where a metric asks for them


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """All a metric may see of a trained denoiser;
    nothing here belongs to sampling, so that cells with one training share the numbers.
    """

    denoise: Callable[[Tensor], Denoise]  # of rows of held_out, int64 [B]: the network under their own conditions,
                                          # without guidance
    schedule: NoiseSchedule
    held_out: Split                       # images the network has not seen, on the host
    device: torch.device                  # where images are to be denoised, in any floating dtype
    seed: int                             # of the cell: cells of one seed are to draw the same random numbers
