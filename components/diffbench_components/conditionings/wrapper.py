"""What conditionings around another one share: the condition enters as the inner one lets it in."""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from diffbench import Conditioning, Dataset, Io


@dataclass(frozen=True, kw_only=True)
class Wrapper(Conditioning):
    """Steers sampling around an inner conditioning, whose network and sockets it keeps."""

    inner: Conditioning                                           # how the condition enters the network
    scale: float

    @property
    def ports(self) -> frozenset[str]:
        return self.inner.ports

    @property
    def tokens_enter(self) -> Literal["cross_attention", "in_context"]:
        return self.inner.tokens_enter

    def map_channels(self, dataset: Dataset) -> int:
        return self.inner.map_channels(dataset)

    @property
    def evaluations(self) -> int:
        return self.inner.evaluations

    @property
    def guidance_scale(self) -> float:
        return self.scale

    def build(self, io: Io) -> nn.Module:
        return self.inner.build(io)

    def guides_twice(self) -> str | None:
        """Why the inner conditioning cannot stand inside this one, or None."""
        if self.inner.guidance_scale is not None:
            return f"{self.component_name()} around {self.inner.component_name()} would guide twice"
        return None
