"""Our networks in turns with diffusers' of one architecture and size, in training and sampling. Used by `networks`."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from diffbench_components.backbones.pyramid import group_norm
from torch import Tensor, nn

from benchmarks.gpu.costs import parameters, rounded
from benchmarks.gpu.day import Day, Figures, Finding, NotMeasured
from benchmarks.gpu.variants import CLASSES, cell_of, sampler_run
from benchmarks.peers import networks as peers
from benchmarks.peers.pairs import Missing
from diffbench import Cell
from diffbench.machine import laps as timing
from diffbench.stages import drawing, training_loop
from diffbench.stages.compiling import Compiling

LEAST_SECONDS = 15.0                  # that a comparison is begun with
GUIDANCE = 2.0
BEGINNING = 5                         # steps of a training that are taken off: three warm up, one records, one more
WAYS = {"from graphs": "graphs", "step by step": "off"}       # of `run.compile`
Timed = Callable[[], float]           # does some work; gives its seconds


def beside_unet(day: Day, name: str, cell: Cell, steps: int) -> Finding:
    """DDPM's U-Net beside UNet2DModel. steps: of one lap of training."""
    return _beside(day, name, cell, _their_unet(cell), guidance=None, steps=day.sized(steps, 1))


def beside_dit(day: Day, name: str, cell: Cell, steps: int) -> Finding:
    """A DiT beside DiTTransformer2DModel, sampled with classifier-free guidance. steps: of one lap of training."""
    return _beside(day, name, cell, _their_dit(cell), guidance=GUIDANCE, steps=day.sized(steps, 1))


def _diffusers() -> Any:
    try:
        return peers.diffusers()
    except Missing as missing:
        raise NotMeasured(str(missing)) from missing


def _their_unet(cell: Cell) -> nn.Module:
    options, (channels, pixels, _) = cell.backbone, cell.dataset.image_shape
    kinds = ["Attn" if pixels >> level in options.attention else "" for level in range(len(options.multipliers))]
    return _diffusers().UNet2DModel(
        sample_size=pixels,
        in_channels=channels,
        out_channels=channels,
        layers_per_block=options.blocks,
        attention_head_dim=None,
        norm_num_groups=_groups(options.channels),
        block_out_channels=tuple(options.channels * m for m in options.multipliers),
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
    )


def _groups(channels: int) -> int:
    """The groups that our U-Net's first level has."""
    return group_norm(channels).num_groups


def _their_dit(cell: Cell) -> nn.Module:
    options, (channels, pixels, _) = cell.backbone, cell.dataset.image_shape
    return _diffusers().DiTTransformer2DModel(
        num_attention_heads=options.heads,
        attention_head_dim=options.width // options.heads,
        in_channels=channels,
        out_channels=channels,
        num_layers=options.depth,
        sample_size=pixels,
        patch_size=options.patch,
        num_embeds_ada_norm=CLASSES,
    )


def _beside(day: Day, name: str, cell: Cell, theirs: nn.Module, *, guidance: float | None, steps: int) -> Finding:
    """Their seconds over ours, in training (bfloat16) and in sampling (float32); ours by the faster of two ways."""
    if day.seconds_left < LEAST_SECONDS:
        raise NotMeasured(f"{day.seconds_left:.0f} s were left of the part's time")
    device, theirs = day.device, theirs.to(day.device)
    cell = replace(cell, train=replace(cell.train, precision="bfloat16", steps=steps))
    guided = cell if guidance is None else _guided(cell, guidance)
    sizes = [f"{parameters(network) / 1e6:.1f} M" for network in (theirs, training_loop.build(cell, device))]
    halves = {
        "train": ({way: _our_loop(day, cell, way) for way in WAYS}, _their_loop(cell, theirs, device)),
        "sample": ({way: _our_run(guided, device, way) for way in WAYS}, _their_run(cell, theirs, device, guidance)),
    }
    figures: Figures = {half: {name: _ratios(ours, peer, day.sized(2, 1))} for half, (ours, peer) in halves.items()}
    train, sample = (
        f"{rounded(figures[half][name]['ratio'])} times as long ({figures[half][name]['way']})" for half in halves
    )
    return Finding(
        f"diffusers' {type(theirs).__name__} ({sizes[0]} parameters) takes {train} to train and {sample} to sample "
        f"as {name} "
        f"({sizes[1]})",
        figures,
    )


def _ratios(ours: Mapping[str, Timed], theirs: Timed, laps: int) -> Figures:
    """Medians over laps in turns, and the ratio to the faster of our ways."""
    theirs()                                              # ours are warm when their clocks begin
    seconds: dict[str, list[float]] = {name: [] for name in (*ours, "theirs")}
    for _ in range(laps):
        for name, work in {**ours, "theirs": theirs}.items():
            seconds[name].append(work())
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    way = min(ours, key=lambda name: medians[name])
    return {"ratio": medians["theirs"] / medians[way], "way": way, "seconds": seconds}


def _our_loop(day: Day, cell: Cell, way: str) -> Timed:
    """Seconds of `cell.train.steps` steps of our loop: of a training less its beginning, where it warms up, records."""
    split, beginning = cell.dataset.load()["train"], day.sized(BEGINNING, 0)

    def seconds(steps: int) -> float:
        compiling = Compiling(kind="train", asked=WAYS[way], device=day.device)
        longer = replace(cell, train=replace(cell.train, steps=steps))
        return training_loop.train(longer, split, day.device, compiling=compiling).seconds

    def run() -> float:
        before = seconds(beginning)                       # first: it also warms up what the longer one is timed with
        return seconds(beginning + cell.train.steps) - before
    return run


def _their_loop(cell: Cell, network: nn.Module, device: torch.device) -> Timed:
    """The loop of diffusers' own example, its data on the device as ours are."""
    from diffusers import DDPMScheduler
    from diffusers.training_utils import EMAModel

    scheduler, split = DDPMScheduler(beta_schedule="linear"), cell.dataset.load()["train"]
    images, labels = split.images.to(device).float() / 127.5 - 1, split.labels.to(device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=cell.train.lr, weight_decay=cell.train.weight_decay)
    average = EMAModel(network.parameters(), decay=cell.train.ema, use_ema_warmup=True)
    is_told = cell.conditioning.ports

    def run() -> float:
        network.train()
        timing.synchronise(device)
        since = time.perf_counter()
        for _ in range(cell.train.steps):
            rows = torch.randint(0, len(images), (cell.train.batch_size,), device=device)
            x_0 = images[rows]                                                   # [B, C, H, W]
            eps = torch.randn(x_0.shape, device=device)
            t = torch.randint(0, 1000, (len(x_0),), device=device)
            x_t = scheduler.add_noise(x_0, eps, t)
            with torch.autocast(device.type, torch.bfloat16):
                out = network(x_t, t, class_labels=labels[rows]).sample if is_told else network(x_t, t).sample
            loss = F.mse_loss(out.float()[:, : x_0.shape[1]], eps)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), cell.train.clip)
            optimizer.step()
            optimizer.zero_grad()
            average.step(network.parameters())
            loss.detach().item()
        timing.synchronise(device)
        return time.perf_counter() - since
    return run


def _our_run(cell: Cell, device: torch.device, way: str) -> Timed:
    model = training_loop.build(cell, device)
    Compiling(kind="sample", asked=WAYS[way], device=device).begin(model)
    draw = sampler_run(cell, model, device)
    draw()
    return lambda: timing.lap(lambda: drawing.to_pixels(draw()), 1, device)


def _guided(cell: Cell, scale: float) -> Cell:
    options = cell.backbone
    dit = {"patch": options.patch, "width": options.width, "depth": options.depth, "heads": options.heads}
    channels, pixels, _ = cell.dataset.image_shape
    return cell_of(
        {"dit": dit},
        (channels, pixels),
        cell.train.batch_size,
        conditioning={"cfg": {"inner": "film", "scale": scale}},
        sampler_steps=cell.scheduler.steps,
    )


def _their_run(cell: Cell, network: nn.Module, device: torch.device, guidance: float | None) -> Timed:
    """Their pipeline; of the transformer, whose pipeline wants a latent decoder, its loop without."""
    from diffusers import DDIMPipeline, DDIMScheduler

    scheduler, steps, count = DDIMScheduler(beta_schedule="linear"), cell.scheduler.steps, cell.sample.count
    shape = cell.dataset.image_shape
    label = torch.arange(count, device=device) % CLASSES
    both = torch.cat([label, torch.full((count,), CLASSES, device=device)])

    def pipeline() -> None:
        network.eval()
        drawn = DDIMPipeline(unet=network, scheduler=scheduler)
        drawn.set_progress_bar_config(disable=True)
        drawn(batch_size=count, num_inference_steps=steps, output_type="np")

    @torch.no_grad()
    def loop() -> None:
        network.eval()
        scheduler.set_timesteps(steps)
        x: Tensor = torch.randn(count, *shape, device=device)                    # [B, C, H, W]
        for t in scheduler.timesteps.to(device):
            out = network(torch.cat([x, x]), t.expand(2 * count), class_labels=both).sample[:, : shape[0]]
            cond, null = out.chunk(2)
            x = scheduler.step(null + guidance * (cond - null), t, x).prev_sample
        x.cpu()
    return lambda: timing.lap(pipeline if guidance is None else loop, 1, device)
