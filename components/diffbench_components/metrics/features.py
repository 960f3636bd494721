"""What metrics of pairs of features share: the check of both sets, and distances in rows that fit the memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffbench import DataError, Diverged, Evidence

PAIRS = 1 << 24                       # distances held at once: 128 MiB in float64


def pair_of(generated: Evidence, reference: Evidence, what: str) -> tuple[Tensor, Tensor]:
    """Both sets of features, float64 [N, d] and [M, d]; raises DataError where they do not belong together, Diverged where they are not finite."""
    x, y = generated.features.double(), reference.features.double()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(f"{what} needs features [N, d] and [M, d] with N, M >= 2, got {list(x.shape)} and {list(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise Diverged(f"features are not finite: no {what.removeprefix('a ')} exists")
    return x, y


def in_rows(x: Tensor, columns: int) -> Iterator[tuple[slice, Tensor]]:
    """x in slices of so many rows that a matrix of them with so many columns stays within PAIRS."""
    size = max(1, PAIRS // max(1, columns))
    for first in range(0, len(x), size):
        yield slice(first, min(first + size, len(x))), x[first : first + size]


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances [N, M], float64. By differences of squares: about 1e-7 of the features' size is lost, nothing of equal features."""
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None] - 2 * (x @ y.T)
    d = squares.clamp_(min=0).sqrt_()
    # Where a difference is small against the features the digits are gone: those are worked out directly.
    near = d < 1e-5 * (x.square().sum(1)[:, None] + y.square().sum(1)[None]).sqrt()
    rows, columns = near.nonzero(as_tuple=True)
    d[rows, columns] = (x[rows] - y[columns]).square().sum(1).sqrt()
    return d


def nearest(x: Tensor, y: Tensor, count: int, *, is_same: bool = False) -> tuple[Tensor, Tensor]:
    """(distances, indices) of the `count` nearest of y to each of x, [N, count] ascending; is_same: x is y, and none is its own neighbour."""
    parts = []
    for rows, part in in_rows(x, len(y)):
        d = distances(part, y)
        if is_same:
            d[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = torch.inf
        parts.append(d.topk(count, largest=False))
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
