"""The training loop: one denoiser, trained once for all cells that share its training half."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.denoiser import Denoiser, as_condition, condition_of, from_pixels
from diffbench.errors import Diverged
from diffbench.values import Level, Noised, Split

if TYPE_CHECKING:
    from diffbench.matrix import Cell

CHUNK = 50                            # steps whose times are prepared at once on the host, and between looks at the loss on a GPU


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training."""

    weights: dict[str, Tensor]        # the moving average, which is what samples are drawn from
    losses: list[float]               # mean loss of each chunk of steps, the last chunk last
    seconds: float                    # wall time of the loop


def build(cell: Cell, device: torch.device) -> Denoiser:
    """The denoiser of a cell, freshly initialised from its seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return Denoiser(cell).to(device)


def train(cell: Cell, split: Split, device: torch.device, progress: Callable[..., None] = lambda done, of, **figures: None) -> Trained:
    """Trains the denoiser of a cell on one split; raises Diverged at the first loss that is not finite.

    The learning rate rises linearly over `warmup` steps; the moving average ignores its start by a ramped decay,
    min(ema, (1 + n)/(10 + n)); gradients are clipped to norm `clip`; on CUDA the network runs in bfloat16 unless told otherwise.
    """
    settings = cell.train
    model = build(cell, device).train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    batches = _Batches(cell, split, device)
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(cell, device))
    losses: list[float] = []
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(cell.seed)                                             # dropout inside networks draws from the global generator
        for first in range(0, settings.steps, CHUNK):
            total = torch.zeros((), device=device)
            steps = range(first, min(first + CHUNK, settings.steps))
            for step, (noised, cond, drop, c_noise) in zip(steps, batches.draw(len(steps)), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(cell, step)
                with autocast:
                    out = model(noised.x_t, noised.level, c_noise, cond, drop)
                loss = cell.objective.loss(out.float(), noised, cell.noise_schedule, cell.parameterization).mean()
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
                optimizer.step()
                torch._foreach_lerp_(average, [p.detach() for p in parameters], 1 - min(settings.ema, (1 + step) / (10 + step)))
                total += loss.detach()
            losses.append(float(total) / len(steps))                             # the one synchronisation of a chunk
            if not math.isfinite(losses[-1]):
                last = f"{losses[-2]:.4g}" if len(losses) > 1 else "none"
                raise Diverged(f"the training loss became {losses[-1]} between steps {steps.start} and {steps.stop}; the last finite mean was {last}")
            progress(steps.stop, settings.steps, loss=losses[-1], images_per_second=steps.stop * settings.batch_size / (time.perf_counter() - start))
    seconds = time.perf_counter() - start
    weights = dict(model.state_dict())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    weights.update(zip(names, average, strict=True))                             # buffers are kept, parameters averaged
    return Trained(weights={k: v.detach().cpu().contiguous() for k, v in weights.items()}, losses=losses, seconds=seconds)


def learning_rate(cell: Cell, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    settings = cell.train
    rise = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.lr_decay == "constant" or step < settings.warmup:
        return settings.lr * rise
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def uses_bfloat16(cell: Cell, device: torch.device) -> bool:
    """Whether the network runs in bfloat16 on this device."""
    return cell.train.precision == "bfloat16" or (cell.train.precision == "auto" and device.type == "cuda")


class _Batches:
    """Training batches: the data set resident on the device, epochs shuffled, times and drops prepared a chunk ahead.

    Three generators, all from the seed of the cell: the order of the data and the times on the host, the noise on the device.
    """

    def __init__(self, cell: Cell, split: Split, device: torch.device):
        self.cell, self.device = cell, device
        self.images = split.images.to(device)
        stored = condition_of(split)
        self.conditions = None if stored is None else stored.to(device)
        self.order = torch.Generator().manual_seed(cell.seed + 1)
        self.times = torch.Generator().manual_seed(cell.seed + 2)
        self.noise = torch.Generator(device).manual_seed(cell.seed + 3)
        self.left = torch.empty(0, dtype=torch.int64)

    def draw(self, steps: int):
        cell, schedule, size = self.cell, self.cell.noise_schedule, self.cell.train.batch_size
        u = torch.rand(steps, size, dtype=torch.float64, generator=self.times)
        t = cell.objective.times(u, schedule)                                    # [steps, B] float64
        levels = schedule.level(t)
        c_noise = torch.as_tensor(cell.parameterization.c_noise(levels)).float().to(self.device)
        moved = self._moved(levels)
        # A bound needs the level that a step goes to; t - 1/T is rounded back onto the grid.
        previous = self._moved(schedule.level(((t * schedule.grid).round() - 1) / schedule.grid)) if cell.objective.learns_variance else None
        drop = (torch.rand(steps, size, generator=self.times) < cell.conditioning.drop_rate).to(self.device)
        flip = (torch.rand(steps, size, generator=self.times) < 0.5).to(self.device) if cell.train.flip else None
        for i, index in enumerate(self._indices(steps * size).view(steps, size).to(self.device)):
            x_0 = from_pixels(self.images[index])                                # [B, C, H, W]
            if flip is not None:
                x_0 = torch.where(flip[i][:, None, None, None], x_0.flip(-1), x_0)
            eps = torch.randn(x_0.shape, generator=self.noise, device=self.device)
            level = _of_step(moved, i)                                           # [B, 1, 1, 1] each
            x_t = level.alpha * x_0 + level.sigma * eps                          # [B, C, H, W]
            noised = Noised(x_0, eps, x_t, level, previous and _of_step(previous, i))
            cond = None if self.conditions is None else as_condition(self.conditions[index])
            if flip is not None and cond is not None and cond.ndim == 4:         # an image and its condition are mirrored together
                cond = torch.where(flip[i][:, None, None, None], cond.flip(-1), cond)
            yield noised, cond, drop[i], c_noise[i]

    def _moved(self, levels: Level) -> Level:
        return Level(*(part.float().to(self.device) for part in levels))         # one transfer each per chunk

    def _indices(self, count: int) -> Tensor:
        while len(self.left) < count:
            self.left = torch.cat([self.left, torch.randperm(len(self.images), generator=self.order)])
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def _of_step(levels: Level, step: int) -> Level:
    return Level(*(part[step][:, None, None, None] for part in levels))
