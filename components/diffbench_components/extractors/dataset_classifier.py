"""Features of a small classifier trained on the data set itself:
the Fréchet distance for images Inception does not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from diffbench import Classifier, DataError, Extractor, Progress, Split, fit_classifier, silent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from diffbench import Cell


@dataclass(frozen=True, kw_only=True)
class DatasetClassifier(Extractor):
    """The 64 units below the last layer of a convolutional classifier fitted to the training split.

    Distances on these features are called `fd_dataset_classifier`: they rank models on one data set, and are not FID.
    Two fits give the same order but not the same numbers (a factor of 2 between seeds is usual), so one fit, with a
    fixed seed and number of threads, serves all cells of a run. It sees neither the reference nor the held-out split,
    and no model is guided by it or judged by it for class accuracy.
    Source: Xu et al. 2018, arXiv:1806.07755: distances between sets mean something in the features of a classifier, not
    in pixels.
    """

    default_of_kind: ClassVar[bool] = True
    has_logits: ClassVar[bool] = True

    def why_not(self, cell: Cell) -> str | None:
        return (f"dataset_classifier needs labels; {cell.dataset.component_name()} has none"
                if cell.dataset.classes is None else None)

    def feature_count(self, image_shape: tuple[int, int, int]) -> int:
        return 64

    def fit(self, train: Split, seed: int, device: torch.device, progress: Progress = silent) -> tuple[
            dict[str, Tensor], dict[str, float | str]]:
        if train.labels is None:
            raise DataError("dataset_classifier needs labels; the training split has none")
        classifier, facts = fit_classifier(train.images, train.labels, int(train.labels.max()) + 1, seed, device,
                                           progress=progress)
        return classifier.weights(), facts

    def features(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device) -> Tensor:
        return Classifier.from_weights(weights).describe(images, device)

    def look(self, weights: Mapping[str, Tensor], images: Tensor, device: torch.device,
             progress: Progress = silent) -> dict[str, Tensor]:
        features = self.features(weights, images, device)
        return {"features": features, "logits": features @ weights["head.weight"].double().T
                + weights["head.bias"].double()}
