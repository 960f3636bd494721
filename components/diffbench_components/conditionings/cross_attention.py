"""Attention to the condition."""

from dataclasses import dataclass

from diffbench_components.conditionings.tokens import Tokens


@dataclass(frozen=True, kw_only=True)
class CrossAttention(Tokens):
    """Cross-attention: the image attends to the tokens of the condition in layers of their own.

    Queries come from the features of the image, keys and values from the tokens.
    Source: Rombach et al. 2022, arXiv:2112.10752, section 3.3; in a transformer Peebles & Xie 2023, arXiv:2212.09748,
    section 3.2.
    """
