"""The contract of autoencoders: between the data and the space that diffusion runs in. Used by `diffusion.latents`."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from diffbench.contracts.component import Component


class Encoded(NamedTuple):
    """What an encoder makes of a batch: a Gaussian for each number of the latents, z = mean + std n."""

    mean: Tensor                      # [B, C', *space']
    std: Tensor | None = None         # the same; None where latents are exact


class Autoencoder(Component):
    """From data to latents, which are noised and drawn in place of the data, and back."""

    kind = "autoencoder"
    is_identity: ClassVar[bool] = False               # claims that latents are the data

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The range of latents, to which x0_hat is clamped under `sample.clip`; None where nothing is to be clamped."""
        return None

    @abstractmethod
    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """(C', *space') of the latents of data of shape (C, *space)."""

    @abstractmethod
    def module(self, shape: tuple[int, ...]) -> nn.Module:
        """A module for data of this shape: encode(x) -> Encoded, decode(z) -> x.

        x: float32 [B, C, *space] in [-1, 1], z: float32 [B, C', *space'].
        """
