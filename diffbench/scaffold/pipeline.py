"""The mean of several runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge
from torch import Tensor

from diffbench import Pipeline, Sampler


@dataclass(frozen=True, kw_only=True)
class Newcomer(Pipeline):
    """A sample is the mean of `count` runs of the sampler, each with noise of its own; one run is `single`."""

    count: Annotated[int, Ge(1)] = 2   # runs

    @property
    def runs(self) -> int:
        return self.count

    def run(self, sampler: Sampler, earlier: Mapping[str, Tensor], index: range) -> Tensor:
        x_0 = sampler()
        for run in range(1, self.count):
            x_0 = x_0 + sampler(run=run)
        return x_0 / self.count
