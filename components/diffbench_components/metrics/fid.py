"""The Fréchet distance of generated to reference features, with an interval."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffbench import Evidence, Extractor, Jackknife, Real, SampleMetric, frechet_distance, jackknife_blocks

if TYPE_CHECKING:
    from torch import Tensor

FEWEST_FOR_AN_INTERVAL = 40           # two samples in each of twenty blocks


@dataclass(frozen=True, kw_only=True)
class Fid(SampleMetric):
    """Fréchet distance of features; the column is `fid` only on Inception-v3 in its published weights, else `fd_<extractor>`.

    "": the conventional, biased value, >= 0, unit: features squared. "_debiased": the same without the bias of N generated
    samples (block jackknife; may be slightly negative). "_low", "_high": 95 % interval of "_debiased", not of "", which is too
    large by about c/N with a c of its own for each model. The bias of a finite reference stays in all of them alike.
    Blocks are stratified by class where the shares of classes were fixed beforehand, as for generated samples. Real images
    drawn at random vary in their shares too, and stratified blocks would hide that part of bias and error (measured on ten
    Gaussian classes: 37 % coverage instead of 97 %).
    Below 40 generated samples only "" is given, which exists for any N >= 2, fewer samples than features included.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6; the bias: Chong & Forsyth 2020, arXiv:1911.07023.
    """

    def column(self, extractor: Extractor) -> str:
        return extractor.distance_column

    def measure(self, generated: Evidence, real: Real) -> dict[str, float | Jackknife]:
        count, target = len(generated.features), real.reference.moments or real.reference.features
        if count < FEWEST_FOR_AN_INTERVAL:
            return {"": frechet_distance(generated.features, target)}
        labels = generated.labels if _by_design(generated.labels) else None
        return {"": frechet_distance(generated.features, target, jackknife_blocks(count, labels))}


def _by_design(labels: Tensor | None) -> bool:
    """Whether the classes are as even as they can be: labels that went round, not labels drawn at random."""
    if labels is None:
        return False
    counts = labels.unique(return_counts=True)[1]
    return int(counts.max() - counts.min()) <= 1
