"""The contract of training methods: how the weights of a denoiser come to be. Used by the training loop."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from torch import Tensor, nn

from diffbench.contracts.component import Component
from diffbench.contracts.condition import Condition
from diffbench.contracts.values import Noised

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe


class Batch(NamedTuple):
    """What one training step is given."""

    noised: Noised
    cond: Condition | None            # of these samples, None where nothing is told
    drop: Tensor                      # bool [B], True where the condition is withheld
    c_noise: Tensor                   # float32 [B], what the network is told about the level


# its own output for a batch, float32 [B, C_out, *space], run at the precision of the training
Network = Callable[[Batch], Tensor]


class Method(Component):
    """How the weights of a denoiser come to be.
    The loop, the optimiser, the moving average and the checkpoints are the harness's.
    """

    kind = "method"
    trains: ClassVar[bool] = True                              # False: the weights are those of `initial`, as they are

    def fingerprint(self) -> str:
        """SHA-256 of what it reads from outside, such as a file of weights; "" where it reads nothing.

        Raises DataError where that is missing.
        """
        return ""

    def initial(self, own: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
        """The weights of the denoiser, by the names of its state dict; asked only of a method that does not train.
        What is missing is named and refused.

        own: the tensors that the denoiser has, `network.*` and `condition.*`.
        """
        return {}

    @abstractmethod
    def prepare(self, model: nn.Module) -> list[nn.Parameter]:
        """The parameters that are trained, of a denoiser as it was built from the seed of its recipe."""

    @abstractmethod
    def loss(self, network: Network, batch: Batch, recipe: Recipe) -> Tensor:
        """Loss per sample, [B]; may be recorded and replayed as a CUDA graph, and so waits for nothing on the host."""

    @abstractmethod
    def finish(self, model: nn.Module, average: Sequence[Tensor]) -> dict[str, Tensor]:
        """The weights of the denoiser that samples are drawn from;
        average: the moving averages of what `prepare` gave, in its order.
        """
