"""A training of the biases alone."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from diffbench import Batch, Method, Network, Recipe


@dataclass(frozen=True, kw_only=True)
class Newcomer(Method):
    """Only the biases are trained, by the objective of the recipe; every other parameter stays as it was built."""

    def prepare(self, model: nn.Module) -> list[nn.Parameter]:
        return [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]

    def loss(self, network: Network, batch: Batch, recipe: Recipe) -> Tensor:
        return recipe.objective.loss(network(batch), batch.noised, recipe.noise_schedule, recipe.parameterization)

    def finish(self, model: nn.Module, average: Sequence[Tensor]) -> dict[str, Tensor]:
        names = [name for name, _ in model.named_parameters() if name.endswith("bias")]
        return {**model.state_dict(), **dict(zip(names, average, strict=True))}
