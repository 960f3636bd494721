"""Image metrics of the library torchmetrics as columns of our tables."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import (
    DataError,
    Diverged,
    Evidence,
    Extractor,
    Measured,
    NoInterval,
    OptionError,
    Real,
    SampleMetric,
    blocks_of,
    frechet_distance,
    incidental_option,
    jackknifed,
)
from diffbench_components.metrics import torchmetrics_classes as classes
from diffbench_components.metrics import torchmetrics_inputs as inputs
from diffbench_components.metrics.features import pair_of
from diffbench_components.metrics.torchmetrics_states import CannotBeMerged, merged, state_after, value_of
from diffbench_components.metrics.torchmetrics_weights import Given, fingerprint, local_backbone, towers

if TYPE_CHECKING:
    from diffbench import Cell

BLOCKS, BATCH = 20, 64  # of samples; images per update
FRECHET = ("fid", "mifid")
DRAWS = "it draws random numbers, such as subsets, whose spread a jackknife would count as an error of the samples"


@dataclass(frozen=True, kw_only=True)
class Torchmetrics(SampleMetric):
    """An image metric of torchmetrics in a column `tm_<name>`, with our interval where its structure allows one.

    What a metric is given follows from its `update`. Sets (`fid`, `kid`, `mifid`): the extractor's features of
    generated and of real images, so that no network is loaded, and the column ends as other distances of these features
    do; with Inception's published weights that is torchmetrics with `antialias=False`. `inception_score`: the
    extractor's logits. Pairs (`ssim`, `ms_ssim`, `psnr`, `lpips`, `dists`, `vif`, `uqi`, ...): images in [0, 1], each
    sample with its true image where the condition of a data set is an image, or (`pairs: diversity`, column
    `tm_<name>_diversity`) disjoint pairs of samples of one class, in which alike is worse. Texts (`clip_score`): each
    sample with the text that `template` makes of its class. `tv`: each sample alone. Values are in the units and the
    direction of torchmetrics. Networks run on the CPU, from local files: nothing is downloaded.
    "_low", "_high": 95 %, by a jackknife over 20 blocks of samples or pairs. Sets and logits are measured again without
    each block, and their "_debiased" is without the bias of finitely many samples (`fid`, `mifid`: where a Fréchet
    distance of ours has an interval). Of images the states of blocks are added, and "_debiased" repeats the value.
    No interval: `kid`, and `inception_score` in more than one part, which draw subsets at random, from `seed`; `kid`
    and `inception_score` of ours have one. The spread between subsets is not given.
    Source: Detlefsen et al. 2022, JOSS 7(70), 4101; each metric's own is in its documentation.
    """

    name: str  # in torchmetrics: kid, or KernelInceptionDistance
    options: tuple[str, ...] = ()  # of its constructor: name=value, such as [subset_size=50, degree=3]
    pairs: Literal["truth", "diversity"] = "truth"  # of two images: sample and true image, or two samples of one class
    real: Literal["reference", "train"] = "reference"  # what a set is compared with; mifid tells copies of train only
    template: str = "a photo of {class}"  # text of a sample, for clip_score
    weights: str = incidental_option("")  # file of torchvision's backbone (lpips, dists), or folder of a CLIP model
    seed: Annotated[int, Ge(0)] = 0  # of what the metric draws

    examples = (
        {"name": "fid"},
        {"name": "mifid"},
        {"name": "kid", "options": ("subset_size=50",)},
        {"name": "inception_score"},
        {"name": "ssim", "pairs": "diversity"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "name", classes.short_name(self.name))
        if self._class.why_unfit:
            raise OptionError(f"torchmetrics: {self._class.name} cannot be given samples: {self._class.why_unfit}")
        if "{class}" not in self.template:
            raise OptionError(
                f"template must hold {{class}}, where the name of the class is put, got {self.template!r}"
            )
        object.__setattr__(self, "options", classes.canonical_options(self._class, self.options))

    @property
    def higher_is_better(self) -> bool | None:
        better = self._class.higher_is_better
        return better if better is None else better != self._is_diversity

    @property
    def prefers_copies(self) -> bool:
        return self._class.takes in ("sets", "logits") and self.real == "reference"

    @property
    def removes_bias(self) -> bool:
        return self._class.takes in ("sets", "logits")

    @property
    def needs_training(self) -> bool:
        return self._class.takes == "sets" and self.real == "train"

    @property
    def needs_logits(self) -> bool:
        return self._class.takes == "logits"

    @property
    def needs_class_names(self) -> bool:
        return self._class.takes == "texts"

    @property
    def has_floor(self) -> bool:
        return self._class.takes != "pairs" or self._is_diversity

    @property
    def _class(self) -> classes.MetricClass:
        return classes.known_classes()[self.name]

    @property
    def _is_diversity(self) -> bool:
        return self._class.takes == "pairs" and self.pairs == "diversity"

    @property
    def _chosen(self) -> dict[str, Any]:
        return dict(classes.parsed(self._class, text) for text in self.options)

    def column(self, extractor: Extractor) -> str:
        suffix = extractor.column_suffix if self.removes_bias else "_diversity" if self._is_diversity else ""
        return f"tm_{self.name}{suffix}"

    def fingerprint(self) -> str:
        version = importlib.metadata.version("torchmetrics")
        return f"torchmetrics {version} {fingerprint(self.name, self._chosen, self.weights)}".strip()

    def why_not(self, cell: Cell) -> str | None:
        dataset, takes, name = cell.dataset, self._class.takes, cell.dataset.component_name()
        if takes == "pairs" and not self._is_diversity and dataset.condition_shape is None:
            return (
                f"{self.name} compares each sample with its true image, and samples of {name} have none; "
                "{pairs: diversity} compares samples of one class with each other"
            )
        if self._is_diversity and dataset.condition_shape is not None:
            return (
                f"{self.name} compares samples of one condition, and each sample of {name} has a condition of its own"
            )
        if self._is_diversity and cell.sample.count < 2 * (dataset.classes or 1):
            return f"{self.name} compares two samples of each class, and sample.count is {cell.sample.count}"
        if takes == "texts" and (dataset.classes is None or not cell.conditioning.is_conditional):
            return f"{self.name} needs a class that was asked for, whose name is the text"
        subset = self._chosen.get("subset_size", self._class.options.get("subset_size", 0))
        if isinstance(subset, int) and subset > cell.sample.count:
            return (
                f"{self.name} draws subsets of {subset} samples, and sample.count is {cell.sample.count}: "
                "write options: [subset_size=N] with a smaller N"
            )
        return _why_not_of(self, dataset.image_shape)

    def why_no_interval(self, cell: Cell, extractor: Extractor) -> str:
        return DRAWS if "subsets" in self._class.options else super().why_no_interval(cell, extractor)

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        with self._in_the_library():
            if self.removes_bias:
                return {"": self._of_features(generated, real)}
            return {"": self._of_images(generated, real)}

    @contextmanager
    def _in_the_library(self) -> Iterator[None]:
        """Random numbers from `seed` alone, networks from local files, and the library's errors as ours."""
        with torch.random.fork_rng(devices=[]), torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that features are kept, and that few samples are few
            torch.default_generator.manual_seed(self.seed)
            try:
                with local_backbone(self.name, self._chosen, self.weights):
                    yield
            except (ValueError, RuntimeError, TypeError) as error:
                raise DataError(f"torchmetrics: {self._class.name}: {' '.join(str(error).split())}") from error

    def _made(self, features: int = 1) -> Any:
        """The library's metric; its features are what it is given."""
        known = self._class.options
        options = classes.with_defaults(self._class, self._chosen)
        if "feature" in known:
            options["feature"] = Given(features)
        if "model_name_or_path" in known:
            options["model_name_or_path"] = lambda: towers(self.weights)
        made = getattr(importlib.import_module(self._class.module), self._class.name)(**options)
        return made if self.name in inputs.IN_COLOUR else made.set_dtype(torch.float64)

    def _of_features(self, generated: Evidence, real: Real) -> Measured:
        known = (real.train if self.real == "train" else real.reference) if self._class.takes == "sets" else None
        if known is not None:
            seen, target = pair_of(generated, known, f"torchmetrics' {self.name}")
        elif self._class.takes == "sets":
            raise DataError(f"torchmetrics' {self.name} needs training images, and got none")
        elif generated.logits is None:
            raise DataError(f"torchmetrics' {self.name} needs logits, and got none")
        else:
            seen, target = generated.logits.double(), None
        metric = self._made(seen.shape[1])

        def statistic(kept: Tensor, seed: int = self.seed) -> float:
            torch.default_generator.manual_seed(seed)
            metric.reset()
            if target is None:
                metric.update(seen[kept])
            else:
                metric.update(target, real=True)
                metric.update(seen[kept], real=False)
            return self._number(metric.compute())

        whole = torch.ones(len(seen), dtype=torch.bool)
        value, blocks = statistic(whole), blocks_of(generated)
        if not isinstance(blocks, str) and not math.isclose(value, statistic(whole, self.seed + 1), rel_tol=1e-9):
            blocks = DRAWS
        if not isinstance(blocks, str) and self.name in FRECHET:
            own = frechet_distance(seen, target, blocks)
            blocks = own.reason if isinstance(own, NoInterval) else blocks
        return NoInterval(value, blocks) if isinstance(blocks, str) else jackknifed(statistic, blocks, len(seen))

    def _of_images(self, generated: Evidence, real: Real) -> Measured:
        units, update = self._updates(generated, real)
        metric = self._made()

        def state_of(rows: Tensor) -> dict[str, Any]:
            return state_after(metric, lambda: [update(metric, part) for part in rows.split(BATCH)])

        blocks, count = blocks_of(units, is_biased=False), len(units.features)
        if not isinstance(blocks, str):
            states = [state_of((blocks == j).nonzero()[:, 0]) for j in range(BLOCKS)]
            try:
                return jackknifed(
                    lambda kept: self._number(
                        value_of(metric, merged(metric, [states[j] for j in blocks[kept].unique()]))
                    ),
                    blocks,
                    count,
                    is_biased=False,
                )
            except CannotBeMerged as error:
                blocks = str(error)
        return NoInterval(self._number(value_of(metric, state_of(torch.arange(count)))), blocks)

    def _updates(self, generated: Evidence, real: Real) -> tuple[Evidence, inputs.Update]:
        """(what is put into blocks: samples, or the first sample of each pair; the update by rows of it)."""
        if self._class.takes == "texts":
            texts = [self.template.replace("{class}", name) for name in real.class_names]
            return generated, inputs.updates_of_texts(self.name, generated, texts)
        if self._class.takes == "images":
            return generated, inputs.updates_of_images(self.name, generated.images)
        if self._is_diversity:
            return inputs.updates_of_diversity(self.name, generated)
        return generated, inputs.updates_of_truth(self.name, generated, real)

    def _number(self, computed: Any) -> float:
        """The main number: of a mean and a spread the mean."""
        value = float(computed[0] if isinstance(computed, tuple) else computed)
        if not math.isfinite(value):
            raise Diverged(f"torchmetrics' {self.name} of these samples is {value}, which no table can hold")
        return value


@functools.cache
def _why_not_of(metric: Torchmetrics, image_shape: tuple[int, int, int]) -> str | None:
    """Why the library refuses images of this shape [C, H, W], as two of them tell.

    Raises OptionError for wrong options, DataError for missing files.
    """
    metric.fingerprint()
    try:
        with metric._in_the_library():
            made = metric._made()
    except DataError as error:
        if isinstance(error.__cause__, ValueError | TypeError):
            raise OptionError(f"{error}") from None
        raise
    if metric.removes_bias:
        return None
    images = torch.randint(0, 256, (4, *image_shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    some = Evidence(images=images, labels=torch.zeros(4, dtype=torch.int64), features=torch.zeros(4, 1), predicted=None)
    try:
        with metric._in_the_library():
            _, update = metric._updates(some, Real(reference=some, held_out=some, class_names=("zero",)))
            update(made, torch.arange(2))
    except DataError as error:
        return f"images of {list(image_shape)} are refused: {error}"
    return None
