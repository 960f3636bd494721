"""No text encoder: networks are told no text."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from diffbench import TextEncoder


@dataclass(frozen=True, kw_only=True)
class None_(TextEncoder):
    """There are no tokens: conditions have labels and images only."""

    default_of_kind = True

    def tokenize(self, texts: Sequence[str]) -> None:
        return None

    def module(self) -> nn.Module:
        return nn.Identity()
