"""A small image classifier: its features measure distances, and another fit of it judges class accuracy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench.contracts import NoiseSchedule
from diffbench.errors import DataError, Diverged
from diffbench.values import Progress, silent

BATCH = 128
WARMUP = 50                           # steps over which the learning rate rises
READ_BATCH = 512                      # images per pass when nothing is learned
LEVEL_WAVES = 16                      # frequencies by which a noise level is told


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
        stride = 2 if max(height, breadth) > 16 else 1                     # full resolution is most of the cost and adds nothing
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
        if images.ndim != 4 or tuple(images.shape[1:]) != tuple(self.image_shape.tolist()) or images.dtype != torch.uint8:
            raise DataError(f"the classifier reads uint8 images [N, {', '.join(map(str, self.image_shape.tolist()))}], "
                            f"got {str(images.dtype).removeprefix('torch.')} {list(images.shape)}")
        self.to(device).eval()
        with torch.inference_mode():
            return torch.cat([function(_scaled(part.to(device))).cpu() for part in images.split(READ_BATCH)])


def fit_classifier(images: Tensor, labels: Tensor, classes: int, seed: int, device: torch.device | str = "cpu", *,
                   width: int = 64, steps: int | None = None, learning_rate: float = 3e-3, weight_decay: float = 0.05,
                   smoothing: float = 0.05, progress: Progress = silent) -> tuple[Classifier, dict[str, float]]:
    """Fits a classifier to labelled images and says how well: (classifier, facts).

    images: uint8 [N, C, H, W]; labels: int64 [N] in 0..classes - 1; steps: optimiser steps of 128 images, by default
    `steps_for(N)`; smoothing: share of the target spread over all classes.
    AdamW with cosine decay; images are shifted by up to 1/8 of their size, edges repeated. Weights, batches and shifts are a
    function of the seed alone: the global generator is neither read nor moved, and one device and number of threads repeat
    their result to the bit. Facts: train_accuracy in [0, 1], fit_steps, fit_seconds (wall clock, everything included).
    Raises DataError for images and labels that do not belong together, Diverged where the loss is not finite.
    """
    if images.ndim != 4 or images.dtype != torch.uint8 or labels.shape != (len(images),) or not len(images):
        found = f"{str(images.dtype).removeprefix('torch.')} {list(images.shape)} and {list(labels.shape)}"
        raise DataError(f"a classifier learns from uint8 images [N, C, H, W] and labels [N], got {found}")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise DataError(f"labels must be in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}")
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)                          # torch.manual_seed would move CUDA's generators too
        model = Classifier(_image_shape(images), classes, width)
    model.to(device)
    shown, wanted = images.to(device), labels.to(device)
    steps = steps_for(len(images)) if steps is None else steps
    if steps < 1:
        raise DataError(f"a classifier needs at least one step, got {steps}")
    optimizer, decay = _optimizer(model, steps, learning_rate, weight_decay)
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True):
        for done, picked in enumerate(_batches(len(images), steps, generator), start=1):
            batch = _shifted(shown[picked.to(device)], generator)
            loss = F.cross_entropy(model(_scaled(batch)), wanted[picked.to(device)], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            decay.step()
            progress(done, steps)
    if not loss.isfinite():
        raise Diverged(f"the classifier's loss is {float(loss)} after {steps} steps")
    accuracy = float((model.predict(images, device) == labels.cpu()).double().mean())
    return model, {"train_accuracy": accuracy, "fit_steps": float(steps), "fit_seconds": time.perf_counter() - began}


class NoisyClassifier(nn.Module):
    """A classifier of noised images, p(y | x_t): the trunk of `Classifier` with every GroupNorm scaled and shifted by the noise level.

    It sees x_t at unit variance and log(sigma/alpha) as sines and cosines; inputs are differentiable.
    """

    waves: Tensor                     # float [LEVEL_WAVES]

    def __init__(self, image_shape: tuple[int, int, int], classes: int, schedule: NoiseSchedule, width: int = 128):
        super().__init__()
        self.schedule = schedule
        plain = Classifier(image_shape, classes, width)
        self.trunk, self.head = plain.trunk, plain.head
        norms = [layer for layer in self.trunk if isinstance(layer, nn.GroupNorm)]
        self.level = nn.Sequential(nn.Linear(2 * LEVEL_WAVES, width), nn.SiLU())
        self.modulations = nn.ModuleList(nn.Linear(width, 2 * norm.num_channels) for norm in norms)
        self.register_buffer("waves", 2.0 ** torch.linspace(-3, 3, LEVEL_WAVES), persistent=False)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        """x_t float [N, C, H, W] at one time of its schedule to logits, float [N, K]."""
        alpha, sigma = self.schedule.scales(t)
        return self.logits(x_t * (alpha**2 + sigma**2) ** -0.5, x_t.new_full((1,), math.log(self.schedule.nsr(t))))

    def logits(self, x: Tensor, log_nsr: Tensor) -> Tensor:
        """x at unit variance [N, C, H, W] and its log(sigma/alpha) [N] or [1] to logits [N, K]."""
        phase = log_nsr[:, None] * self.waves                              # [N, waves]
        c = self.level(torch.cat([phase.sin(), phase.cos()], dim=1))       # [N, width]
        modulations = iter(self.modulations)
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, nn.GroupNorm):
                scale, shift = next(modulations)(c)[:, :, None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
        return self.head(x)


def fit_noisy_classifier(images: Tensor, labels: Tensor, classes: int, schedule: NoiseSchedule, seed: int, device: torch.device | str = "cpu", *,
                         steps: int | None = None, learning_rate: float = 3e-3, weight_decay: float = 0.05,
                         progress: Progress = silent) -> tuple[NoisyClassifier, dict[str, float]]:
    """Fits p(y | x_t) to labelled images noised by a schedule, t uniform over the times a network is trained at.

    images: uint8 [N, C, H, W]; labels: int64 [N]; steps: optimiser steps of 128 images, by default three times `steps_for(N)`.
    A function of the seed alone, like `fit_classifier`. Facts: train_accuracy at log(sigma/alpha) near -2, fit_steps, fit_seconds.
    Raises Diverged where the loss is not finite. Source: Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.1.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = NoisyClassifier(_image_shape(images), classes, schedule)
    model.to(device)
    shown, wanted = images.to(device), labels.to(device)
    steps = 3 * steps_for(len(images)) if steps is None else steps
    optimizer, decay = _optimizer(model, steps, learning_rate, weight_decay)
    loss = torch.zeros(())
    for done, picked in enumerate(_batches(len(images), steps, generator), start=1):
        t = schedule.snapped(1 - torch.rand(len(picked), dtype=torch.float64, generator=generator))
        alpha, sigma = (scale.float().to(device)[:, None, None, None] for scale in (schedule.alpha(t), schedule.sigma(t)))
        eps = torch.randn((len(picked), *images.shape[1:]), generator=generator).to(device)
        x = (alpha * _scaled(shown[picked.to(device)]) + sigma * eps) / (alpha**2 + sigma**2).sqrt()
        log_nsr = (sigma.log() - alpha.clamp(min=1e-6).log()).flatten()
        loss = F.cross_entropy(model.logits(x, log_nsr), wanted[picked.to(device)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        progress(done, steps)
    if not loss.isfinite():
        raise Diverged(f"the loss of the classifier of noised images is {float(loss)} after {steps} steps")
    model.requires_grad_(False).eval()
    with torch.no_grad():
        easy = schedule.time_of(math.exp(-2.0))
        alpha_t, sigma_t = schedule.scales(easy)
        noised = alpha_t * _scaled(images) + sigma_t * torch.randn(images.shape, generator=generator)
        seen = torch.cat([model(part.to(device), easy).argmax(1).cpu() for part in noised.split(READ_BATCH)])
    accuracy = float((seen == labels.cpu()).double().mean())
    return model, {"train_accuracy": accuracy, "fit_steps": float(steps), "fit_seconds": time.perf_counter() - began}


def _image_shape(images: Tensor) -> tuple[int, int, int]:
    _, channels, height, width = images.shape
    return channels, height, width


def steps_for(count: int) -> int:
    """Optimiser steps for `count` images: 400 up to 1,000 images, then growing with count^0.4 (2,057 for 60,000)."""
    return round(400 * max(1.0, count / 1000) ** 0.4)


def _optimizer(model: nn.Module, steps: int, learning_rate: float, weight_decay: float) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
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
    return images[sample[:, None, None, None], channel[:, None, None], rows[:, None, :, None], columns[:, None, None, :]]


def _scaled(images: Tensor) -> Tensor:
    """uint8 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0
