"""What metrics of pairs of features share: the check of both sets, and distances in rows that fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from diffbench import DataError, Diverged, Evidence

PAIRS = 1 << 22                       # distances held at once: 32 MiB in float64
NEAR = 1e-10                          # of the squared size of features: closer squares have lost too many digits


def pair_of(generated: Evidence, reference: Evidence, what: str) -> tuple[Tensor, Tensor]:
    """Both sets of features, float64 [N, d] and [M, d];
    raises DataError where they do not belong together, Diverged where they are not finite.
    """
    x, y = generated.features.double(), reference.features.double()
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise DataError(f"{what} needs features [N, d] and [M, d] with N, M >= 2, got {list(x.shape)} and "
                        f"{list(y.shape)}")
    if not (x.isfinite().all() and y.isfinite().all()):
        raise Diverged(f"features are not finite: no {what.removeprefix('a ')} exists")
    return x, y


def in_rows(x: Tensor, columns: int) -> Iterator[tuple[slice, Tensor]]:
    """x in slices of so many rows that a matrix of them with so many columns stays within PAIRS."""
    size = max(1, PAIRS // max(1, columns))
    for first in range(0, len(x), size):
        yield slice(first, min(first + size, len(x))), x[first : first + size]


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|², float64 [N, M], to about 1e-5 relative or better;
    exactly 0 for equal vectors, exact for small integers.
    """
    return squared_distances_to(y)(x)


def squared_distances_to(y: Tensor) -> Callable[[Tensor], Tensor]:
    """`squared_distances` of any x to this set, of which what does not depend on x is worked out once."""
    # Seen from a point of the set: far from the origin all digits would go into |x|² + |y|² - 2 x·y. A set of copies is
    # all zeros then.
    origin, y = y[0], y - y[0]
    y_squares = y.square().sum(1)

    def of(x: Tensor) -> Tensor:
        x = x - origin
        x_squares = x.square().sum(1)
        squares = torch.addmm(y_squares[None], x, y.T, alpha=-2).add_(x_squares[:, None]).clamp_(min=0)
        # What is small against both sizes is worked out from the difference itself, so many pairs at a time.
        threshold = NEAR * (x_squares + y_squares.max())
        suspect = (squares.amin(1) < threshold).nonzero()[:, 0]
        rows, columns = (squares[suspect] < threshold[suspect, None]).nonzero(as_tuple=True)
        for at, row in in_rows(suspect[rows], x.shape[1]):
            squares[row, columns[at]] = (x[row] - y[columns[at]]).square().sum(1)
        return squares
    return of


def nearest(x: Tensor, y: Tensor, count: int, *, is_same: bool = False) -> tuple[Tensor, Tensor]:
    """(squared distances, indices) of the `count` nearest of y to each of x, [N, count] ascending;
    is_same: x is y, and none is its own neighbour.
    """
    parts, distances = [], squared_distances_to(y)
    for rows, part in in_rows(x, len(y)):
        squares = distances(part)
        if is_same:
            squares[torch.arange(len(part)), torch.arange(rows.start, rows.stop)] = torch.inf
        parts.append(squares.topk(count, largest=False))
    return torch.cat([p.values for p in parts]), torch.cat([p.indices for p in parts])
