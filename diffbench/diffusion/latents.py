"""The space that diffusion runs in: from data and back by the autoencoder. Used by batches, drawing, trajectories."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.contracts.values import form
from diffbench.errors import BrokenComponent

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe


class Latents:
    """The autoencoder of a recipe on a device. It is no part of the denoiser, and neither trained nor saved with it."""

    def __init__(self, recipe: Recipe, device: torch.device):
        self.name = recipe.autoencoder.component_name()
        self.latent_shape, self.shape = recipe.data_shape, recipe.dataset.shape
        self.module = recipe.autoencoder.module(self.shape).to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def encode(self, x: Tensor, noise: Callable[[], Tensor]) -> Tensor:
        """Data in [-1, 1] to latents, [B, C', *space']; noise(): standard normal numbers in their shape."""
        mean, std = self.module.encode(x)
        return self._checked(mean if std is None else mean + std * noise(), x, self.latent_shape, "latents")

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Latents to data."""
        return self._checked(self.module.decode(z), z, self.shape, "data")

    def _checked(self, made: Tensor, of: Tensor, shape: tuple[int, ...], what: str) -> Tensor:
        if made.shape != (len(of), *shape) or made.dtype != of.dtype:    # would be broadcast or promoted without a word
            wanted = f"{str(of.dtype).removeprefix('torch.')} {[len(of), *shape]}"
            raise BrokenComponent(f"autoencoder {self.name}: its {what} must be {wanted}, got {form(made)}")
        return made
