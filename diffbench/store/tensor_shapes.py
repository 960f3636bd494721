"""Shapes of files of tensors: checks that raise ValueError with the name of the file.
Used by the table of stage kinds, as `shapes` is for JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def weights(tensors: Mapping[str, Tensor], name: str) -> None:
    """Weights of a network, by whatever names: none is NaN."""
    broken = [each for each, tensor in tensors.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]
    if broken:
        raise ValueError(f"{broken[0]} in {name} holds NaN")


def images(tensors: Mapping[str, Tensor], name: str) -> None:
    """Generated images, with their labels where there are any."""
    import torch

    _has(tensors, name, images=(torch.uint8, 4))
    _one_each(tensors, name, "labels")


def seen(tensors: Mapping[str, Tensor], name: str) -> None:
    """Images and what extractor and judge see in them, with the moments of the features where there are any."""
    import torch

    _has(tensors, name, images=(torch.uint8, 4), features=(None, 2))
    _one_each(tensors, name, "features", "logits", "labels", "predicted")
    if "mean" in tensors or "root" in tensors:
        _has(tensors, name, mean=(None, 1), root=(None, 2))
    for each in ("features", "logits", "mean", "root"):
        if each in tensors and not bool(tensors[each].isfinite().all()):
            raise ValueError(f"{each} in {name} are not finite")


def _has(tensors: Mapping[str, Tensor], name: str, **expected: tuple[Any, int]) -> None:
    """Whether these are there, of a type (None: any of floating point) and so many dimensions, and not empty."""
    for each, (dtype, dimensions) in expected.items():
        if each not in tensors:
            raise ValueError(f"{name} has no {each}")
        tensor = tensors[each]
        is_of_type = tensor.is_floating_point() if dtype is None else tensor.dtype == dtype
        if not is_of_type or tensor.ndim != dimensions or not tensor.numel():
            kind, wanted = (str(tensor.dtype).removeprefix("torch."),
                            str(dtype or "floating point").removeprefix("torch."))
            raise ValueError(f"{each} in {name} are {kind} {list(tensor.shape)}, expected {wanted} of {dimensions} "
                             "dimensions")


def _one_each(tensors: Mapping[str, Tensor], name: str, *others: str) -> None:
    """Whether what is there stands image by image."""
    for other in others:
        if other in tensors and tensors[other].shape[:1] != tensors["images"].shape[:1]:
            raise ValueError(f"{name} has {len(tensors['images'])} images and {list(tensors[other].shape)} {other}")
