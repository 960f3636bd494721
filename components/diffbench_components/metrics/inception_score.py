"""The inception score: sure of each image, and of all classes together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from annotated_types import Ge

from diffbench import DataError, Diverged, Evidence, Extractor, Measured, Real, SampleMetric, blocks_of, jackknifed

if TYPE_CHECKING:
    from diffbench import Cell


@dataclass(frozen=True, kw_only=True)
class InceptionScore(SampleMetric):
    """Inception score: exp of the mean KL(p(y | x) || p(y)), in [1, K]; higher is better.

    The K classes are those of the extractor.
    The column is `inception_score` on Inception-v3 in its published weights, else `inception_score_<extractor>`. By
    default of all samples at once. The published number is the mean over 10 parts of 5,000 images, which `splits: 10`
    gives: smaller parts, smaller scores (it is too small by about (K - 1)/2N of itself). "_debiased" is without that,
    "_low" and "_high" its 95 % interval, where the bias falls as 1/N; what is printed as "±" elsewhere is the spread
    between the parts. It never looks at real images, so it says nothing of a distance to them, and copies of one good
    image per class have the best score.
    Source: Salimans et al. 2016, arXiv:1606.03498, section 4.
    """

    splits: Annotated[int, Ge(1)] = 1                             # parts, in order, whose scores are averaged

    higher_is_better: ClassVar[bool] = True
    needs_logits: ClassVar[bool] = True
    removes_bias: ClassVar[bool] = True

    def column(self, extractor: Extractor) -> str:
        return f"inception_score{extractor.column_suffix}"

    def why_not(self, cell: Cell) -> str | None:
        return (None if cell.sample.count >= self.splits else f"{self.splits} parts need as many samples, and "
                                                              f"sample.count is {cell.sample.count}")

    def measure(self, generated: Evidence, real: Real) -> dict[str, Measured]:
        if generated.logits is None or len(generated.logits) < self.splits:
            raise DataError(f"an inception score in {self.splits} parts needs the logits of as many images, got "
                            f"{'none' if generated.logits is None else len(generated.logits)}")
        if not generated.logits.isfinite().all():
            raise Diverged("logits are not finite: no inception score exists")
        logits = generated.logits.double()
        p = logits.softmax(1)                                     # [N, K]
        p_log_p = (p * logits.log_softmax(1)).sum(1)              # [N]

        def score(kept: torch.Tensor) -> float:
            which, scores = kept.nonzero()[:, 0], []
            for i in range(self.splits):
                part = which[i * len(which) // self.splits : (i + 1) * len(which) // self.splits]
                q = p[part].mean(0)
                scores.append((p_log_p[part].mean() - torch.xlogy(q, q).sum()).exp())
            return float(torch.stack(scores).mean())
        blocks = blocks_of(generated)
        if len(p) < 3 * self.splits:                              # a half has to have a sample for each part
            blocks = f"halves of {len(p)} samples are too few for {self.splits} parts: {3 * self.splits} would do"
        return {"": jackknifed(score, blocks, len(p))}
