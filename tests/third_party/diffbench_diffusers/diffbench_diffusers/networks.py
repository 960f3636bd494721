"""Networks of diffusers under the contract of a backbone."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import diffusers
import torch
from annotated_types import Ge
from torch import Tensor, nn

from diffbench import Backbone, Io, OptionError, Signals

VERSION = f"1 of diffusers {diffusers.__version__}"


@dataclass(frozen=True, kw_only=True)
class Unet2d(Backbone):
    """UNet2DModel: ResNet blocks, attention in the middle; the vector of the condition is added to the embedding of the level, as its class embedding."""

    channels: Annotated[int, Ge(8)] = 32              # features of the first level, a multiple of groups; each further level has twice as many
    levels: Annotated[int, Ge(1)] = 2                 # resolutions; each further one halves height and width
    blocks: Annotated[int, Ge(1)] = 1                 # ResNet blocks per level
    groups: Annotated[int, Ge(1)] = 8                 # of the group norms

    ports: ClassVar[frozenset[str]] = frozenset({"maps", "vector"})
    version: ClassVar[str] = VERSION
    examples = ({"channels": 8, "groups": 4},)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels % self.groups:
            raise OptionError(f"channels must be a multiple of groups, got {self.channels} and {self.groups}")

    @property
    def signal_width(self) -> int:
        return 4 * self.channels

    def why_not(self, cell):
        return _indivisible(self, cell)

    def build(self, io: Io) -> nn.Module:
        network = diffusers.UNet2DModel(
            sample_size=(io.height, io.width), in_channels=io.channels + io.map_channels, out_channels=io.out_channels,
            block_out_channels=_widths(self), layers_per_block=self.blocks, norm_num_groups=self.groups, attention_head_dim=self.groups,
            down_block_types=("DownBlock2D",) * self.levels, up_block_types=("UpBlock2D",) * self.levels,
            class_embed_type="identity" if "vector" in io.ports else None)
        return _Called(network, lambda x, t, signals: {"sample": x, "timestep": t, "class_labels": signals.vector})


@dataclass(frozen=True, kw_only=True)
class Unet2dCondition(Backbone):
    """UNet2DConditionModel: ResNet blocks that attend to the tokens of the condition at every level but the first."""

    channels: Annotated[int, Ge(8)] = 32              # features of the first level, a multiple of groups; each further level has twice as many
    levels: Annotated[int, Ge(2)] = 2                 # resolutions; each further one halves height and width
    blocks: Annotated[int, Ge(1)] = 1                 # ResNet blocks per level
    groups: Annotated[int, Ge(1)] = 8                 # of the group norms
    tokens_width: Annotated[int, Ge(1)] = 64          # features of a token

    ports: ClassVar[frozenset[str]] = frozenset({"tokens"})
    version: ClassVar[str] = VERSION
    examples = ({"channels": 8, "groups": 4, "tokens_width": 8},)

    @property
    def signal_width(self) -> int:
        return self.tokens_width

    def why_not(self, cell):
        if "tokens" not in cell.conditioning.ports or cell.conditioning.tokens_enter != "cross_attention":
            return f"unet2d_condition attends to tokens, and {cell.conditioning.component_name()} gives none by cross-attention"
        return _indivisible(self, cell)

    def build(self, io: Io) -> nn.Module:
        further = self.levels - 1
        network = diffusers.UNet2DConditionModel(
            sample_size=(io.height, io.width), in_channels=io.channels, out_channels=io.out_channels, block_out_channels=_widths(self),
            layers_per_block=self.blocks, norm_num_groups=self.groups, cross_attention_dim=self.tokens_width, attention_head_dim=self.groups,
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * further), up_block_types=(*("CrossAttnUpBlock2D",) * further, "UpBlock2D"))
        return _Called(network, lambda x, t, signals: {"sample": x, "timestep": t, "encoder_hidden_states": signals.tokens})


@dataclass(frozen=True, kw_only=True)
class Dit(Backbone):
    """DiTTransformer2DModel: adaLN-Zero in every block. Its table of labels is replaced by the vector of the condition, which is added where it was."""

    patch: Annotated[int, Ge(1)] = 2                  # edge of a patch in pixels
    depth: Annotated[int, Ge(1)] = 4                  # transformer blocks
    heads: Annotated[int, Ge(1)] = 4                  # attention heads
    head_width: Annotated[int, Ge(4)] = 16            # features of a head, a multiple of 4

    ports: ClassVar[frozenset[str]] = frozenset({"vector"})
    version: ClassVar[str] = VERSION
    examples = ({"patch": 4, "depth": 1, "heads": 2, "head_width": 8},)

    @property
    def signal_width(self) -> int:
        return self.heads * self.head_width

    def why_not(self, cell):
        _, height, width = cell.dataset.image_shape
        if height != width or height % self.patch:
            return f"diffusers' dit takes square images whose edge is divisible by {self.patch}, and these are {height}x{width}"
        return None

    def build(self, io: Io) -> nn.Module:
        network = diffusers.DiTTransformer2DModel(
            sample_size=io.height, patch_size=self.patch, in_channels=io.channels, out_channels=io.out_channels, num_layers=self.depth,
            num_attention_heads=self.heads, attention_head_dim=self.head_width, norm_num_groups=1)
        for block in network.transformer_blocks:
            block.norm1.emb.class_embedder = nn.Identity()
        return _Called(network, lambda x, t, signals: {
            "hidden_states": x, "timestep": t,
            "class_labels": x.new_zeros(len(x), self.signal_width) if signals.vector is None else signals.vector})


class _Called(nn.Module):
    """A network whose arguments are made from ours. The bias of its keys stays 0: softmax does not see what is added to all logits alike."""

    def __init__(self, network: nn.Module, arguments):
        super().__init__()
        self.network, self.arguments = network, arguments
        for name, parameter in network.named_parameters():
            if name.endswith("to_k.bias"):
                nn.init.zeros_(parameter).requires_grad_(False)

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        if signals.maps is not None:
            x = torch.cat([x, signals.maps], dim=1)                                 # [B, C + C', H, W]
        return self.network(**self.arguments(x, c_noise, signals), return_dict=False)[0]


def _widths(options) -> tuple[int, ...]:
    return tuple(options.channels * 2**level for level in range(options.levels))


def _indivisible(options, cell) -> str | None:
    _, height, width = cell.dataset.image_shape
    factor = 2 ** (options.levels - 1)
    if height % factor or width % factor:
        return f"{options.component_name()} halves images {options.levels - 1} times, and {height}x{width} is not divisible by {factor}"
    return None
