"""Pixels and conditions on their way into a network and out of it.
Used by whatever trains, samples or judges a denoiser.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from diffbench.contracts.condition import Condition
from diffbench.contracts.values import Split


def to_pixels(x: Tensor) -> Tensor:
    """[-1, 1] to uint8 as published: clamp, scale, round."""
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_pixels(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def condition_of(split: Split, rows: Tensor) -> Condition | None:
    """Condition that a network may be given for these rows of a split, as stored:
    an image, uint8, where the data set has one, else the label.
    """
    if split.conditions is not None:
        return Condition(image=split.conditions[rows])
    return None if split.labels is None else Condition(label=split.labels[rows])


def as_condition(stored: Condition | None, device: torch.device) -> Condition | None:
    """A stored condition as a conditioning sees it: on its device, the image in [-1, 1]."""
    if stored is None:
        return None
    moved = stored.to(device)
    return moved if moved.image is None else replace(moved, image=from_pixels(moved.image))
