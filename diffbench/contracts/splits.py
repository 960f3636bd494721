"""Disjoint splits of a data set, the same on every machine and with every library version."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def split_indices(labels: Tensor | int, sizes: dict[str, float]) -> dict[str, Tensor]:
    """Indices of each split, int64 and ascending; every index is in exactly one.

    labels: int64 [N], so that each split has each class in proportion, or the count N where there are none.
    sizes: name -> share of the whole; shares sum to 1.

    Images are put in the order of the SHA-256 of their index, which no library can change, then class by class along
    one line, which the shares cut: the whole is divided in proportion to within one image, a class, which is a stretch
    of the line, to within two.
    """
    total = sum(sizes.values())
    if not sizes or abs(total - 1) > 1e-9 or min(sizes.values()) < 0:
        raise ValueError(f"shares of the splits must be >= 0 and sum to 1, got {sizes}")
    count = labels if isinstance(labels, int) else len(labels)
    order = sorted(range(count), key=lambda i: hashlib.sha256(str(i).encode()).digest())
    if not isinstance(labels, int):
        order.sort(key=lambda i: int(labels[i]))                     # stable: within a class the hash decides
    # Along the line position p goes to the split that is furthest behind its share of the p + 1 images seen.
    taken = dict.fromkeys(sizes, 0)
    chosen: dict[str, list[int]] = {name: [] for name in sizes}
    for p, index in enumerate(order):
        name = max(sizes, key=lambda n: sizes[n] * (p + 1) - taken[n])
        taken[name] += 1
        chosen[name].append(index)
    return {name: torch.tensor(sorted(indices), dtype=torch.int64) for name, indices in chosen.items()}
