"""Inception-v3 as torch-fidelity has it: the features of FID."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from diffbench import DataError, Extractor, Progress, Published, Split, incidental_option, silent

if TYPE_CHECKING:
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    from diffbench import Cell

# The hash is that of the file at this address, as several independent records of it have it; its name carries the first
# eight digits.
PUBLISHED = Published(
    what="Inception-v3", variable="DIFFBENCH_INCEPTION", file="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")
# images per pass; on a GPU more, and with channels last: 1.3 times as fast (docs/gpu.md)
BATCH, GPU_BATCH = 64, 256


@dataclass(frozen=True, kw_only=True)
class Inception(Extractor):
    """Inception-v3, as in torch-fidelity: its 2048 last features and 1008 logits, those of FID.

    The features before the last layer, and the logits without bias.
    Distances on these features are called `fid` and `kid` with the published weights only; other weights (a fine-tuned
    network, random ones in a test) give `fd_inception_<first 8 digits of their SHA-256>`. Images are uint8 as stored,
    resized to 299x299 inside the network as TensorFlow 1 did (bilinear, no antialiasing), and grey ones repeated to
    three channels. On a CPU about 6 images a second and core. Weights come from DIFFBENCH_INCEPTION, from torch hub's
    cache, or where `download` is set from the address they were published at; they are compared with their hash before
    they are read.
    Source: Szegedy et al. 2016, arXiv:1512.00567; as used by Heusel et al. 2017, arXiv:1706.08500; torch-fidelity,
    Obukhov et al. 2020.
    """

    has_logits: ClassVar[bool] = True

    download: bool = incidental_option(False)                     # fetch missing weights into torch hub's cache, 96 MB

    @property
    def column_suffix(self) -> str:
        return "" if PUBLISHED.is_published(download=self.download) else f"_inception_{self.fingerprint()[:8]}"

    def fingerprint(self) -> str:
        return PUBLISHED.digest(download=self.download)

    def why_not(self, cell: Cell) -> str | None:
        channels = cell.dataset.image_shape[0]
        return (None if channels in (1, 3) else "inception sees images of 1 or 3 channels; "
                                                f"{cell.dataset.component_name()} has {channels}")

    def feature_count(self, image_shape: tuple[int, int, int]) -> int:
        return 2048

    def remark(self, image_shape: tuple[int, int, int]) -> str:
        return "grey images repeated to three channels for inception" if image_shape[0] == 1 else ""

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        return PUBLISHED.read(network().state_dict(), download=self.download), {"sha256": self.fingerprint()}

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        return self.look(weights, images, device)["features"]

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device,
             progress: Progress = silent) -> dict[str, Tensor]:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise DataError("inception sees uint8 images [N, 1 or 3, H, W], got "
                            f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
        is_gpu, seen = device.type != "cpu", []
        net = network(weights).to(device, memory_format=torch.channels_last if is_gpu else torch.preserve_format)
        with torch.inference_mode():
            for part in images.split(GPU_BATCH if is_gpu else BATCH):
                seen.append([out.double().cpu() for out in net(part.to(device).expand(-1, 3, -1, -1).contiguous())])
                progress(sum(len(features) for features, _ in seen), len(images))
        features, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return {"features": features, "logits": logits}


def network(weights: Mapping[str, Tensor] | None = None) -> FeatureExtractorInceptionV3:
    """torch-fidelity's network in evaluation mode, with these weights or, where only names and shapes count, with meta
    tensors.

    It reads its weights by unpickling a file without limits, and draws others before: it is made without either, and
    given the tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *arguments, **options):
            return super().load_state_dict(state, *arguments, **options) if state else None
    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    with torch.device("meta"):
        made = Bare("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=nothing).eval()
    if weights is not None:
        made.load_state_dict(dict(weights), assign=True)
    return made
