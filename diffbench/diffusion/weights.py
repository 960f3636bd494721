"""Weights of a denoiser that come from elsewhere: whether they fit, and what does not.

Used by the plan, by stages and by loaded models.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from diffbench.contracts.cell import Recipe
from diffbench.diffusion.denoiser import Denoiser
from diffbench.errors import DiffbenchError

MOST_NAMED = 5                        # tensors of each sort that a message names


def denoiser_tensors(recipe: Recipe) -> dict[str, Tensor]:
    """Names and shapes of the tensors of a recipe's denoiser (`network.*`, `condition.*`), on the meta device."""
    with torch.device("meta"):
        return Denoiser(recipe).state_dict()


def misfit(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> str:
    """'2 missing: network.a, network.b; 1 unexpected: x': the tensors in which weights differ from a network's own.

    '' where they fit.
    """
    missing = [name for name in own if name not in weights]
    beyond = [name for name in weights if name not in own]
    shaped = [f"{name} {list(weights[name].shape)} in place of {list(own[name].shape)}" for name in own
              if name in weights and weights[name].shape != own[name].shape]
    return "; ".join(f"{len(names)} {what}: {', '.join(names[:MOST_NAMED])}"
                     + (" ..." if len(names) > MOST_NAMED else "")
                     for what, names in (("missing", missing), ("unexpected", beyond), ("of another shape", shaped))
                     if names)


def fill(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Loads weights; raises DiffbenchError with the first tensors that do not fit."""
    if problems := misfit(model.state_dict(), weights):
        raise DiffbenchError(f"the weights of {origin} are of another architecture; tensors {problems}")
    model.load_state_dict(weights)
