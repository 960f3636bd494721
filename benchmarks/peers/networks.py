"""Networks of one architecture and size, ours and diffusers', and the cells that hold ours."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import diffbench
from benchmarks.peers.pairs import Missing
from diffbench import Cell, Split, matrix

REGISTRY = diffbench.load_registry()
SIZE = 32                             # pixels a side, grey
CLASSES = 10
UNET = {"channels": 32, "multipliers": [1, 2, 2], "blocks": 2, "modulation": "shift", "attention": [16], "heads": 1}
DIT = {"patch": 4, "width": 128, "depth": 6, "heads": 4}
BATCH = 16


def cell(backbone: dict[str, Any], conditioning: str, scheduler: Any = "ddim", steps: int = 2, **train: Any) -> Cell:
    """One cell with this network on grey images of 32 x 32."""
    content = {"diffbench": 1, "dataset": {"gaussian_mixture": {"size": SIZE, "components": CLASSES}}, "metrics": [], "sample": {"clip": False},
               "axes": {"backbone": backbone, "scheduler": scheduler, "conditioning": conditioning}, "train": {"steps": steps, "batch_size": BATCH} | train}
    return matrix.load(content, REGISTRY).cells[0]


def made_up() -> Split:
    """Random pixels: time does not depend on what images show."""
    generator = torch.Generator().manual_seed(0)
    return Split(images=torch.randint(0, 256, (512, 1, SIZE, SIZE), dtype=torch.uint8, generator=generator), labels=torch.arange(512) % CLASSES)


def unets() -> tuple[Cell, nn.Module]:
    """DDPM's U-Net at UNET's size: equal layers, equal numbers of parameters."""
    diffusers = _diffusers()
    channels = tuple(UNET["channels"] * m for m in UNET["multipliers"])
    theirs = diffusers.UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, layers_per_block=UNET["blocks"], block_out_channels=channels, norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=None)
    return cell({"unet": UNET}, "none"), theirs


def dits() -> tuple[Cell, nn.Module]:
    """DiT with adaLN-zero at DIT's size. Theirs embeds time and label anew in each block, so it has more parameters and hardly more work."""
    diffusers = _diffusers()
    theirs = diffusers.DiTTransformer2DModel(
        num_attention_heads=DIT["heads"], attention_head_dim=DIT["width"] // DIT["heads"], in_channels=1, num_layers=DIT["depth"], sample_size=SIZE,
        patch_size=DIT["patch"], num_embeds_ada_norm=CLASSES)
    return cell({"dit": DIT}, "film"), theirs


def parameters(network: nn.Module) -> int:
    """How many numbers it learns."""
    return sum(p.numel() for p in network.parameters())


def _diffusers() -> Any:
    try:
        import diffusers
    except ImportError as error:
        raise Missing(f"diffusers: {error}") from error
    diffusers.utils.logging.set_verbosity_error()
    return diffusers
