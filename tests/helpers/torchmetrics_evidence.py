"""The metric `torchmetrics` under test, and images, features and logits of three classes to measure."""

import torch

from diffbench import Evidence, Real
from tests.conftest import REGISTRY

D64 = torch.float64


def metric(name, **options):
    return REGISTRY.create("metric", "torchmetrics", name=name, **options)


def evidence(count=240, seed=0, shift=0.0, size=16, channels=3, classes=3) -> Evidence:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    return Evidence(
        images=torch.randint(0, 256, (count, channels, size, size), dtype=torch.uint8, generator=generator),
        labels=labels,
        features=torch.randn(count, 5, dtype=D64, generator=generator) + labels[:, None] + shift,
        predicted=None,
        logits=torch.randn(count, 4, dtype=D64, generator=generator),
    )


GENERATED, REFERENCE = evidence(seed=1, shift=0.5), evidence(count=300, seed=2)
REAL = Real(reference=REFERENCE, held_out=REFERENCE, class_names=("zero", "one", "two"))

SMALL = {
    "diffbench": 1,
    "name": "small",
    "extractor": "pixels",
    "axes": {
        "backbone": [{"unet": {"channels": 8, "multipliers": [[1, 1]], "blocks": 1}}],
        "scheduler": [{"ddim": {"steps": 2}}],
    },
    "train": {"steps": 2, "batch_size": 8},
    "sample": {"count": 80, "batch_size": 40},
    "throughput": False,
}
