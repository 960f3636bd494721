"""What conditionings by label share: a learned row per label, and one for no label."""

import torch
from torch import Tensor, nn

from diffbench import Condition


class LabelTable(nn.Module):
    """Learned numbers per label, [K + 1, width]; row K, one past the last label, is the null condition."""

    def __init__(self, classes: int, width: int, std: float):
        super().__init__()
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=std)

    def forward(self, cond: Condition | None, drop: Tensor) -> Tensor:
        """cond: of B samples, or None; drop: bool [B]. Returns [B, width]."""
        null = self.table.num_embeddings - 1
        label = torch.full(drop.shape, null, device=drop.device) if cond is None else cond.label.masked_fill(drop, null)
        return self.table(label)


def needs_labels(name: str, cell) -> str | None:
    """Why a conditioning by label cannot be used with the data set of a cell, or None."""
    if cell.dataset.condition_shape is not None:
        return (f"{name} takes labels, and the condition of {cell.dataset.component_name()} is an image, "
                "which enters by concat, cross_attention or in_context")
    return needs_condition(name, cell)


def needs_condition(name: str, cell) -> str | None:
    """Why there is nothing to condition on, or None."""
    if cell.dataset.classes is None and cell.dataset.condition_shape is None:
        return f"{name} needs labels, and {cell.dataset.component_name()} has none"
    return None
