"""Exact denoisers: data whose posterior mean is known in closed form, so that a sampler's error is a number.

Gaussian data make every scheduler's step affine in x, and its mean and variance can be propagated without drawing a sample. A
mixture of Gaussians is not affine, but its probability flow is known too: it keeps the quantile of every pixel; and a step
that adds Gaussian noise moves the density of a pixel by a known kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench.contracts import NoiseSchedule, Scheduler, Spacing
from diffbench.values import Denoise, Noise, Prediction


@dataclass(frozen=True, kw_only=True)
class GaussianData:
    """x_0 ~ N(mean, std²), pixel by pixel. As a denoiser: E[x_0 | x_t] and the eps that goes with it.

    E[x_0 | x_t] = mean + alpha std²/(alpha² std² + sigma²) (x_t - alpha mean). `share` is answered as the learned variance.
    """

    schedule: NoiseSchedule
    std: float
    mean: float = 0.0
    share: float = 0.5

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        alpha, sigma = self.schedule.scales(t)
        variance = alpha**2 * self.std**2 + sigma**2
        centred = x_t - alpha * self.mean
        x0_hat, eps_hat = self.mean + (alpha * self.std**2 / variance) * centred, (sigma / variance) * centred
        return Prediction(x0=x0_hat, eps=eps_hat, variance=torch.full_like(x_t, self.share))

    def marginal(self, t: float) -> tuple[float, float]:
        """(mean, variance) of x_t."""
        alpha, sigma = self.schedule.scales(t)
        return alpha * self.mean, alpha**2 * self.std**2 + sigma**2

    def flow(self, x_t: float, t: float, s: float) -> float:
        """The probability flow's exact map from t to s: it keeps the number of standard deviations from the mean."""
        (mean_t, var_t), (mean_s, var_s) = self.marginal(t), self.marginal(s)
        return mean_s + (var_s / var_t) ** 0.5 * (x_t - mean_t)


@dataclass(frozen=True, kw_only=True)
class MixtureData:
    """x_0 ~ sum_k weights_k N(means_k, std²), pixel by pixel; as a denoiser its exact posterior mean.

    x_t ~ sum_k weights_k N(alpha means_k, alpha² std² + sigma²); E[x_0 | x_t] is the mean of the components' answers, weighted by
    how likely each is to have made x_t.
    """

    schedule: NoiseSchedule
    means: tuple[float, ...] = (-0.7, 0.1, 0.8)
    weights: tuple[float, ...] = (0.3, 0.3, 0.4)
    std: float = 0.35

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        alpha, sigma = self.schedule.scales(t)
        means, weights = x_t.new_tensor(self.means), x_t.new_tensor(self.weights)                # [K]
        variance = alpha**2 * self.std**2 + sigma**2
        centred = x_t[..., None] - alpha * means                                                 # [B, C, H, W, K]
        responsible = (weights.log() - centred**2 / (2 * variance)).softmax(-1)
        x0_hat = (responsible * (means + (alpha * self.std**2 / variance) * centred)).sum(-1)
        eps_hat = (responsible * (sigma / variance) * centred).sum(-1)
        return Prediction(x0=x0_hat, eps=eps_hat, variance=torch.full_like(x_t, 0.5))

    def flow(self, x_t: Tensor, t: float, s: float) -> Tensor:
        """The probability flow's exact map from t to s: it keeps the quantile. float64, any shape; by bisection."""
        wanted = self.cdf(x_t, t)
        low, high = torch.full_like(x_t, -1e3), torch.full_like(x_t, 1e3)
        for _ in range(100):
            middle = (low + high) / 2
            is_below = self.cdf(middle, s) < wanted
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2

    def cdf(self, x: Tensor, t: float) -> Tensor:
        """P(x_t <= x) of a pixel; any shape."""
        alpha, _ = self.schedule.scales(t)
        std = self.spread(t)
        return sum(weight * torch.special.ndtr((x - alpha * mean) / std) for mean, weight in zip(self.means, self.weights, strict=True))

    def spread(self, t: float) -> float:
        """Standard deviation of each component at t."""
        alpha, sigma = self.schedule.scales(t)
        return (alpha**2 * self.std**2 + sigma**2) ** 0.5


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """x_0 is one of these images, [K, C, H, W], each as likely as the others: what a network that fits its training set perfectly has learnt.

    As a denoiser the exact posterior mean, an average of the images weighted by p(x_t | image) ~ exp(-|x_t - alpha image|²/(2 sigma²)).
    Sampled with any scheduler it gives the images themselves: the oracle memoriser.
    """

    schedule: NoiseSchedule
    images: Tensor

    def __call__(self, x_t: Tensor, t: float) -> Prediction:
        alpha, sigma = self.schedule.scales(t)
        points = self.images.to(x_t).flatten(1)                                                  # [K, C H W]
        squares = torch.cdist(x_t.flatten(1), alpha * points).square()                           # [B, K]
        # At sigma = 0 the nearest alone; a small number in its place keeps the quotient a number.
        nearness = (-squares / (2 * max(sigma, 1e-6) ** 2)).softmax(1)
        x0_hat = (nearness @ points).view_as(x_t)
        return Prediction(x0=x0_hat, eps=(x_t - alpha * x0_hat) / max(sigma, 1e-6))


@dataclass(frozen=True, kw_only=True)
class Affine:
    """A whole sampler run on Gaussian data: x_0 = gain x_T + shift + N(0, noise_variance)."""

    gain: float
    shift: float
    noise_variance: float

    def pushed(self, mean: float, variance: float) -> tuple[float, float]:
        """(mean, variance) of x_0 for x_T ~ N(mean, variance)."""
        return self.gain * mean + self.shift, self.gain**2 * variance + self.noise_variance


class NotAffine(Exception):
    """A step that is not affine in what it would have to be: its moments, or its density, cannot be propagated."""


def affine_map(scheduler: Scheduler, spacing: Spacing, data: GaussianData) -> Affine:
    """The exact affine map of a scheduler on Gaussian data, in float64; nothing is drawn. Raises NotAffine.

    Probes travel together as a batch: one from 0 and one from 1 without noise give shift and gain, and one for each draw of noise,
    which sees unit noise there only, gives that draw's gain from there on. A last one starts from 2 and sees every draw doubled.
    """
    times = spacing(data.schedule, scheduler.steps).tolist()
    asked: list[tuple[int, int]] = []

    def listening(step: int) -> Noise:
        def noise(draw: int = 0) -> Tensor:
            asked.append((step, draw))
            return torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        return noise
    if scheduler.is_stochastic:
        for _ in run(scheduler, data, data.schedule, times, torch.ones(1, 1, 1, 1, dtype=torch.float64), listening):
            pass

    x = torch.zeros(3 + len(asked), 1, 1, 1, dtype=torch.float64)
    x[1], x[-1] = 1.0, 2.0

    def pulses(step: int) -> Noise:
        def noise(draw: int = 0) -> Tensor:
            assert (step, draw) in asked, f"asks for noise in step {step} and says that it adds none"
            pulse = torch.zeros_like(x)
            pulse[2 + asked.index((step, draw))], pulse[-1] = 1.0, 2.0
            return pulse
        return noise
    *_, x_0 = run(scheduler, data, data.schedule, times, x, pulses)
    shift, gains = float(x_0[0]), x_0[1:-1].flatten() - x_0[0].flatten()          # of x_T, then of each draw
    expected = shift + 2 * float(gains.sum())
    if not abs(float(x_0[-1]) - expected) <= 1e-6 * (1 + float(gains.abs().sum())):
        raise NotAffine(f"doubled, all inputs end at {float(x_0[-1]):.6g}, and a step that is affine would bring them to {expected:.6g}")
    return Affine(gain=float(gains[0]), shift=shift, noise_variance=float((gains[1:] ** 2).sum()))


def distance(scheduler: Scheduler, spacing: Spacing, data: MixtureData, points: int = 401) -> float:
    """Wasserstein-1 distance of what a scheduler that adds noise makes of a mixture's pixels from their distribution at the last time, in float64.

    The density is carried from time to time on a grid of so many points as wide as the data: a step with noise of its own is the kernel
    N(step without noise, (step with unit noise - step without)²). Nothing is drawn. Raises NotAffine where a step keeps a state, is not
    affine in its noise, or adds less than the grid resolves.
    """
    times = spacing(data.schedule, scheduler.steps).tolist()
    data.schedule.prepare(torch.as_tensor(times, dtype=torch.float64))
    reach, furthest = torch.linspace(-1, 1, points, dtype=torch.float64), max(map(abs, data.means))

    def grid(t: float) -> Tensor:
        return reach * (data.schedule.scales(t)[0] * furthest + 7 * data.spread(t))
    x = grid(times[0])
    width = float(x[1] - x[0])
    mass = data.cdf(x + width / 2, times[0]) - data.cdf(x - width / 2, times[0])                 # [points]
    for t, s in zip(times, times[1:]):  # noqa: B905  pairs of neighbours
        means, stds = _kernel(scheduler, data, x, t, s)
        y = grid(s)
        width = float(y[1] - y[0])
        if float(stds.min()) < width:
            raise NotAffine(f"the step from {t:.4g} to {s:.4g} adds noise of standard deviation {float(stds.min()):.2g} on a grid of width {width:.2g}")
        z = (y[:, None] - means) / stds                                                          # [points of y, points of x]
        if s == times[-1]:
            reached = torch.special.ndtr(z) @ mass
            return float((reached - data.cdf(y, s)).abs().sum() * width)
        mass = (torch.exp(-z * z / 2) / stds) @ mass * (width / (2 * torch.pi) ** 0.5)
        x = y
    raise NotAffine("a grid of one time has no step")


def _kernel(scheduler: Scheduler, data: MixtureData, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) of x_s for each x_t: by a batch that sees no noise, unit noise and twice that."""
    batch = x.repeat(3)[:, None, None, None]
    pulses = torch.arange(3, dtype=torch.float64).repeat_interleave(len(x))[:, None, None, None]

    def noise(draw: int = 0) -> Tensor:
        if draw:
            raise NotAffine("draws noise more than once in a step")
        return pulses
    x_s, state = scheduler.step(data, data.schedule, batch, t, s, scheduler.init(), noise)
    if state is not None:
        raise NotAffine("keeps a state from step to step, so that x_s does not depend on x_t alone")
    silent, unit, twice = x_s.flatten().view(3, -1)
    if not torch.allclose(twice - silent, 2 * (unit - silent), rtol=1e-9, atol=1e-12):
        raise NotAffine("a step is not affine in its noise on a mixture: it asks the network after it has added some")
    return silent, (unit - silent).abs()


def run(scheduler: Scheduler, denoise: Denoise, schedule: NoiseSchedule, times: Sequence[float], x: Tensor,
        noise_of: Callable[[int], Noise]) -> Iterator[Tensor]:
    """Every state of a scheduler over these times; noise_of(step) is the noise of each step."""
    schedule.prepare(torch.as_tensor(times, dtype=torch.float64))
    state = scheduler.init()
    yield x
    for step, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
        x, state = scheduler.step(denoise, schedule, x, t, s, state, noise_of(step))
        yield x
