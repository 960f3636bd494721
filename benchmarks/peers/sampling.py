"""Sampling runs here and in diffusers: one architecture, one scheduler, one number of steps. Used by `peers`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.peers import networks
from benchmarks.peers.pairs import Missing, Pair
from diffbench import Cell
from diffbench.stages import drawing, training_loop

CPU = torch.device("cpu")
STEPS = 10


def pairs() -> Iterator[Pair | Missing]:
    """DDIM on the U-Net by its pipeline;
    on the transformer with classifier-free guidance, whose pipeline wants a latent decoder: its loop without.
    """
    for size, build in itertools.product(networks.SIZES, (_unet, _dit)):
        try:
            yield build(size)
        except Missing as missing:
            yield missing


def _unet(size: networks.Size) -> Pair:
    import diffusers

    cell, network = networks.unets(size)
    return Pair(label=f"sampling, U-Net, DDIM of {STEPS} steps, {size.batch} of {size.pixels}x{size.pixels}",
                ours="unet, ddim",
                peer="diffusers DDIMPipeline", do_ours=_ours(_ddim(cell), size),
                do_peer=_pipeline(diffusers, network.eval(), size), units=size.batch, unit="image", goal=1.2)


def _pipeline(diffusers: ModuleType, network: nn.Module, size: networks.Size) -> Callable[[], None]:
    pipeline = diffusers.DDIMPipeline(unet=network, scheduler=diffusers.DDIMScheduler(beta_schedule="linear"))
    pipeline.set_progress_bar_config(disable=True)

    def run() -> None:
        pipeline(batch_size=size.batch, num_inference_steps=STEPS, output_type="np")
    return run


def _dit(size: networks.Size) -> Pair:
    import diffusers

    _, network = networks.dits(size)
    network.eval()
    cell = networks.cell(size, "dit", {"cfg": {"inner": "film", "scale": 2.0}}, {"ddim": {"steps": STEPS}})
    scheduler = diffusers.DDIMScheduler(beta_schedule="linear")
    label = torch.arange(size.batch) % networks.CLASSES
    both = torch.cat([label, torch.full((size.batch,), networks.CLASSES)])

    @torch.no_grad()
    def run() -> None:
        scheduler.set_timesteps(STEPS)
        x: Tensor = torch.randn(size.batch, 1, size.pixels, size.pixels)
        for t in scheduler.timesteps:
            out = network(torch.cat([x, x]), t.expand(2 * size.batch), class_labels=both).sample[:, :1]
            cond, null = out.chunk(2)
            x = scheduler.step(null + 2.0 * (cond - null), t, x).prev_sample
    return Pair(label=f"sampling, DiT with guidance, DDIM of {STEPS} steps, {size.batch} of "
                      f"{size.pixels}x{size.pixels}", ours="dit, cfg, ddim",
                peer="diffusers DiTTransformer2DModel",
                do_ours=_ours(cell, size), do_peer=run, units=size.batch, unit="image", goal=1.2)


def _ddim(cell: Cell) -> Cell:
    return replace(cell, scheduler=replace(cell.scheduler, steps=STEPS))


def _ours(cell: Cell, size: networks.Size) -> Callable[[], None]:
    model, helpers = training_loop.build(cell, CPU).eval(), drawing.helpers_for(cell, CPU)
    cond, _ = drawing.asked_for(cell)

    def run() -> None:
        drawing.to_pixels(drawing.draw(cell, model, cond, helpers, CPU, range(size.batch)))
    return run
