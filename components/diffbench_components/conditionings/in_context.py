"""The condition within the sequence of the image."""

from dataclasses import dataclass
from typing import Literal

from diffbench_components.conditionings.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class InContext(Tokens):
    """In-context conditioning: tokens of the condition join those of the image in self-attention.

    In the DiT they stand in the sequence; in the U-Net they are further keys and values.
    Source: Peebles & Xie 2023, arXiv:2212.09748, section 3.2; in a U-Net Nichol et al. 2022, arXiv:2112.10741 (GLIDE).
    """

    @property
    def tokens_enter(self) -> Literal["cross_attention", "in_context"]:
        return "in_context"
