"""Training steps and sampler runs in the ways a GPU allows: dtypes, memory formats, graphs, compilers.

Used by all of `gpu`.

Used by `networks` and `small_networks`. On a CPU a CUDA graph is the plain call: a dry run walks the same lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

import diffbench
from benchmarks.gpu.costs import Work
from diffbench import Cell, Condition, Dataset, Level, Noised, Signals, Split
from diffbench.diffusion.denoiser import Denoiser
from diffbench.matrix import loading
from diffbench.stages import drawing

REGISTRY = diffbench.load_registry()
CLASSES = 10
WARM_RUNS = 3                         # before a capture: libraries choose their kernels and take their workspaces


@dataclass(frozen=True, kw_only=True)
class Pictures(Dataset):
    """Random pixels of any shape, uint8 [count, C, H, W], with labels: time does not depend on what images show."""

    channels: int
    pixels: int                       # a side
    count: int = 512

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.channels, self.pixels, self.pixels)

    @property
    def classes(self) -> int:
        return CLASSES

    def fingerprint(self) -> str:
        return ""

    def load(self) -> dict[str, Split]:
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (self.count, *self.image_shape), dtype=torch.uint8, generator=generator)
        return dict.fromkeys(
            ("train", "reference", "held_out"), Split(images=images, labels=torch.arange(self.count) % CLASSES)
        )


def cell_of(
    backbone: Mapping[str, Any],
    shape: tuple[int, int],
    batch: int,
    *,
    conditioning: Any = "none",
    sampler_steps: int = 10,
    train_steps: int = 20,
) -> Cell:
    """A cell on random pictures. backbone: as in a matrix; shape: (channels, pixels); batch: of a step and of a run."""
    channels, pixels = shape
    content = {
        "diffbench": 1,
        "dataset": {"gaussian_mixture": {"size": pixels, "components": CLASSES}},
        "metrics": [],
        "axes": {
            "backbone": dict(backbone),
            "scheduler": {"ddim": {"steps": sampler_steps}},
            "conditioning": conditioning,
        },
        "train": {"steps": train_steps, "batch_size": batch},
        "sample": {"count": batch},
    }
    return replace(loading.load(content, REGISTRY).cells[0], dataset=Pictures(channels=channels, pixels=pixels))


@dataclass(frozen=True)
class Batch:
    """The inputs of a training step: images [B, C, H, W], levels [B, 1, 1, 1] each, c_noise, labels and drops [B]."""

    noised: Noised
    c_noise: Tensor
    cond: Condition
    drop: Tensor

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order that `of` takes."""
        return [*self.noised[:3], *self.noised.level, self.c_noise, self.cond.label, self.drop]

    @staticmethod
    def of(tensors: list[Tensor] | tuple[Tensor, ...]) -> Batch:
        """The batch that has these tensors."""
        x_0, eps, x_t, *level, c_noise, label, drop = tensors
        return Batch(Noised(x_0, eps, x_t, Level(*level)), c_noise, Condition(label=label), drop)


def batch_of(
    cell: Cell, device: torch.device, seed: int = 0, memory_format: torch.memory_format = torch.contiguous_format
) -> Batch:
    """A batch as the training draws it, of random images."""
    generator, size = torch.Generator().manual_seed(seed), cell.train.batch_size
    u = torch.rand(size, dtype=torch.float64, generator=generator)
    t = cell.objective.times(u, cell.noise_schedule)                             # [B]
    levels = cell.noise_schedule.level(t)
    c_noise = torch.as_tensor(cell.parameterization.c_noise(levels)).float().to(device)
    level = Level(*(part.float()[:, None, None, None].to(device) for part in levels))
    noise = torch.randn(2, size, *cell.dataset.image_shape, generator=generator).to(device)
    x_0, eps = (tensor.contiguous(memory_format=memory_format) for tensor in noise)  # [B, C, H, W]
    noised = Noised(x_0, eps, level.alpha * x_0 + level.sigma * eps, level)
    labels = (torch.arange(size) % CLASSES).to(device)
    return Batch(noised, c_noise, Condition(label=labels), torch.zeros(size, dtype=torch.bool, device=device))


class Step:
    """A whole training step of `training.train` on one batch: forward, loss, backward, clipping, AdamW, moving average.

    is_captured: learning rate and average's weight are tensors on the device, which a graph reads at each replay.
    """

    def __init__(self, cell: Cell, model: Denoiser, batch: Batch, *, is_bfloat16: bool, is_captured: bool = False):
        self.cell, self.model, self.batch = cell, model.train(), batch
        self.device, self.is_bfloat16, self.is_captured = batch.c_noise.device, is_bfloat16, is_captured
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.rate = torch.tensor(cell.train.lr, device=self.device) if is_captured else cell.train.lr
        self.weight = torch.tensor(1 - cell.train.ema, device=self.device) if is_captured else 1 - cell.train.ema
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=self.rate, weight_decay=cell.train.weight_decay, fused=True, capturable=is_captured
        )
        self.total = torch.zeros((), device=self.device)

    def __call__(self) -> None:
        cell, batch = self.cell, self.batch
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.is_bfloat16):
            out = self.model(batch.noised.x_t, batch.noised.level, batch.c_noise, batch.cond, batch.drop)
        loss = cell.objective.loss(out.float(), batch.noised, cell.noise_schedule, cell.parameterization).mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, cell.train.clip, foreach=True)
        self.optimizer.step()
        self._follow([p.detach() for p in self.parameters])
        self.total += loss.detach()

    def _follow(self, parameters: list[Tensor]) -> None:
        if not self.is_captured:
            torch._foreach_lerp_(self.average, parameters, self.weight)
            return
        moved = torch._foreach_sub(parameters, self.average)                     # lerp takes no weight from the device
        torch._foreach_mul_(moved, self.weight)
        torch._foreach_add_(self.average, moved)


def captured(step: Step, fresh: Batch) -> Work:
    """The step from a CUDA graph: `fresh`, rate and weight are copied into the tensors that the graph reads."""
    settings, replay, steps_taken = step.cell.train, graph_of(step, step.device), 0

    def run() -> None:
        nonlocal steps_taken
        steps_taken += 1
        torch._foreach_copy_(step.batch.tensors(), fresh.tensors())
        step.rate.fill_(settings.lr)
        step.weight.fill_(1 - min(settings.ema, (1 + steps_taken) / (10 + steps_taken)))
        replay()
    return run


def graph_of(work: Work, device: torch.device) -> Work:
    """A call that repeats what `work` launches, from a CUDA graph; on a CPU `work`; run WARM_RUNS times before."""
    if device.type != "cuda":
        return work
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(WARM_RUNS):
            work()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


class Replayed(nn.Module):
    """A network's evaluation from a CUDA graph, without gradients, for inputs of the shapes of its first call.

    Its output [B, C_out, H, W] is memory that the next call overwrites. The conditioning may give a vector at most.
    Unlike `diffbench.diffusion.replay` it may stand under autocast.
    """

    def __init__(self, network: nn.Module, *, is_bfloat16: bool):
        super().__init__()
        self.network, self.is_bfloat16 = network, is_bfloat16
        self.inputs: list[Tensor] = []
        self.out: Tensor | None = None
        self.replay: Work | None = None

    def forward(self, x: Tensor, c_noise: Tensor, signals: Signals) -> Tensor:
        tensors = [x, c_noise, *([] if signals.vector is None else [signals.vector])]
        if self.replay is None:
            self.inputs = [tensor.clone() for tensor in tensors]
            self.replay = graph_of(self._evaluate, x.device)
        for static, tensor in zip(self.inputs, tensors, strict=True):
            static.copy_(tensor)
        self.replay()
        return self.out

    def _evaluate(self) -> None:
        x, c_noise, *vector = self.inputs
        # No cache: casts of weights that outlive the capture would be read by the graph after they are freed.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.is_bfloat16, cache_enabled=False):
            self.out = self.network(x, c_noise, Signals(vector=vector[0] if vector else None))


def replayed(model: Denoiser, *, is_bfloat16: bool) -> Denoiser:
    """The model with its network in a CUDA graph; it is changed in place."""
    model.network, model.is_reused = Replayed(model.network, is_bfloat16=is_bfloat16), True
    return model


def sampler_run(
    cell: Cell, model: Denoiser, device: torch.device, *, is_bfloat16: bool = False, count: int | None = None
) -> Work:
    """A run of the sampler as the harness does it, `count` images or a batch of them, x_0 on the host at its end."""
    helpers, (cond, _) = drawing.helpers_for(cell, device), drawing.asked_for(cell)
    indices, model = range(count or cell.sample.count), model.eval()

    def run() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16):
            return drawing.draw(cell, model, cond, helpers, device, indices)
    return run


def compiled(model: Denoiser, kind: str, *, is_dry: bool) -> Denoiser:
    """The model, its network compiled as `run.compile` does it for "train" or "sample"; in a dry run only traced."""
    graphs = kind == "sample" and not is_dry
    if is_dry:
        model.network.compile(backend="eager")
    else:
        model.network.compile(mode="reduce-overhead" if graphs else "default")
    model.is_reused = graphs
    return model
