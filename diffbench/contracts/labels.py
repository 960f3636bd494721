"""Labels that samples are drawn under: the class of each index, by the shares of the classes. Used by `drawing` and by
the plan.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from diffbench.stats.label_shares import whole_numbers

if TYPE_CHECKING:
    from diffbench.contracts.cell import Cell
    from diffbench.contracts.dataset import Dataset

MOST_NAMED = 8  # classes that the plan names one by one
NOTABLE_SHIFT = 0.01  # share of images that would have to change class, above which the plan says that shares differ


def shares_of(cell: Cell) -> tuple[int, ...]:
    """The shares of the classes among the samples of a cell whose data set has labels, as whole numbers; see
    `sample.labels`.
    """
    asked = cell.sample.labels
    if asked == "even":
        return (1,) * int(cell.dataset.classes or 0)
    return counts_of(cell.dataset)["train"] if asked == "data" else whole_numbers(asked)


def why_not(cell: Cell) -> str | None:
    """Why samples of a cell cannot have the labels that are asked for, or None."""
    asked, dataset = cell.sample.labels, cell.dataset
    if isinstance(asked, str):
        return None
    if dataset.condition_shape is not None or dataset.classes is None:
        has = "has none" if dataset.condition_shape is None else "draws its samples under images"
        return f"sample.labels gives shares of classes, and {dataset.component_name()} {has}; write 'labels: data'"
    if len(asked) != dataset.classes:
        return (f"sample.labels gives the shares of {len(asked)} classes, and {dataset.component_name()} has "
                f"{dataset.classes}")
    return None


@functools.lru_cache(maxsize=4)
def counts_of(dataset: Dataset) -> dict[str, tuple[int, ...]]:
    """Images of each class in each split of a data set that has labels. Kept until a plan is made anew: `cache_clear`.
    """
    return {
        name: tuple(torch.bincount(split.labels, minlength=int(dataset.classes or 0)).tolist())
        for name, split in dataset.load().items()
    }


def classes_in_words(names: Sequence[str], counts: Mapping[str, Sequence[int]]) -> str:
    """'2 classes: cat 12, dog 12', or '1,000 classes, 732 to 1,300 images each' where they are many or have no names
    but their numbers.
    """
    whole = [sum(parts) for parts in zip(*counts.values(), strict=True)]
    if len(names) <= MOST_NAMED and any(name != str(k) for k, name in enumerate(names)):
        return f"{len(names)} classes: " + ", ".join(
            f"{name} {count:,}" for name, count in zip(names, whole, strict=True)
        )
    return (
        f"{len(names):,} classes, {min(whole):,}{f' to {max(whole):,}' if max(whole) > min(whole) else ''} images each"
    )


def remark(counts: Mapping[str, Sequence[int]]) -> str:
    """Note for readers on the shares of classes in a data set, in half a sentence, or ""."""
    moved = _shift(counts["train"], counts["reference"])
    if moved <= NOTABLE_SHIFT or not _differ(counts["train"], counts["reference"]):
        return ""
    return (f"the shares of classes in the reference split are not those of the training split ({moved:.1%} of the "
            "images would have to change class)")


def note(asked: str | tuple[float, ...], counts: Mapping[str, Sequence[int]]) -> str:
    """Note of the plan where samples are asked for in other shares than the training data's, or ""."""
    if asked == "data":
        return ""
    shares = [1.0] * len(counts["train"]) if asked == "even" else asked
    moved = _shift(shares, counts["train"])
    if moved <= NOTABLE_SHIFT:
        return ""
    given = asked if isinstance(asked, str) else f"[{', '.join(f'{share:g}' for share in asked)}]"
    return (
        f"sample.labels: {given} gives samples other shares of classes than the training data have ({moved:.1%} of "
        "them would have to change class), and distances from real images contain that difference"
    )


def _shift(shares: Sequence[float], others: Sequence[float]) -> float:
    """The share of images that would have to change class to turn the one set of shares into the other (total variation
    distance).
    """
    return sum(abs(a / sum(shares) - b / sum(others)) for a, b in zip(shares, others, strict=True)) / 2


def _differ(train: Sequence[int], other: Sequence[int]) -> bool:
    """Whether a split differs from the training split by more than a stratified cut does: two images of a class in
    either.
    """
    scale = sum(other) / sum(train)
    return any(abs(b - a * scale) > 2 * (1 + scale) for a, b in zip(train, other, strict=True))
