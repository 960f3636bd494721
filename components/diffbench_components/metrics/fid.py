"""The Fréchet distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from diffbench import Evidence, Extractor, Jackknife, Real, SampleMetric, blocks_of, frechet_distance


@dataclass(frozen=True, kw_only=True)
class Fid(SampleMetric):
    """Fréchet distance of features; the column is `fid` only on Inception-v3 in its published weights, else `fd_<extractor>`.

    "": the conventional, biased value, >= 0, unit: features squared. "_debiased": the same without the bias of N generated
    samples (block jackknife; may be slightly negative). "_low", "_high": 95 % interval of "_debiased", not of "", which is too
    large by about c/N with a c of its own for each model. The bias of a finite reference stays in all of them alike.
    Below 40 generated samples only "" is given, which exists for any N >= 2, fewer samples than features included.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6; the bias: Chong & Forsyth 2020, arXiv:1911.07023.
    """

    prefers_copies: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return extractor.distance_column

    def measure(self, generated: Evidence, real: Real) -> dict[str, float | Jackknife]:
        target, blocks = real.reference.moments or real.reference.features, blocks_of(generated)
        return {"": frechet_distance(generated.features, target) if blocks is None else frechet_distance(generated.features, target, blocks)}
