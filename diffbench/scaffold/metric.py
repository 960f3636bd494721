"""How far the mean of the features is from where it should be."""

from dataclasses import dataclass
from typing import ClassVar

from diffbench import Evidence, Extractor, Measured, Real, SampleMetric, blocks_of, jackknifed


@dataclass(frozen=True, kw_only=True)
class Newcomer(SampleMetric):
    """Squared distance between the mean features of generated and of reference images, in features squared; >= 0, lower
    is better.

    It is the first of the two terms of a Fréchet distance. "": too large by about trace(covariance)/N, as any squared
    distance of means; "_debiased", "_low" and "_high" come from a jackknife: without that, and its 95 % interval.
    """

    prefers_copies: ClassVar[bool] = True  # copies of real images are at 0: `memorisation` is then measured beside it

    def column(self, extractor: Extractor) -> str:
        return f"newcomer{extractor.column_suffix}"

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        x, centre = generated.features, real.reference.features.mean(0)               # [N, d], [d]
        return {"": jackknifed(lambda kept: float((x[kept].mean(0) - centre).square().sum()),
                               blocks_of(generated), len(x))}
