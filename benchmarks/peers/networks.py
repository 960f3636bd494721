"""Networks of one architecture and size, ours and diffusers', and cells with ours. Used by all of `peers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

import diffbench
from benchmarks.peers.pairs import Missing
from diffbench import Cell, Split
from diffbench.matrix import loading

REGISTRY = diffbench.load_registry()
CLASSES = 10


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of images, networks and batches."""

    pixels: int                       # a side, grey
    unet: dict[str, Any]
    groups: int                       # of their norms
    dit: dict[str, Any]
    batch: int
    train_steps: int                  # of one call


SIZES = (
    Size(pixels=8, unet={"channels": 16, "multipliers": [1, 2], "blocks": 1, "modulation": "shift", "heads": 1,
                         "attention": [4]}, groups=4,
         # those of the card matrix on digits
         dit={"patch": 2, "width": 64, "depth": 4, "heads": 4}, batch=64, train_steps=10),
    Size(pixels=32, unet={"channels": 32, "multipliers": [1, 2, 2], "blocks": 2, "modulation": "shift", "heads": 1,
                          "attention": [16]}, groups=8,
         dit={"patch": 4, "width": 128, "depth": 6, "heads": 4}, batch=16, train_steps=2),
)


def cell(size: Size, backbone: str, conditioning: Any, scheduler: Any = "ddim") -> Cell:
    """One cell with this network on grey images."""
    content = {"diffbench": 1, "dataset": {"gaussian_mixture": {"size": size.pixels, "components": CLASSES}},
               "metrics": [], "sample": {"clip": False},
               "axes": {"backbone": {backbone: getattr(size, backbone)}, "scheduler": scheduler,
                        "conditioning": conditioning},
               "train": {"steps": size.train_steps, "batch_size": size.batch}}
    return loading.load(content, REGISTRY).cells[0]


def made_up(size: Size) -> Split:
    """Random pixels: time does not depend on the content of images."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (512, 1, size.pixels, size.pixels), dtype=torch.uint8, generator=generator)
    return Split(images=images, labels=torch.arange(512) % CLASSES)


def unets(size: Size) -> tuple[Cell, nn.Module]:
    """DDPM's U-Net: equal layers, equal numbers of parameters."""
    multipliers = size.unet["multipliers"]
    kinds = ["Attn" if size.pixels >> level in size.unet["attention"] else "" for level in range(len(multipliers))]
    theirs = diffusers().UNet2DModel(
        sample_size=size.pixels, in_channels=1, out_channels=1, layers_per_block=size.unet["blocks"],
        norm_num_groups=size.groups, attention_head_dim=None,
        block_out_channels=tuple(size.unet["channels"] * m for m in multipliers),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)))
    return cell(size, "unet", "none"), theirs


def dits(size: Size) -> tuple[Cell, nn.Module]:
    """DiT with adaLN-zero. Theirs embeds time and label anew in each block,
    so it has more parameters and hardly more work.
    """
    heads = size.dit["heads"]
    theirs = diffusers().DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=size.dit["width"] // heads, in_channels=1,
        num_layers=size.dit["depth"], sample_size=size.pixels,
        patch_size=size.dit["patch"], num_embeds_ada_norm=CLASSES)
    return cell(size, "dit", "film"), theirs


def parameters(network: nn.Module) -> int:
    """The number of parameters."""
    return sum(p.numel() for p in network.parameters())


def diffusers() -> Any:
    """The library, without messages; raises Missing where it is not installed."""
    try:
        import diffusers
    except ImportError as error:
        raise Missing(f"diffusers: {error}") from error
    diffusers.utils.logging.set_verbosity_error()
    return diffusers
