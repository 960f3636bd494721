"""The contract of pipelines: how samples are made of runs of a cell's sampler. Used by drawing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from diffbench.contracts.component import Component


class Sampler(Protocol):
    """The sampler of a cell for a batch of samples, with its own denoiser, guidance, clipping and noise."""

    def __call__(self, run: int = 0) -> Tensor:
        """x_0 [B, C, *space], latents where there is an autoencoder; runs of other numbers draw other noise."""


class Pipeline(Component):
    """How samples are made of one or several runs of the sampler; the harness counts the evaluations of all of them."""

    kind = "pipeline"

    @property
    def runs(self) -> int:
        """Claimed number of sampler runs of one sample, numbered from 0."""
        return 1

    @abstractmethod
    def run(self, sampler: Sampler, earlier: Mapping[str, Tensor], index: range) -> Tensor:
        """x_0 [B, C, *space] of the samples with these numbers. earlier: the same of other cells, by role; {} so far.
        """
