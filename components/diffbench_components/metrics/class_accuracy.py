"""How often a generated image shows the class it was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffbench import DataError, Evidence, Measured, Real, SampleMetric, wilson

if TYPE_CHECKING:
    from diffbench import Cell


@dataclass(frozen=True, kw_only=True)
class ClassAccuracy(SampleMetric):
    """Share of images that a classifier assigns to the class that was asked for, in [0, 1].

    The classifier is the judge, which is used for nothing else.
    "": the share k/n. "_low", "_high": Wilson's 95 % interval, which stays in [0, 1] and has width at k = 0 and k = n.
    Blind to variety: one good image per class scores 1. The judge errs too: the row of held-out real images is the
    ceiling.
    Source: Shmelkov et al. 2018, arXiv:1807.09499 ("GAN-test"); Wilson 1927, JASA 22(158), p. 209-212. The
    "classification accuracy score" of Ravuri & Vinyals is another thing: it trains on generated images and tests on
    real ones.
    """

    needs_judge: ClassVar[bool] = True
    higher_is_better: ClassVar[bool] = True

    def why_not(self, cell: Cell) -> str | None:
        if cell.dataset.classes is None:
            return f"class_accuracy needs labels; {cell.dataset.component_name()} has none"
        if not cell.conditioning.is_conditional:
            return (f"class_accuracy needs a class that was asked for; under {cell.conditioning.component_name()} the "
                    "network is told none")
        return None

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        if generated.labels is None or generated.predicted is None or not len(generated.labels):
            raise DataError("class_accuracy needs labels and what the judge sees, of at least one image")
        low, high = wilson(int((generated.predicted == generated.labels).sum()), len(generated.labels))
        return {"": float((generated.predicted == generated.labels).double().mean()), "_low": low, "_high": high}
