"""The classifier of noised images that guides sampling: its network and its fit."""

from __future__ import annotations

import math
import time

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.values import Progress, per_sample, silent
from diffbench.diffusion.classifier import READ_BATCH, Classifier, minimise, scaled, shape_of, steps_for
from diffbench.errors import Diverged

LEVEL_WAVES = 16                      # frequencies in which a noise level is encoded
WIDTH = 128
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05


class NoisyClassifier(nn.Module):
    """A classifier of noised images, p(y | x_t): the trunk of `Classifier` with every GroupNorm scaled and shifted by
    the noise level.

    It sees x_t at unit variance and log(sigma/alpha) as sines and cosines; inputs are differentiable.
    """

    waves: Tensor                     # float [LEVEL_WAVES]

    def __init__(self, image_shape: tuple[int, int, int], classes: int, schedule: NoiseSchedule):
        super().__init__()
        self.schedule = schedule
        plain = Classifier(image_shape, classes, WIDTH)
        self.trunk, self.head = plain.trunk, plain.head
        norms = [layer for layer in self.trunk if isinstance(layer, nn.GroupNorm)]
        self.level = nn.Sequential(nn.Linear(2 * LEVEL_WAVES, WIDTH), nn.SiLU())
        self.modulations = nn.ModuleList(nn.Linear(WIDTH, 2 * norm.num_channels) for norm in norms)
        self.register_buffer("waves", 2.0 ** torch.linspace(-3, 3, LEVEL_WAVES), persistent=False)

    def forward(self, x_t: Tensor, t: float) -> Tensor:
        """x_t float [N, C, H, W] at one time of its schedule to logits, float [N, K]."""
        alpha, sigma = self.schedule.scales(t)
        return self.logits(x_t * (alpha**2 + sigma**2) ** -0.5, x_t.new_full((1,), math.log(self.schedule.nsr(t))))

    def logits(self, x: Tensor, log_nsr: Tensor) -> Tensor:
        """x at unit variance [N, C, H, W] and its log(sigma/alpha) [N] or [1] to logits [N, K]."""
        phase = log_nsr[:, None] * self.waves                              # [N, waves]
        c = self.level(torch.cat([phase.sin(), phase.cos()], dim=1))       # [N, WIDTH]
        modulations = iter(self.modulations)
        for layer in self.trunk:
            x = layer(x)
            if isinstance(layer, nn.GroupNorm):
                scale, shift = next(modulations)(c)[:, :, None, None].chunk(2, dim=1)
                x = x * (1 + scale) + shift
        return self.head(x)


def fit_noisy_classifier(images: Tensor, labels: Tensor, classes: int, schedule: NoiseSchedule, seed: int,
                         device: torch.device | str = "cpu", *,
                         progress: Progress = silent) -> tuple[NoisyClassifier, dict[str, float]]:
    """Fits p(y | x_t) to labelled images noised by a schedule, t uniform over the times a network is trained at.

    images: uint8 [N, C, H, W]; labels: int64 [N]; it takes three times `steps_for(N)` steps of 128 images.
    A function of the seed alone, like `fit_classifier`. Facts: train_accuracy at log(sigma/alpha) near -2, fit_steps,
    fit_seconds. Raises Diverged where the loss is not finite. Source: Dhariwal & Nichol 2021, arXiv:2105.05233, section
    4.1.
    """
    began = time.perf_counter()
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model = NoisyClassifier(shape_of(images), classes, schedule)
    model.to(device)
    inputs, wanted = images.to(device), labels.to(device)
    steps = 3 * steps_for(len(images))

    def loss_of(picked: Tensor) -> Tensor:
        t = schedule.snapped(1 - torch.rand(len(picked), dtype=torch.float64, generator=generator))
        eps = torch.randn((len(picked), *images.shape[1:]), generator=generator).to(device)
        alpha, sigma = (per_sample(scale.float().to(device), eps) for scale in (schedule.alpha(t), schedule.sigma(t)))
        x = (alpha * scaled(inputs[picked.to(device)]) + sigma * eps) / (alpha**2 + sigma**2).sqrt()
        log_nsr = (sigma.log() - alpha.clamp(min=1e-6).log()).flatten()
        return F.cross_entropy(model.logits(x, log_nsr), wanted[picked.to(device)])
    loss = minimise(loss_of, model, len(images), steps, generator, LEARNING_RATE, WEIGHT_DECAY, progress)
    if not loss.isfinite():
        raise Diverged(f"the loss of the classifier of noised images is {float(loss)} after {steps} steps")
    model.requires_grad_(False).eval()
    with torch.no_grad():
        easy = schedule.time_of(math.exp(-2.0))
        alpha_t, sigma_t = schedule.scales(easy)
        noised = alpha_t * scaled(images) + sigma_t * torch.randn(images.shape, generator=generator)
        seen = torch.cat([model(part.to(device), easy).argmax(1).cpu() for part in noised.split(READ_BATCH)])
    accuracy = float((seen == labels.cpu()).double().mean())
    return model, {"train_accuracy": accuracy, "fit_steps": float(steps), "fit_seconds": time.perf_counter() - began}
