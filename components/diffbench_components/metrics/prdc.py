"""Precision, recall, density and coverage: how good and how varied, apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import DataError, Evidence, Extractor, Jackknife, Real, SampleMetric, blocks_of, jackknife, jackknifed_mean
from diffbench_components.metrics.features import distances, in_rows, nearest, pair_of

BLOCKS = 20


@dataclass(frozen=True, kw_only=True)
class Prdc(SampleMetric):
    """Precision, recall, density and coverage by balls around features that reach to the k-th neighbour of their own set.

    `precision`: share of generated samples inside some ball of the reference, in [0, 1]. `recall`: share of the reference inside some ball
    of the generated samples. `density`: how many balls of the reference a generated sample lies in, over k; about 1 for the same distribution,
    and not bounded by it. `coverage`: share of balls of the reference that hold a generated sample.
    Each has "_low" and "_high", 95 % over generated samples with the reference held fixed. `recall` and `coverage` rise with the number of
    generated samples, which is part of what they mean: "_debiased" repeats the value, and rows with different counts do not compare.
    Copies of real images score best in all four; `memorisation` tells them.
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991 (precision, recall; k = 3 there); Naeem et al. 2020, arXiv:2002.09797 (density, coverage; k = 5).
    """

    k: Annotated[int, Ge(1)] = 5                                  # the neighbour that a ball reaches to

    prefers_copies: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True
    examples = ({}, {"k": 3})

    def column(self, extractor: Extractor) -> str:
        return "precision"

    def measure(self, generated: Evidence, real: Real) -> dict[str, float | Jackknife]:
        x, y = pair_of(generated, real.reference, "precision and recall")
        if min(len(x), len(y)) < self.k + 1:
            raise DataError(f"balls that reach to neighbour {self.k} need more than {self.k} samples in a set, got {len(x)} generated and {len(y)} real ones")
        blocks = blocks_of(generated)
        inside, held = _balls_of_reference(x, y, self.k, blocks)
        return {"": jackknifed_mean(inside > 0, blocks), "recall": _recall(x, y, self.k, blocks), "density": jackknifed_mean(inside.double() / self.k, blocks),
                "coverage": _share_without(held, blocks)}


def _balls_of_reference(x: Tensor, y: Tensor, k: int, blocks: Tensor | None) -> tuple[Tensor, Tensor]:
    """(in how many balls of y each x lies, [N]; whether each ball holds an x of each block, bool [M, 20] or, without blocks, [M, 1])."""
    radius = nearest(y, y, k, is_same=True)[0][:, -1]             # [M]
    columns = 1 if blocks is None else BLOCKS
    block = torch.zeros(len(x), dtype=torch.int64) if blocks is None else blocks
    inside, held = [], torch.zeros(columns, len(y), dtype=torch.bool)
    for rows, part in in_rows(x, len(y)):
        is_inside = distances(part, y) <= radius                  # [rows, M]
        inside.append(is_inside.sum(1))
        for j in range(columns):
            held[j] |= is_inside[block[rows] == j].any(0)
    return torch.cat(inside), held.T


def _share_without(holds: Tensor, blocks: Tensor | None) -> float | Jackknife:
    """The share of rows in which any column is true, and the same without each column; holds: bool [M, 20], a column for each block."""
    value = float(holds.any(1).double().mean())
    if blocks is None:
        return value
    others = holds.sum(1, keepdim=True) > holds.long()            # true in some other column
    return jackknife(value, others.double().mean(0), is_biased=False)


def _recall(x: Tensor, y: Tensor, k: int, blocks: Tensor | None) -> float | Jackknife:
    """Share of y inside some ball of x; without a block the balls of the others reach farther."""
    radius = nearest(x, x, k, is_same=True)[0][:, -1:].T          # [1, N]
    if blocks is None or len(x) - int(blocks.bincount().max()) <= k:
        return float(_reached(x, y, radius)[0])                   # without a block there would be no k-th neighbour
    shares = _reached(x, y, torch.cat([radius, _radii_without(x, k, blocks)]))
    return jackknife(float(shares[0]), shares[1:], is_biased=False)


def _radii_without(x: Tensor, k: int, blocks: Tensor) -> Tensor:
    """The distance of each x to its k-th neighbour outside of each block, [20, N]; below 0, which no distance is, for those in the block."""
    spare = min(len(x) - 1, 2 * k + 10)
    d, which = nearest(x, x, spare, is_same=True)                 # [N, spare]
    radii = torch.full((BLOCKS, len(x)), -1.0, dtype=torch.float64)
    for j in range(BLOCKS):
        outside = blocks[which] != j
        place = (outside.cumsum(1) == k).long().argmax(1)         # of the k-th neighbour that is left
        radii[j] = d.gather(1, place[:, None])[:, 0]
        short = (outside.sum(1) < k).nonzero()[:, 0]              # one block holds nearly all its neighbours: looked for among all
        if len(short):
            kept = (blocks != j).nonzero()[:, 0]
            radii[j, short] = torch.stack([distances(x[i : i + 1], x[kept[kept != i]]).topk(k, largest=False).values[0, -1] for i in short.tolist()])
        radii[j, blocks == j] = -1.0
    return radii


def _reached(x: Tensor, y: Tensor, radii: Tensor) -> Tensor:
    """The share of y inside some ball of x, for each row of radii [R, N]; float64 [R]."""
    found = torch.zeros(len(radii), dtype=torch.float64)
    for _, part in in_rows(y, len(x)):
        d = distances(part, x)
        found += torch.stack([(d <= radius).any(1).sum() for radius in radii])
    return found / len(y)
