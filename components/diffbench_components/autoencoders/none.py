"""No autoencoder: diffusion runs on the data themselves."""

from dataclasses import dataclass

from torch import Tensor, nn

from diffbench import Autoencoder, Encoded


@dataclass(frozen=True, kw_only=True)
class None_(Autoencoder):
    """Latents are the data, in [-1, 1]."""

    default_of_kind = True
    is_identity = True

    @property
    def bounds(self) -> tuple[float, float]:
        return -1.0, 1.0

    def latent_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def module(self, shape: tuple[int, ...]) -> nn.Module:
        return _AsItIs()


class _AsItIs(nn.Module):
    def encode(self, x: Tensor) -> Encoded:
        return Encoded(x)

    def decode(self, z: Tensor) -> Tensor:
        return z
