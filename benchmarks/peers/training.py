"""Training steps here and in diffusers: forward, loss, backward, clipping, AdamW, moving average. Used by `peers`."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.peers import networks
from benchmarks.peers.pairs import Missing, Pair
from diffbench import Cell, Split
from diffbench.stages import training_loop

CPU = torch.device("cpu")


def pairs() -> Iterator[Pair | Missing]:
    """The U-Net and the transformer, at both sizes."""
    yield Missing("training with denoising-diffusion-pytorch, azula, k-diffusion: their networks have other layers "
                  "(linear attention, RMS norms)")
    for size, (name, build) in itertools.product(networks.SIZES, (("U-Net", networks.unets), ("DiT", networks.dits))):
        try:
            cell, theirs = build(size)
        except Missing as missing:
            yield missing
            continue
        ours = training_loop.build(cell, CPU)
        sizes = (f"{networks.parameters(ours.network) / 1e6:.2f} M, theirs {networks.parameters(theirs) / 1e6:.2f} M "
                 "parameters")
        yield Pair(label=f"training {name} ({sizes}), {size.batch} of {size.pixels}x{size.pixels}",
                   ours=cell.backbone.component_name(),
                   peer=f"diffusers {type(theirs).__name__}", do_ours=_ours(cell, networks.made_up(size)),
                   do_peer=_theirs(theirs, size),
                   units=size.train_steps, goal=1.2)


def _ours(cell: Cell, split: Split) -> Callable[[], float]:
    def run() -> float:
        return training_loop.train(cell, split, CPU).seconds
    return run


def _theirs(network: nn.Module, size: networks.Size) -> Callable[[], float]:
    """The loop of diffusers' own example, its data in memory as ours are."""
    import diffusers
    from diffusers.training_utils import EMAModel

    scheduler = diffusers.DDPMScheduler(beta_schedule="linear")
    split = networks.made_up(size)
    images, labels = split.images.float() / 127.5 - 1, split.labels
    optimizer, average = (torch.optim.AdamW(network.parameters(), lr=2e-4),
                          EMAModel(network.parameters(), decay=0.999, use_ema_warmup=True))
    is_dit = hasattr(network, "transformer_blocks")
    network.train()

    def run() -> float:
        since = time.perf_counter()
        for _ in range(size.train_steps):
            rows = torch.randint(0, len(images), (size.batch,))
            x_0, label = images[rows], labels[rows]
            eps = torch.randn(x_0.shape)
            t = torch.randint(0, 1000, (len(x_0),))
            x_t = scheduler.add_noise(x_0, eps, t)
            out: Tensor = network(x_t, t, class_labels=label).sample if is_dit else network(x_t, t).sample
            loss = F.mse_loss(out[:, :1], eps)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            average.step(network.parameters())
            loss.detach().item()
        return time.perf_counter() - since
    return run
