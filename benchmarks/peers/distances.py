"""The Fréchet distance of given features by torchmetrics, torch-fidelity and here. Used by `peers`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.peers.pairs import Missing, Pair, Work
from diffbench import Moments, frechet_distance, moments

COUNT = 2000


def pairs() -> Iterator[Pair | Missing]:
    """At the width of small extractors and at 768;
    each side sees 2,000 generated features, the reference's statistics are known to both.
    """
    yield Missing("features: Inception's weights are no part of this repository, so extraction is not timed")
    for width in (64, 768):
        generator = torch.Generator().manual_seed(0)
        x, y = (torch.randn(COUNT, width, generator=generator, dtype=torch.float64) * scale for scale in (1.0, 1.1))
        yield from _torchmetrics(x, y)
        yield from _fidelity(x, y)


def _torchmetrics(x: Tensor, y: Tensor) -> Iterator[Pair | Missing]:
    try:
        from torchmetrics.image.fid import FrechetInceptionDistance
    except ImportError as error:
        yield Missing(f"torchmetrics: {error}")
        return

    class Features(torch.nn.Module):
        """An extractor that returns features unchanged."""

        num_features = x.shape[1]

        def forward(self, images):
            return images
    metric = FrechetInceptionDistance(feature=Features(), reset_real_features=False).set_dtype(torch.float64)
    metric.update(y, real=True)
    reference = moments(y)

    def run() -> None:
        metric.reset()
        metric.update(x, real=False)
        metric.compute()
    yield _pair(x, "torchmetrics", lambda: _ours(x, reference), run)


def _fidelity(x: Tensor, y: Tensor) -> Iterator[Pair | Missing]:
    try:
        from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    except ImportError as error:
        yield Missing(f"torch-fidelity: {error}")
        return
    ours_reference, reference = moments(y), fid_features_to_statistics(y)

    def run() -> None:
        fid_statistics_to_metric(fid_features_to_statistics(x), reference, False)
    yield _pair(x, "torch-fidelity", lambda: _ours(x, ours_reference), run)


def _ours(x: Tensor, reference: Moments) -> None:
    frechet_distance(x, reference)


def _pair(x: Tensor, peer: str, ours: Work, theirs: Work) -> Pair:
    return Pair(label=f"Fréchet distance, {COUNT} features of {x.shape[1]}", ours="frechet_distance", peer=peer,
                do_ours=ours, do_peer=theirs, unit="distance")
