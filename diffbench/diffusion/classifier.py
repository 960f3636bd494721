"""A small image classifier: its features measure distances, and another fit of it judges class accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench.contracts.values import Progress, silent
from diffbench.errors import DataError, Diverged

BATCH = 128
WARMUP = 50                           # steps over which the learning rate rises
READ_BATCH = 512                      # images per pass when nothing is learned


class Classifier(nn.Module):
    """Convolutions that halve the image to at most 4x4, a layer of `width` features, and a linear layer of logits.

    image_shape: (C, H, W), H and W from 8 to 64; classes: K >= 2; width: d, the number of features.
    GroupNorm, not BatchNorm: training and evaluation compute the same, and no image depends on its batch.
    """

    image_shape: Tensor               # int64 [3]

    def __init__(self, image_shape: tuple[int, int, int], classes: int, width: int = 64):
        super().__init__()
        channels, height, breadth = image_shape
        if min(height, breadth) < 8 or max(height, breadth) > 64:
            raise DataError(f"the classifier takes images from 8x8 to 64x64, got {height}x{breadth}")
        # full resolution is most of the cost and adds nothing
        stride = 2 if max(height, breadth) > 16 else 1
        layers, inputs, outputs = [], channels, 32
        while max(height, breadth) > 4:
            layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.GroupNorm(8, outputs), nn.GELU()]
            height, breadth = -(-height // stride), -(-breadth // stride)
            inputs, outputs, stride = outputs, 64, 2
        self.trunk = nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * height * breadth, width), nn.GELU())
        self.head = nn.Linear(width, classes)
        self.register_buffer("image_shape", torch.tensor(image_shape))     # all that the shapes of weights do not tell

    def features(self, images: Tensor) -> Tensor:
        """float [N, C, H, W] in [-1, 1] to float [N, d]."""
        return self.trunk(images)

    def forward(self, images: Tensor) -> Tensor:
        """float [N, C, H, W] in [-1, 1] to logits, float [N, K]."""
        return self.head(self.features(images))

    def describe(self, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Features of uint8 images [N, C, H, W], float64 [N, d] on the host."""
        return self._read(self.features, images, device).double()

    def predict(self, images: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """The likeliest class of uint8 images [N, C, H, W], int64 [N] on the host."""
        return self._read(self, images, device).argmax(1)

    def weights(self) -> dict[str, Tensor]:
        """Everything `from_weights` needs, by name, on the host."""
        return {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}

    @classmethod
    def from_weights(cls, weights: Mapping[str, Tensor]) -> Classifier:
        """The classifier these weights were taken from, on the host, in evaluation mode."""
        classes, width = weights["head.weight"].shape
        with torch.device("meta"):                                         # draws no initial weights
            made = cls(tuple(weights["image_shape"].tolist()), classes, width)
        made.load_state_dict(dict(weights), assign=True)
        return made.requires_grad_(False).eval()

    def _read(self, function: Callable[[Tensor], Tensor], images: Tensor, device: torch.device | str) -> Tensor:
        if (images.ndim != 4 or tuple(images.shape[1:]) != tuple(self.image_shape.tolist())
            or images.dtype != torch.uint8):
            raise DataError(f"the classifier reads uint8 images [N, {', '.join(map(str, self.image_shape.tolist()))}], "
                            f"got {str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
        self.to(device).eval()
        with torch.inference_mode():
            return torch.cat([function(scaled(part.to(device))).cpu() for part in images.split(READ_BATCH)])


def fit_classifier(images: Tensor, labels: Tensor, classes: int, seed: int, device: torch.device | str = "cpu", *,
                   width: int = 64, steps: int | None = None, learning_rate: float = 3e-3, weight_decay: float = 0.05,
                   smoothing: float = 0.05, progress: Progress = silent) -> tuple[Classifier, dict[str, float]]:
    """Fits a classifier to labelled images and says how well: (classifier, facts).

    images: uint8 [N, C, H, W]; labels: int64 [N] in 0..classes - 1; steps: optimiser steps of 128 images, by default
    `steps_for(N)`; smoothing: share of the target spread over all classes.
    AdamW with cosine decay; images are shifted by up to 1/8 of their size, edges repeated. Weights, batches and shifts
    are a function of the seed alone: the global generator is neither read nor moved, and one device and number of
    threads repeat their result to the bit. Facts: train_accuracy in [0, 1], fit_steps, fit_seconds (wall clock,
    everything included). Raises DataError for images and labels that do not belong together, Diverged where the loss is
    not finite.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or labels.shape != (len(images),) or not len(images):
        shapes = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)} and {list(labels.shape)}"
        raise DataError(f"a classifier learns from uint8 images [N, C, H, W] and labels [N], got {shapes}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels must be in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would move CUDA's generators too
        torch.default_generator.manual_seed(seed)
        model = Classifier(shape_of(images), classes, width)
    model.to(device)
    inputs, wanted = images.to(device), labels.to(device)
    steps = steps_for(len(images)) if steps is None else steps
    if steps < 1:
        raise DataError(f"a classifier needs at least one step, got {steps}")

    def loss_of(picked: Tensor) -> Tensor:
        batch = _shifted(inputs[picked.to(device)], generator)
        return F.cross_entropy(model(scaled(batch)), wanted[picked.to(device)], label_smoothing=smoothing)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        loss = minimise(loss_of, model, len(images), steps, generator, learning_rate, weight_decay, progress)
    if not loss.isfinite():
        raise Diverged(f"the classifier's loss is {float(loss)} after {steps} steps")
    accuracy = float((model.predict(images, device) == labels.cpu()).double().mean())
    return model, {"train_accuracy": accuracy, "fit_steps": float(steps), "fit_seconds": time.perf_counter() - began}


def shape_of(images: Tensor) -> tuple[int, int, int]:
    """(C, H, W) of images [N, C, H, W]."""
    _, channels, height, width = images.shape
    return channels, height, width


def steps_for(count: int) -> int:
    """Optimiser steps for `count` images: 400 up to 1,000 images, then growing with count^0.4 (2,057 for 60,000)."""
    return round(400 * max(1.0, count / 1000) ** 0.4)


def minimise(loss_of: Callable[[Tensor], Tensor], model: nn.Module, count: int, steps: int, generator: torch.Generator,
             learning_rate: float,
             weight_decay: float, progress: Progress) -> Tensor:
    """Takes optimiser steps along batches of `count` images and gives the last loss;
    loss_of: of the images with these indices.
    """
    optimizer, decay = _optimizer(model, steps, learning_rate, weight_decay)
    loss = torch.zeros(())
    for done, picked in enumerate(_batches(count, steps, generator), start=1):
        loss = loss_of(picked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        progress(done, steps)
    return loss


def _optimizer(model: nn.Module, steps: int, learning_rate: float, weight_decay: float) -> tuple[
        torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """AdamW whose learning rate rises over WARMUP steps and falls to 0 along a squared cosine."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / WARMUP) * math.cos(0.5 * math.pi * step / steps) ** 2)


def _batches(count: int, steps: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Indices of `steps` batches, int64 [min(128, count)]: each image once before any comes again."""
    size, order = min(BATCH, count), torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:size]
        order = order[size:]


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by its own whole number of pixels, up to 1/8 of its size in both directions, edges repeated."""
    count, channels, *size = images.shape
    moves = [torch.randint(-(n // 8), n // 8 + 1, (count, 1), generator=generator) for n in size]
    rows, columns = ((torch.arange(n) + move).clamp(0, n - 1).to(images.device)                # [B, H], [B, W]
                     for n, move in zip(size, moves, strict=True))
    sample, channel = torch.arange(count, device=images.device), torch.arange(channels, device=images.device)
    return images[sample[:, None, None, None], channel[:, None, None], rows[:, None, :, None],
                  columns[:, None, None, :]]


def scaled(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0
