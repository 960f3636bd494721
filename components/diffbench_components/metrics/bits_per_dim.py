"""Bits per dimension of held-out images under a trained denoiser."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import (
    Cell,
    DataError,
    DenoiserMetric,
    Diverged,
    Measured,
    Progress,
    TrainedModel,
    draw_visits,
    flow_likelihood,
    image_seeds,
    incidental_option,
    jackknife_blocks,
    jackknifed_mean,
    silent,
    variational_bound,
)

FEWEST_FOR_AN_INTERVAL = 40           # two images in each of twenty blocks
READ_BY = {"bound": {"steps", "draws", "variance", "clip"}, "flow": {"tolerance", "least_noise", "probes"}}


@dataclass(frozen=True, kw_only=True)
class BitsPerDim(DenoiserMetric):
    """Negative log-likelihood of held-out images in bits per dimension; lower is better.

    Mean of -log2 P(image)/D, each image under its own condition and without guidance (w = 1).
    `bound`, column `bits_per_dim_bound`: the variational bound on T reverse steps with the discrete decoder, an upper
    bound for the sampler that takes them all. T is the grid of a discrete schedule, else `steps`. `_prior` and
    `_decoder` are its first and last term.
    `flow`, column `bits_per_dim`: the exact likelihood of the probability flow of uniformly dequantised images, for
    every schedule;
    `_start_nsr` is the sigma/alpha at which the flow starts. The two are of different models and do not bound each
    other.
    `_debiased`, `_low`, `_high`: 95 % interval of the mean over images, in which all that is drawn is contained, terms
    of the bound, noise, dequantisation and probes; `_images` and `_nfe`: how many images and evaluations for each.
    Below 40 images there is no interval.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and 13; Song et al. 2021, arXiv:2011.13456, section 4.3.
    """

    method: Literal["bound", "flow"] = "bound"                       # bound: on T reverse steps; flow: exact, of the
                                                                     # probability flow
    images: Annotated[int, Ge(1)] = 1000                             # held-out images, spread evenly over the split;
                                                                     # all where it has fewer
    steps: Annotated[int, Ge(2)] = 1000                              # of the bound: T on a continuous schedule
    draws: Annotated[int, Ge(1)] = 100                               # of the bound: terms drawn of the T; from T - 1
                                                                     # on all are summed
    variance: Literal["small", "large"] = "small"                    # of the bound: of a reverse step whose network
                                                                     # learned none
    clip: bool = True                                                # of the bound: clamp x0_hat to the range of
                                                                     # pixels, as samplers do
    tolerance: Annotated[float, Interval(ge=1e-8, le=0.1)] = 1e-4    # of the flow: error of one step of the solver,
                                                                     # pixels and nats per dimension
    least_noise: Annotated[float, Interval(ge=1e-5, le=0.1)] = 1e-3  # of the flow: sigma/alpha where it starts; a
                                                                     # pixel value is 0.0078 wide
    probes: Annotated[int, Ge(1)] = 1                                # of the flow: random directions per image that
                                                                     # estimate the divergence
    batch_size: Annotated[int, Ge(1)] = incidental_option(100)       # images at a time

    examples = ({}, {"draws": 20, "steps": 60, "variance": "large", "clip": False}, {"method": "flow"},
                {"method": "flow", "probes": 2, "least_noise": 0.01})

    def equal_to(self) -> BitsPerDim:
        """Options that the method does not read are as if they were not given."""
        unread = set.union(*(options for method, options in READ_BY.items() if method != self.method))
        return replace(self, **{f.name: f.default for f in fields(self) if f.name in unread})

    def why_not(self, cell: Cell) -> str | None:
        if cell.process.is_gaussian and cell.autoencoder.is_identity:
            return None
        return "both likelihoods are of pixels under Gaussian noise"

    def column(self, extractor) -> str:
        return "bits_per_dim" if self.method == "flow" else "bits_per_dim_bound"

    def for_smoke(self) -> BitsPerDim:
        return replace(self, images=min(self.images, 8), draws=2, tolerance=0.1)

    def measure(self, model: TrainedModel, progress: Progress = silent) -> dict[str, Measured]:
        there = len(model.held_out.images)
        if not there:
            raise DataError("bits_per_dim needs held-out images, and the split is empty")
        count = min(self.images, there)
        rows = torch.arange(count) * there // count                       # a split may be in the order of its classes
        bits, evaluations, more = (self._bound if self.method == "bound" else self._flow)(model, rows, progress)
        if not bits.isfinite().all():
            wrong = int((~bits.isfinite()).sum())
            raise Diverged(f"bits_per_dim: {wrong} of {count} held-out images have no finite likelihood under this "
                           "denoiser")
        few = f"{count} images are too few for 20 blocks of two: {FEWEST_FOR_AN_INTERVAL} would do"
        blocks = jackknife_blocks(count) if count >= FEWEST_FOR_AN_INTERVAL else few
        return {"": jackknifed_mean(bits, blocks), "_images": float(count), "_nfe": evaluations / count, **more}

    def _bound(self, model: TrainedModel, rows: Tensor, progress: Progress) -> tuple[Tensor, int, dict[str, float]]:
        """(bits of each image [N], images sent through the network, other columns)."""
        steps, generator = model.schedule.grid or self.steps, torch.Generator().manual_seed(model.seed)
        bits, evaluations = torch.empty(3, len(rows), dtype=torch.float64), 0
        blocks = jackknife_blocks(len(rows))
        # The images of a block share the terms that are drawn: what the draw misses is then part of the spread between
        # blocks.
        for block in blocks.unique():
            visits = draw_visits(steps, self.draws, generator)
            for batch in (blocks == block).nonzero()[:, 0].split(self.batch_size):
                images, seeds = (model.held_out.images[rows[batch]].to(model.device),
                                 image_seeds(model.seed, rows[batch]))
                bound = variational_bound(model.denoise(rows[batch]), model.schedule, images, seeds, steps, visits,
                                          share=float(self.variance == "large"), clip=self.clip)
                bits[:, batch] = torch.stack(bound).cpu()
                evaluations += len(batch) * (len(visits) + 1)
                progress(min(evaluations // (len(visits) + 1), len(rows)), len(rows))
        total, prior, decoder = bits
        return total, evaluations, {"_prior": float(prior.mean()), "_decoder": float(decoder.mean())}

    def _flow(self, model: TrainedModel, rows: Tensor, progress: Progress) -> tuple[Tensor, int, dict[str, float]]:
        """(bits of each image [N], images sent through the network, other columns)."""
        bits, evaluations, start = torch.empty(len(rows), dtype=torch.float64), 0, 0.0
        for batch in torch.arange(len(rows)).split(self.batch_size):
            images, seeds = model.held_out.images[rows[batch]].to(model.device), image_seeds(model.seed, rows[batch])
            flow = flow_likelihood(model.denoise(rows[batch]), model.schedule, images, seeds, tolerance=self.tolerance,
                                   least_noise=self.least_noise,
                                   probes=self.probes)
            bits[batch], start = flow.total.cpu(), flow.start
            evaluations += len(batch) * flow.evaluations
            progress(int(batch[-1]) + 1, len(rows))
        return bits, evaluations, {"_start_nsr": start}
