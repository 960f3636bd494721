"""DINOv2 vision transformers: the features that tell generated from real images as people do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench import DataError, Extractor, Progress, Published, Split, incidental_option, silent

if TYPE_CHECKING:
    from diffbench import Cell


class Form(NamedTuple):
    """The shape of a network and the file of its published weights."""

    width: int
    depth: int
    heads: int
    published: Published


def published(letter: str, sha256: str) -> Published:
    name = f"dinov2_vit{letter.lower()}14"
    return Published(what=f"DINOv2 ViT-{letter}/14", variable="DIFFBENCH_DINOV2", file=f"{name}_pretrain.pth",
                     url=f"https://dl.fbaipublicfiles.com/dinov2/{name}/{name}_pretrain.pth", sha256=sha256)


# Its authors publish no hashes: these are those of the files at these addresses as several independent copies of them
# have it.
FORMS = {
    "small": Form(384, 12, 6, published("S", "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9")),
    "base": Form(768, 12, 12, published("B", "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73")),
    "large": Form(1024, 24, 16, published("L", "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428")),
}
# pixels of a patch; patches of a side of the images of 518 pixels it was last trained on
PATCH, GRID = 14, 37
SIDE = 224                            # pixels of a side of the images it sees here: 16 patches
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)                  # of ImageNet's channels
BATCH = 32                            # images per pass


@dataclass(frozen=True, kw_only=True)
class Dinov2(Extractor):
    """The class token of a DINOv2 vision transformer, after its last norm.

    1024 features of ViT-L/14 (base 768, small 384).
    Distances on these features are called `fd_dinov2`, `kid_dinov2` for ViT-L/14 with the published weights only:
    `fd_dinov2_base` for another size,
    `fd_dinov2_<first 8 digits of their SHA-256>` for other weights. Images are uint8 as stored, grey ones repeated to
    three channels, resized to 224x224 by Pillow (bicubic with antialiasing, rounded to 8 bits), then normalised by
    ImageNet's mean and standard deviation. Weights come from DIFFBENCH_DINOV2, from torch hub's cache, or where
    `download` is set from the address they were published at; they are compared with their hash before they are read.
    The conventional features for this distance; torch-fidelity's own `dinov2-vit-l-14` resizes as TensorFlow 1 did
    instead, and its values are others.
    Source: Oquab et al. 2023, arXiv:2304.07193; as used by Stein et al. 2023, arXiv:2306.04675 (dgm-eval).
    """

    size: Literal["small", "base", "large"] = "large"  # ViT-S/14, ViT-B/14, ViT-L/14
    download: bool = incidental_option(False)          # fetch missing weights into torch hub's cache; 88 MB, 346 MB,
                                                       # 1.2 GB

    @property
    def column_suffix(self) -> str:
        suffix = "_dinov2" if self.size == "large" else f"_dinov2_{self.size}"
        return suffix if self._published.is_published(download=self.download) else f"{suffix}_{self.fingerprint()[:8]}"

    @property
    def _published(self) -> Published:
        return FORMS[self.size].published

    def fingerprint(self) -> str:
        return self._published.digest(download=self.download)

    def why_not(self, cell: Cell) -> str | None:
        channels = cell.dataset.image_shape[0]
        return (None if channels in (1, 3) else "dinov2 sees images of 1 or 3 channels; "
                                                f"{cell.dataset.component_name()} has {channels}")

    def feature_count(self, image_shape: tuple[int, int, int]) -> int:
        return FORMS[self.size].width

    def remark(self, image_shape: tuple[int, int, int]) -> str:
        return "grey images repeated to three channels for dinov2" if image_shape[0] == 1 else ""

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        return (self._published.read(network(self.size).state_dict(), download=self.download),
                {"sha256": self.fingerprint()})

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        return self.look(weights, images, device)["features"]

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device,
             progress: Progress = silent) -> dict[str, Tensor]:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise DataError("dinov2 sees uint8 images [N, 1 or 3, H, W], got "
                            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
        net, seen = network(self.size, weights).to(device), []
        with torch.inference_mode():
            for part in images.split(BATCH):
                seen.append(net(prepared(part).to(device)).double().cpu())
                progress(sum(map(len, seen)), len(images))
        return {"features": torch.cat(seen)}


def network(size: str, weights: Mapping[str, Tensor] | None = None) -> VisionTransformer:
    """A network in evaluation mode with these weights or, where only names and shapes count, with none."""
    form = FORMS[size]
    with torch.device("meta"):
        net = VisionTransformer(form.width, form.depth, form.heads)
    if weights is not None:
        net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)


def prepared(images: Tensor) -> Tensor:
    """uint8 [B, 1 or 3, H, W] on the host as the network sees them, float32 [B, 3, 224, 224]."""
    import numpy
    from PIL import Image

    colour = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()
    # Pillow, as published: it works in whole numbers and gives the same bytes everywhere; torch's bicubic differs in
    # the last bits by processor.
    resized = numpy.stack([numpy.asarray(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
                           for image in colour])
    x = torch.from_numpy(resized).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class VisionTransformer(nn.Module):
    """The transformer in the names of the published weights; forward gives the class token, [B, 3, H, W] to [B, width].
    """

    def __init__(self, width: int, depth: int, heads: int):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID**2, width))
        self.mask_token = nn.Parameter(torch.zeros(1, width))             # of its training; in the file, and never used
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, PATCH, PATCH)})
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        patches = self._patches(x)                                        # [B, L, width]
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), patches],
                      1) + positions(self.pos_embed, x.shape[2] // PATCH, x.shape[3] // PATCH)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]

    def _patches(self, x: Tensor) -> Tensor:
        """The convolution as a product: cuDNN would round its factors to TF32."""
        proj = self.patch_embed["proj"]
        cut = x.unflatten(3, (-1, PATCH)).unflatten(2, (-1, PATCH))       # [B, 3, h, 14, w, 14]
        return F.linear(cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2), proj.weight.flatten(1), proj.bias)


def positions(pos_embed: Tensor, height: int, width: int) -> Tensor:
    """The embedding of each position, [1, 1 + 37², D] to [1, 1 + height width, D]: that of the class token, then
    bicubic of the grid.

    The scale is (height + 0.1)/37, not height/37: the 0.1, once added against rounding, has stayed in the published
    code and so in published values.
    """
    if (height, width) == (GRID, GRID):
        return pos_embed
    grid = pos_embed[:, 1:].unflatten(1, (GRID, GRID)).permute(0, 3, 1, 2)            # [1, D, 37, 37]
    scaled = F.interpolate(grid, scale_factor=((height + 0.1) / GRID, (width + 0.1) / GRID), mode="bicubic")
    return torch.cat([pos_embed[:, :1], scaled.flatten(2).transpose(1, 2)], 1)


class Block(nn.Module):
    """Attention and a perceptron, each after a norm and before a learnt scale of each channel (LayerScale)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.ls1, self.ls2 = (nn.ParameterDict({"gamma": nn.Parameter(torch.ones(width))}) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        # [B, heads, L, D/heads] each
        q, k, v = self.attn["qkv"](self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.ls1["gamma"] * self.attn["proj"](attended)
        return x + self.ls2["gamma"] * self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
