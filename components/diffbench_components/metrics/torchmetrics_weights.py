"""Networks of metrics of torchmetrics from local files: their hash, and the metric on them. Used by `torchmetrics`."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from diffbench import DataError, read_tensors, user_path

ADDRESS = "https://download.pytorch.org/models/"
BACKBONES = {  # of torchvision, by `net_type` of LPIPS
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}
CLIP_MODULES = "pip install 'diffbench[clip]'"


def backbone_of(short: str, options: dict[str, Any]) -> str:
    """The file that torchvision publishes the weights of a metric's backbone as, or "" for a metric without one."""
    if short == "dists":
        return BACKBONES["vgg"]
    return BACKBONES.get(options.get("net_type", "alex"), "") if short == "lpips" else ""


def fingerprint(short: str, options: dict[str, Any], weights: str) -> str:
    """SHA-256 (hex) of the files that a metric's network is made of, or "" for one without.

    Raises DataError where they are missing.
    """
    backbone, path = backbone_of(short, options), user_path(weights)
    if backbone and not (weights and path.is_file()):
        where = f"{os.path.abspath(path)} is not there" if weights else "the option weights does not say where they lie"
        raise DataError(
            f"torchmetrics: {short} needs the weights of torchvision's {backbone.partition('-')[0]}, "
            f"and {where}: fetch "
            f"{ADDRESS}{backbone} and write {{name: {short}, weights: /path/to/{backbone}}}"
        )
    if short == "clip_score" and not (weights and (path / "config.json").is_file()):
        where = (
            f"{os.path.abspath(path)} has no config.json"
            if weights
            else "the option weights does not say where it lies"
        )
        raise DataError(
            f"torchmetrics: clip_score needs a CLIP model as a folder that transformers reads, and {where}: "
            "save one with save_pretrained (model and processor) and write {name: clip_score, weights: /path/to/folder}"
        )
    if not backbone and short != "clip_score":
        return ""
    files = sorted(part for part in path.rglob("*") if part.is_file()) if path.is_dir() else [path]
    return _digest(
        tuple(
            (
                str(part),
                "" if part == path else str(part.relative_to(path)),
                part.stat().st_mtime_ns,
                part.stat().st_size,
            )
            for part in files
        )
    )


@functools.cache
def _digest(files: tuple[tuple[str, str, int, int], ...]) -> str:
    whole = hashlib.sha256()
    for path, name, _, _ in files:
        whole.update(name.encode(errors="surrogateescape") + b"\0")
        with open(path, "rb") as file:
            for part in iter(lambda: file.read(1 << 20), b""):
                whole.update(part)
    return whole.hexdigest()


@contextlib.contextmanager
def local_backbone(short: str, options: dict[str, Any], weights: str) -> Iterator[None]:
    """While it lasts, what torchvision would download is read from the file `weights`."""
    if not backbone_of(short, options):
        yield
        return
    from torchvision.models import WeightsEnum

    path = user_path(weights)
    state = read_tensors(path)
    with mock.patch.object(WeightsEnum, "get_state_dict", lambda *arguments, **how: state):
        try:
            yield
        except RuntimeError as error:
            if "loading state_dict" not in str(error):
                raise
            faults = " ".join(str(error).splitlines()[1].split())[:200]
            raise DataError(
                f"{path} holds the weights of another network than {backbone_of(short, options)}: {faults}"
            ) from None


class Given(nn.Module):
    """In place of a network of features: what it is given, are the features."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.num_features = count

    def forward(self, features: Tensor) -> Tensor:
        return features


class Towers(nn.Module):
    """A CLIP model whose features are tensors, as torchmetrics takes them: transformers 5 wraps them."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.config = model, model.config

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return _vectors(self.model.get_image_features(pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return _vectors(self.model.get_text_features(input_ids, attention_mask))


def _vectors(features: Any) -> Tensor:
    return features if isinstance(features, Tensor) else features.pooler_output


def towers(weights: str) -> tuple[Towers, Any]:
    """(model, processor) of a local folder; raises DataError where transformers is missing or reads none."""
    try:
        from transformers import CLIPModel, CLIPProcessor
    except ImportError as error:
        raise DataError(
            f"torchmetrics: clip_score needs transformers, which cannot be imported ({error}): {CLIP_MODULES}"
        ) from None
    path = user_path(weights)
    try:
        model = CLIPModel.from_pretrained(path, local_files_only=True, use_safetensors=True, dtype=torch.float32)
        return Towers(model.eval().requires_grad_(False)), CLIPProcessor.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{Path(path)} holds no CLIP model and processor that transformers reads: {str(error).splitlines()[0]}"
        ) from None
