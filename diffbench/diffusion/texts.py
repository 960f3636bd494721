"""What is said of samples, read by the text encoder of a recipe. Used by the denoiser."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from diffbench.contracts.condition import Condition

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe
    from diffbench.contracts.text_encoder import Tokens


class Texts(nn.Module):
    """Adds tokens, states and a pooled vector to the labels of a condition: the text of a label is its class's name."""

    ids: Tensor                       # int64 [classes, L]
    visible: Tensor                   # bool [classes, L]

    def __init__(self, tokens: Tokens, encoder: nn.Module):
        super().__init__()
        self.register_buffer("ids", tokens.ids, persistent=False)
        self.register_buffer("visible", tokens.visible, persistent=False)
        self.encoder = encoder

    def forward(self, cond: Condition | None) -> Condition | None:
        if cond is None or cond.label is None:
            return cond
        ids, visible = self.ids[cond.label], self.visible[cond.label]
        states, pooled = self.encoder(ids, visible)
        return replace(cond, tokens=ids, visible=visible, states=states, pooled=pooled)


def texts_of(recipe: Recipe) -> Texts | None:
    """The texts of the classes of a recipe's data; None where its text encoder makes no tokens."""
    tokens = recipe.text_encoder.tokenize(recipe.dataset.class_names)
    return None if tokens is None else Texts(tokens, recipe.text_encoder.module())
