"""Precision, recall, density and coverage: how good and how varied, apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import (
    DataError,
    Evidence,
    Extractor,
    Jackknife,
    Measured,
    NoInterval,
    Real,
    SampleMetric,
    blocks_of,
    jackknife,
    jackknifed_mean,
    jackknifed_share,
)
from diffbench_components.metrics.features import in_rows, nearest, pair_of, squared_distances_to

if TYPE_CHECKING:
    from diffbench import Cell

BLOCKS = 20
EDGE = 1 + 1e-9                       # a point on the edge of a ball is inside, however rounding falls


@dataclass(frozen=True, kw_only=True)
class Prdc(SampleMetric):
    """Precision, recall, density and coverage of features by nearest neighbours.

    Balls around features reach to the k-th neighbour of their own set.
    `precision`: share of generated samples inside some ball of the reference, in [0, 1]. `recall`: share of the
    reference inside some ball of the generated samples. `density`: how many balls of the reference a generated sample
    lies in, over k; about 1 for the same distribution, and not bounded by it. `coverage`: share of balls of the
    reference that hold a generated sample. Each has "_low" and "_high", 95 % over generated samples with the reference
    held fixed: of `precision` Wilson's, of the others by a jackknife from 40 samples on, and none where leaving out any
    block of samples gives the same number. Those of `recall` and `coverage` are too wide (about 1.5 times). `recall`
    and `coverage` rise with the number of generated samples, which is part of what they mean: "_debiased" repeats the
    value, and rows with different counts do not compare.
    Copies of real images score best in all four; `memorisation` tells them.
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991 (precision, recall; k = 3 there); Naeem et al. 2020,
    arXiv:2002.09797 (density, coverage; k = 5).
    """

    k: Annotated[int, Ge(1)] = 5                                  # the neighbour that a ball reaches to

    prefers_copies: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True
    directions: ClassVar[Mapping[str, bool]] = {"recall": True, "density": True, "coverage": True}
    examples = ({}, {"k": 3})

    def column(self, extractor: Extractor) -> str:
        return "precision"

    def why_not(self, cell: Cell) -> str | None:
        count = cell.sample.count
        return (None if count > self.k else f"balls that reach to neighbour {self.k} need more than {self.k} samples, "
                                            f"and sample.count is {count}")

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        x, y = pair_of(generated, real.reference, "precision and recall")
        if min(len(x), len(y)) < self.k + 1:
            raise DataError(f"balls that reach to neighbour {self.k} need more than {self.k} samples in a set, got "
                            f"{len(x)} generated and {len(y)} real ones")
        blocks = blocks_of(generated, is_biased=False)
        inside, held = _balls_of_reference(x, y, self.k, blocks)
        return {"": jackknifed_share(inside > 0, blocks), "recall": _recall(x, y, self.k, blocks),
                "density": jackknifed_mean(inside.double() / self.k, blocks), "coverage": _share(held, blocks)}


def _balls_of_reference(x: Tensor, y: Tensor, k: int, blocks: Tensor | str) -> tuple[Tensor, Tensor]:
    """(in how many balls of y each x lies, [N]; whether each ball holds an x, and one beside each block, bool [M, 21]).
    """
    radius = nearest(y, y, k, is_same=True)[0][:, -1] * EDGE      # squared, [M]
    block = torch.zeros(len(x), dtype=torch.int64) if isinstance(blocks, str) else blocks
    inside, holds = [], torch.zeros(len(y), BLOCKS, dtype=torch.bool)
    distances = squared_distances_to(y)
    for rows, part in in_rows(x, len(y)):
        is_inside = distances(part) <= radius                     # [rows, M]
        inside.append(is_inside.sum(1))
        sample, ball = is_inside.nonzero(as_tuple=True)
        holds[ball, block[rows][sample]] = True
    others = holds.sum(1, keepdim=True) > holds.long()            # true in some other block
    return torch.cat(inside), torch.cat([holds.any(1, keepdim=True), others], 1)


def _recall(x: Tensor, y: Tensor, k: int, blocks: Tensor | str) -> Measured:
    """The share of y inside some ball of x.
    Without a block some balls are gone and others grow: their radii are all known beforehand.
    """
    if not isinstance(blocks, str) and len(x) - int(blocks.bincount().max()) <= k:
        blocks = f"without a block of samples there is no neighbour {k}: {k * BLOCKS // (BLOCKS - 1) + 2} would do"
    radii = _radii(x, k, blocks)                                  # squared, [N, 1 or 21]
    largest, reached = radii.amax(1), torch.zeros(len(y), radii.shape[1], dtype=torch.bool)
    distances = squared_distances_to(x)
    for rows, part in in_rows(y, len(x)):
        squares = distances(part)
        real, ball = (squares <= largest).nonzero(as_tuple=True)
        for some, at in in_rows(ball, radii.shape[1]):            # pairs that touch at all: few
            touches = squares[real[some], at][:, None] <= radii[at]
            which, column = touches.nonzero(as_tuple=True)
            reached[rows.start + real[some][which], column] = True
    return _share(reached, blocks)


def _radii(x: Tensor, k: int, blocks: Tensor | str) -> Tensor:
    """Squared distance of each x to its k-th neighbour, [N, 1];
    with blocks, [N, 21]: of all, then without each block, -1 for those in it.
    """
    # A block rarely has more of the nearest 4 k than 3 k.
    count = k if isinstance(blocks, str) else min(4 * k, len(x) - 1)
    while True:
        near, which = nearest(x, x, count, is_same=True)          # [N, count]
        if isinstance(blocks, str):
            return near[:, k - 1 : k] * EDGE
        radii, block = [near[:, k - 1]], blocks[which]
        for j in range(BLOCKS):
            rank = (block != j).cumsum(1)                         # among those that stay
            radius = near.gather(1, (rank >= k).long().argmax(1, keepdim=True))[:, 0]
            radius[rank[:, -1] < k] = torch.nan                   # more neighbours have to be looked at
            radius[blocks == j] = -1
            radii.append(radius)
        distances = torch.stack(radii, 1) * EDGE
        if not distances.isnan().any():
            return distances
        count = min(2 * count, len(x) - 1)


def _share(holds: Tensor, blocks: Tensor | str) -> Measured:
    """The share of rows of the first column, bool [M, 21];
    where there are blocks, the others are the same without each.
    """
    shares = holds.double().mean(0)
    if isinstance(blocks, str):
        return NoInterval(float(shares[0]), blocks)
    share = jackknife(float(shares[0]), shares[1:], is_biased=False)
    return share._replace(low=max(0.0, share.low), high=min(1.0, share.high)) if isinstance(share, Jackknife) else share
