"""The contract of text encoders: from what is said of a sample to tokens and states. Used by `diffusion.texts`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from diffbench.contracts.component import Component


class Tokens(NamedTuple):
    """Texts as numbers of a vocabulary, each filled up to the length of the longest."""

    ids: Tensor                       # int64 [N, L]
    visible: Tensor                   # bool [N, L], True for tokens that are real, False for padding


class TextEncoder(Component):
    """Reads what is said of a sample, the name of its class; conditionings read `Condition.tokens`, `states`, `pooled`.
    """

    kind = "text_encoder"

    @abstractmethod
    def tokenize(self, texts: Sequence[str]) -> Tokens | None:
        """Texts as tokens, the same in every process; None where networks are told no text."""

    @abstractmethod
    def module(self) -> nn.Module:
        """A module: forward(ids [B, L], visible [B, L]) -> (states [B, L, D], pooled [B, D]).

        It is part of the denoiser, and trained with it unless its parameters ask for no gradient. Where there are no
        tokens it is not asked for.
        """
