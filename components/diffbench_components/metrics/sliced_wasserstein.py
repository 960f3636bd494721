"""The sliced Wasserstein distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Evidence, Extractor, Jackknife, Real, SampleMetric, blocks_of, jackknifed
from diffbench_components.metrics.features import pair_of


@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein(SampleMetric):
    """Mean over directions of the squared Wasserstein distance between both sets of features projected on each.

    A square, unit: features squared, >= 0, and no assumption that features are Gaussian. Directions are uniform on the sphere and the same for
    every row, for they depend on `seed` and the number of features alone. For two sets that differ by a shift m it is |m|²/d on average.
    "": too large by about c/N, as a Fréchet distance is; "_debiased", "_low", "_high": without that, and its 95 % interval over generated samples.
    Source: Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing"; Bonneel et al. 2015, J. Math. Imaging Vision 51.
    """

    directions: Annotated[int, Ge(1)] = 256                       # onto which features are projected
    seed: Annotated[int, Ge(0)] = 0                               # of the directions

    prefers_copies: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return f"sliced_wasserstein{extractor.column_suffix}"

    def measure(self, generated: Evidence, real: Real) -> dict[str, float | Jackknife]:
        x, y = pair_of(generated, real.reference, "a sliced Wasserstein distance")
        normals = torch.randn(x.shape[1], self.directions, dtype=torch.float64, generator=torch.Generator().manual_seed(self.seed))
        onto = normals / normals.norm(dim=0)                      # [d, directions]
        x, y = x @ onto, (y @ onto).sort(0).values
        return {"": jackknifed(lambda kept: float(squared_distance(x[kept].sort(0).values, y).mean()), blocks_of(generated), len(x))}


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """W_2² between the columns of x [N, P] and y [M, P], each column sorted: exact for N != M too, [P]."""
    n, m = len(x), len(y)
    # Both quantile functions are steps; between neighbours of the union of their ends, in units of 1/(n m), both are constant.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=torch.zeros(1, dtype=ends.dtype)).double() / (n * m)
    rows_x, rows_y = (ends - 1) // m, (ends - 1) // n
    return (widths[:, None] * (x[rows_x] - y[rows_y]).square()).sum(0)
