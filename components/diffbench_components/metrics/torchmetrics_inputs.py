"""What metrics of torchmetrics are given: images, pairs of images, images and texts. Used by `torchmetrics`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from diffbench import DataError, Evidence, Real

IN_COLOUR = ("clip_score", "dists", "lpips")  # grey images are repeated to three channels for their networks
Update = Callable[[Any, Tensor], None]  # of a metric, by rows of what is put into blocks


def updates_of_texts(name: str, generated: Evidence, texts: list[str]) -> Update:
    """Each sample with the text of its class. texts: by label."""
    labels = generated.labels
    if labels is None:
        raise DataError(f"torchmetrics' {name} needs labels, whose names are the texts, and got none")

    def update(metric: Any, rows: Tensor) -> None:
        metric.update([*in_colour(generated.images[rows])], [texts[k] for k in labels[rows].tolist()])

    return update


def updates_of_images(name: str, *sets: Tensor) -> Update:
    """Images uint8 [N, C, H, W], of each set one, in [0, 1]."""

    def seen(images: Tensor) -> Tensor:
        return in_colour(images).float() / 255 if name in IN_COLOUR else images.double() / 255

    def update(metric: Any, rows: Tensor) -> None:
        metric.update(*(seen(images[rows]) for images in sets))

    return update


def updates_of_diversity(name: str, generated: Evidence) -> tuple[Evidence, Update]:
    """(the first sample of each pair, the update of pairs)."""
    first, second = pairs_within(generated.labels, len(generated.images))
    labels = None if generated.labels is None else generated.labels[first]
    units = replace(
        generated, images=generated.images[first], labels=labels, features=generated.features[first], moments=None
    )
    return units, updates_of_images(name, units.images, generated.images[second])


def updates_of_truth(name: str, generated: Evidence, real: Real) -> Update:
    """Each sample with its true image: sample i is drawn under the condition of reference image i, in turn."""
    truth = real.reference.images[torch.arange(len(generated.images)) % len(real.reference.images)]
    return updates_of_images(name, generated.images, truth)


def in_colour(images: Tensor) -> Tensor:
    """[B, 1 or 3, H, W] to [B, 3, H, W]; images of other channels stay as they are."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def pairs_within(labels: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """Rows of both sides of disjoint pairs of one class, int64 [P] each; the last of an odd number is left out."""
    classes = torch.zeros(count, dtype=torch.int64) if labels is None else labels
    first, second = [], []
    for k in classes.unique():
        rows = (classes == k).nonzero()[:, 0]
        first.append(rows[0 : len(rows) - 1 : 2])
        second.append(rows[1::2])
    return torch.cat(first), torch.cat(second)
