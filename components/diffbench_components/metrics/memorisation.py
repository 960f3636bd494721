"""Whether samples are copies of training images, which every distance between distributions prefers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from diffbench import (
    DataError,
    Evidence,
    Extractor,
    Measured,
    Real,
    SampleMetric,
    blocks_of,
    jackknifed,
    jackknifed_share,
)
from diffbench_components.metrics.features import nearest, pair_of


@dataclass(frozen=True, kw_only=True)
class Memorisation(SampleMetric):
    """Nearest training images of the generated ones, to see what was copied.

    It stands in a row beside that of held-out real images.
    Distances in pixels are root mean squares over an image, in grey levels / 255, so in [0, 1].
    `near_copy_share`: share of images that are `ratio` times nearer to one training image than to any other, or within
    `level` of one.
    `nn_distance_train`, `nn_distance_held_out`: median distance to the nearest image of that split, in pixels; of two
    splits of different size the larger has nearer neighbours. `nn_distance_train_in_features`: the same in the
    extractor's features.
    `authenticity`: share of images that are farther from their nearest training image, in features, than that is from
    its own nearest; copies have 0. Beside each, as "<name>_of_held_out", a row has the same of real images nobody has
    seen, which is what a model that generalises has; it is measured once. A low `authenticity` may also mean that the
    features see little: it is a flag, not a rank. "_low", "_high": 95 % over samples; of shares Wilson's, of medians a
    jackknife, which is rough (90 to 94 %).
    Source: Yoon et al. 2023 ("Diffusion probabilistic models generalize when they fail to memorize") for the ratio;
    Alaa et al. 2022, arXiv:2102.08921, for authenticity, as in Stein et al. 2023, arXiv:2306.04675.
    """

    default_of_kind: ClassVar[bool] = True
    needs_training: ClassVar[bool] = True
    beside_held_out: ClassVar[bool] = True

    ratio: Annotated[float, Interval(gt=0, lt=1)] = 1 / 3  # distance to the nearest over that to the second nearest
    level: Annotated[float, Gt(0)] = 2 / 255               # root mean square below which two images count as one

    def column(self, extractor: Extractor) -> str:
        return "near_copy_share"

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        if real.train is None or min(len(real.train.images), len(real.held_out.images)) < 2:
            raise DataError("memorisation needs at least two training and two held-out images")
        blocks, measured = blocks_of(generated, is_biased=False), {}
        for name, values in self._seen(generated, real).items():
            measured["" if name == "near_copy_share" else name] = jackknifed_share(
                values, blocks) if values.dtype == torch.bool else _median(values, blocks)
        return measured

    def _seen(self, some: Evidence, real: Real) -> dict[str, Tensor]:
        """Each number for each image, [N]: bool for what is a share, float64 for what has a median."""
        train = pixels(real.train)
        first, second = nearest(pixels(some), train, 2)[0].sqrt().unbind(1)
        values = {"near_copy_share": (first < self.ratio * second) | (first < self.level), "nn_distance_train": first}
        if some is not real.held_out:
            values["nn_distance_held_out"] = nearest(pixels(some), pixels(real.held_out), 1)[0][:, 0].sqrt()
        features, known = pair_of(some, real.train, "memorisation")
        squares, which = (of_each[:, 0] for of_each in nearest(features, known, 1))
        # Only of those training images that are somebody's nearest: their nearest but themselves.
        needed, place = which.unique(return_inverse=True)
        own = nearest(known[needed], known, 2)[0][:, 1]
        return values | {"nn_distance_train_in_features": squares.sqrt(), "authenticity": squares > own[place]}


def pixels(evidence: Evidence) -> Tensor:
    """Images as vectors whose Euclidean distance is the root mean square of differences, float64 [N, C H W]."""
    flat = evidence.images.flatten(1).double() / 255
    return flat / flat.shape[1] ** 0.5


def _median(values: Tensor, blocks: Tensor | str) -> Measured:
    return jackknifed(lambda kept: float(values[kept].median()), blocks, len(values), is_biased=False)
