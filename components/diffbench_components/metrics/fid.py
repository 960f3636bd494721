"""The Fréchet distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffbench import Evidence, Extractor, Measured, Real, SampleMetric, blocks_of, enough_samples, frechet_distance

if TYPE_CHECKING:
    from diffbench import Cell


@dataclass(frozen=True, kw_only=True)
class Fid(SampleMetric):
    """Fréchet distance of features; lower is better.

    The column is `fid` only on Inception-v3 in its published weights, else `fd_<extractor>`.
    "": the conventional, biased value, >= 0, unit: features squared; it exists for any N >= 2, fewer samples than
    features included. "_debiased": the same without the bias of N generated samples, by a parabola in 1/N through N, 19
    N/20 and N/2 samples; may be slightly negative. "_low", "_high": 95 % interval of "_debiased", not of "", which is
    too large by about c/N with a c of its own for each model. The bias of a finite reference stays in all of them
    alike. These three are given from N = 40 and twice the effective number of features on ((Σ s)²/Σ s², s the standard
    deviations of the reference along its principal directions), where what the parabola leaves of the bias is less than
    a quarter of a standard error; else "_no_interval" says why, and what N would do. About 0.6 d^(3/2) samples do
    for d features that all vary alike. Classes whose shares were fixed need a multiple of 20 samples each, or about 80.
    Measured on 64 features (docs/metrics.md): intervals that are given hold the truth in 92 to 99 % of draws. The
    p-value of a difference is below 0.05 in 10 to 15 % of equal pairs where few directions hold the variance (i^-2) of
    features with heavy tails, and is not to be trusted there.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6; the bias: Chong & Forsyth 2020, arXiv:1911.07023.
    """

    prefers_copies: ClassVar[bool] = True
    removes_bias: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return extractor.distance_column

    def why_no_interval(self, cell: Cell, extractor: Extractor) -> str:
        count, features = cell.sample.count, extractor.feature_count(cell.dataset.image_shape)
        if reason := super().why_no_interval(cell, extractor):
            return reason
        if features is None:
            return f"whether {count:,} samples give one is decided by the number of features and their spectrum"
        if count >= enough_samples(features):
            return ""
        return (f"{count:,} samples of {features:,} features give one where the reference's spectrum is steep enough; "
                f"about {enough_samples(features):,} do whatever it is")

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        target = real.reference.moments or real.reference.features
        return {"": frechet_distance(generated.features, target, blocks_of(generated))}
