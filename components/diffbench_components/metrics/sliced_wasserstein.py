"""The sliced Wasserstein distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Evidence, Extractor, Measured, Real, SampleMetric, blocks_of, jackknifed
from diffbench_components.metrics.features import pair_of


@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein(SampleMetric):
    """Sliced Wasserstein distance of features, squared; lower is better.

    Mean over directions of the squared Wasserstein distance between both sets of features projected on each.
    A square, unit: features squared, >= 0, and no assumption that features are Gaussian. Directions are uniform on the
    sphere and the same for every row, for they depend on `seed` and the number of features alone. For two sets that
    differ by a shift m it is |m|²/d on average. "": too large by about c/N, as a Fréchet distance is; "_debiased",
    "_low", "_high": without that, and its 95 % interval over generated samples, from 40 samples on (of each class whose
    share was fixed: a multiple of 20, or about 80), where the bias falls as 1/N.
    Source: Rabin et al. 2011, "Wasserstein barycenter and its application to texture mixing"; Bonneel et al. 2015, J.
    Math. Imaging Vision 51.
    """

    directions: Annotated[int, Ge(1)] = 256                       # onto which features are projected
    seed: Annotated[int, Ge(0)] = 0                               # of the directions

    prefers_copies: ClassVar[bool] = True
    removes_bias: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return f"sliced_wasserstein{extractor.column_suffix}"

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        x, y = pair_of(generated, real.reference, "a sliced Wasserstein distance")
        normals = torch.randn(x.shape[1], self.directions, dtype=torch.float64,
                              generator=torch.Generator().manual_seed(self.seed))
        onto = normals / normals.norm(dim=0)                      # [d, directions]
        x, order = (x @ onto).T.contiguous().sort(1)              # [directions, N]
        y = (y @ onto).T.contiguous().sort(1).values

        def distance(kept: Tensor) -> float:
            """Of those samples alone: sorted they stay in order, and each direction keeps as many."""
            return float(squared_distance(x[kept[order]].view(len(x), -1), y).mean())
        return {"": jackknifed(distance, blocks_of(generated), x.shape[1])}


def squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """W_2² between the rows of x [P, N] and y [P, M], each row sorted: exact for N != M too, [P]."""
    n, m = x.shape[1], y.shape[1]
    if n == m:
        return (x - y).square().mean(1)
    # Both quantile functions are steps; between neighbours of the union of their ends, in units of 1/(n m), both are
    # constant.
    ends = torch.cat([torch.arange(1, n + 1) * m, torch.arange(1, m + 1) * n]).unique()
    widths = ends.diff(prepend=torch.zeros(1, dtype=ends.dtype)).double() / (n * m)
    return (x[:, (ends - 1) // m] - y[:, (ends - 1) // n]).square() @ widths
