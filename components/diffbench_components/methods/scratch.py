"""A training by itself, from the initialisation on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from diffbench import Batch, Method, Network, Recipe


@dataclass(frozen=True, kw_only=True)
class Scratch(Method):
    """Every parameter is trained, by the objective of the recipe alone; samples are drawn from the moving average."""

    default_of_kind = True

    def prepare(self, model: nn.Module) -> list[nn.Parameter]:
        return [p for p in model.parameters() if p.requires_grad]

    def loss(self, network: Network, batch: Batch, recipe: Recipe) -> Tensor:
        return recipe.objective.loss(network(batch), batch.noised, recipe.noise_schedule, recipe.parameterization)

    def finish(self, model: nn.Module, average: Sequence[Tensor]) -> dict[str, Tensor]:
        names = [name for name, p in model.named_parameters() if p.requires_grad]
        # buffers are kept, parameters averaged
        return {**model.state_dict(), **dict(zip(names, average, strict=True))}
