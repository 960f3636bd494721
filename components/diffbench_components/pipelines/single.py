"""One run of the sampler."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from diffbench import Pipeline, Sampler


@dataclass(frozen=True, kw_only=True)
class Single(Pipeline):
    """A sample is the end of one run of the cell's sampler."""

    default_of_kind = True

    def run(self, sampler: Sampler, earlier: Mapping[str, Tensor], index: range) -> Tensor:
        return sampler()
