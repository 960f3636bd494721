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

# The hash is that of the file at this address, as several independent records of it have it; its name carries the first eight digits.
PUBLISHED = Published(
    what="Inception-v3", variable="DIFFBENCH_INCEPTION", file="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2")
BATCH = 64                            # images per pass


@dataclass(frozen=True, kw_only=True)
class Inception(Extractor):
    """The 2048 features before the last layer of Inception-v3, and its 1008 logits without bias, in torch-fidelity's network.

    Distances on these features are called `fid` and `kid` with the published weights only; other weights (a fine-tuned network, random ones in a
    test) give `fd_inception_<first 8 digits of their SHA-256>`. Images are uint8 as stored, resized to 299x299 inside the network as TensorFlow 1 did
    (bilinear, no antialiasing), and grey ones repeated to three channels. On a CPU about 6 images a second and core.
    Weights come from DIFFBENCH_INCEPTION, from torch hub's cache, or where `download` is set from the address they were published at; they are compared
    with their hash before they are read.
    Source: Szegedy et al. 2016, arXiv:1512.00567; as used by Heusel et al. 2017, arXiv:1706.08500; torch-fidelity, Obukhov et al. 2020.
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
        return None if channels in (1, 3) else f"inception sees images of 1 or 3 channels; {cell.dataset.component_name()} has {channels}"

    def remark(self, image_shape: tuple[int, int, int]) -> str:
        return "grey images repeated to three channels for inception" if image_shape[0] == 1 else ""

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[dict[str, Tensor], dict[str, float | str]]:
        return PUBLISHED.read(network().state_dict(), download=self.download), {"sha256": self.fingerprint()}

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        return self.look(weights, images, device)["features"]

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device, progress: Progress = silent) -> dict[str, Tensor]:
        if images.ndim != 4 or images.shape[1] not in (1, 3) or images.dtype != torch.uint8:
            raise DataError(f"inception sees uint8 images [N, 1 or 3, H, W], got {str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
        net, seen = network(weights).to(device), []
        with torch.inference_mode():
            for part in images.split(BATCH):
                seen.append([out.double().cpu() for out in net(part.to(device).expand(-1, 3, -1, -1).contiguous())])
                progress(sum(len(features) for features, _ in seen), len(images))
        features, logits = (torch.cat(parts) for parts in zip(*seen, strict=True))
        return {"features": features, "logits": logits}


def network(weights: Mapping[str, Tensor] | None = None) -> FeatureExtractorInceptionV3:
    """torch-fidelity's network in evaluation mode, with these weights or, where only names and shapes count, with none that mean anything.

    It reads its weights by unpickling without limits: it is given bytes that we made of tensors.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *arguments, **options):
            return super().load_state_dict(state, *arguments, **options) if state else None
    ours = io.BytesIO()
    torch.save(dict(weights or {}), ours)
    ours.seek(0)
    return Bare("inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=ours).eval()
