"""Exact denoisers: data whose posterior mean has a closed form, so that a sampler's error is known.

Used by checks and tests.

Gaussian data make every scheduler's step affine in x, and its mean and variance can be propagated without drawing a
sample. A mixture of Gaussians is not affine, but its probability flow is known too: it keeps the quantile of every
pixel; and a step that adds Gaussian noise moves the density of a pixel by a known kernel.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Scheduler, Spacing
from diffbench.contracts.values import Denoise, Noise, Prediction

GRID_POINTS = 401                     # of the density of a pixel


@dataclass(frozen=True, kw_only=True)
class GaussianData:
    """x_0 ~ N(mean, std²), pixel by pixel. As a denoiser: E[x_0 | x_t] and the eps that goes with it.

    E[x_0 | x_t] = mean + alpha std²/(alpha² std² + sigma²) (x_t - alpha mean). `share` is answered as the learned
    variance.
    std: a number, or as a denoiser [W], one for each column of pixels.
    """

    schedule: NoiseSchedule
    std: float | Tensor
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
        """The exact map of the probability flow from t to s.

        It keeps the number of standard deviations from the mean.
        """
        (mean_t, var_t), (mean_s, var_s) = self.marginal(t), self.marginal(s)
        return mean_s + (var_s / var_t) ** 0.5 * (x_t - mean_t)


@dataclass(frozen=True, kw_only=True)
class MixtureData:
    """x_0 ~ sum_k weights_k N(means_k, std²), pixel by pixel; as a denoiser its exact posterior mean.

    x_t ~ sum_k weights_k N(alpha means_k, alpha² std² + sigma²); E[x_0 | x_t] is the mean of the components' answers,
    weighted by how likely each is to have made x_t.
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
        """The exact map of the probability flow from t to s, by bisection.

        It keeps the quantile. float64, any shape.
        """
        probability = self.cdf(x_t, t)
        low, high = torch.full_like(x_t, -1e3), torch.full_like(x_t, 1e3)
        for _ in range(100):
            middle = (low + high) / 2
            is_below = self.cdf(middle, s) < probability
            low, high = torch.where(is_below, middle, low), torch.where(is_below, high, middle)
        return (low + high) / 2

    def cdf(self, x: Tensor, t: float) -> Tensor:
        """P(x_t <= x) of a pixel; any shape."""
        alpha, _ = self.schedule.scales(t)
        std = self.spread(t)
        return sum(weight * torch.special.ndtr((x - alpha * mean) / std)
                   for mean, weight in zip(self.means, self.weights, strict=True))

    def spread(self, t: float) -> float:
        """Standard deviation of each component at t."""
        alpha, sigma = self.schedule.scales(t)
        return (alpha**2 * self.std**2 + sigma**2) ** 0.5


@dataclass(frozen=True, kw_only=True)
class KnownImages:
    """x_0 is one of K images [K, C, H, W] with equal probability: the oracle of a network that memorised them.

    As a denoiser the exact posterior mean, an average of the images weighted by p(x_t | image) ~ exp(-|x_t - alpha
    image|²/(2 sigma²)). Sampled with any scheduler it gives the images themselves: the oracle memoriser.
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
    """Raised for a step that is not affine where it must be, so that moments or densities cannot be propagated."""


def affine_map(scheduler: Scheduler, spacing: Spacing, data: GaussianData) -> Affine:
    """The exact affine map of a scheduler on Gaussian data, in float64; nothing is drawn. Raises NotAffine."""
    (whole_run,) = affine_map_of_each(scheduler, spacing, data, 1)
    return whole_run


def affine_map_of_each(scheduler: Scheduler, spacing: Spacing, data: GaussianData, pixels: int) -> list[Affine]:
    """The same of so many pixels in a row, each of which may have a standard deviation of its own; see `affine_map`."""
    (x_0,) = deque(_states(scheduler, spacing, data, pixels), maxlen=1)
    return [_affine(column) for column in _checked(x_0).unbind(1)]


def affine_maps(scheduler: Scheduler, spacing: Spacing, data: GaussianData) -> list[Affine]:
    """The maps from x_T to every state of the run, x_T itself first; see `affine_map`."""
    states = list(_states(scheduler, spacing, data, 1))
    _checked(states[-1])
    return [_affine(x[:, 0]) for x in states]


def _states(scheduler: Scheduler, spacing: Spacing, data: GaussianData, pixels: int) -> Iterator[Tensor]:
    """Every state of probes that travel together as a batch, [probes, pixels].

    One from 0 and one from 1 without noise give shift and gain, and one for each draw of noise, which sees unit noise
    there only, gives that draw's gain from there on. A last one starts from 2 and sees every draw doubled.
    """
    times = spacing(data.schedule, scheduler.steps).tolist()
    draws: dict[tuple[int, int], int] = {}                # (step, draw): its probe

    def listening(step: int) -> Noise:
        def noise(draw: int = 0) -> Tensor:
            draws.setdefault((step, draw), 2 + len(draws))
            return torch.zeros(1, 1, 1, pixels, dtype=torch.float64)
        return noise
    if scheduler.is_stochastic:
        for _ in run(scheduler, data, data.schedule, times, torch.ones(1, 1, 1, pixels, dtype=torch.float64),
                     listening):
            pass

    x = torch.zeros(3 + len(draws), 1, 1, pixels, dtype=torch.float64)
    x[1], x[-1] = 1.0, 2.0

    def pulses(step: int) -> Noise:
        def noise(draw: int = 0) -> Tensor:
            assert (step, draw) in draws, f"asks for noise in step {step} and says that it adds none"
            pulse = torch.zeros_like(x)
            pulse[draws[step, draw]], pulse[-1] = 1.0, 2.0
            return pulse
        return noise
    for state in run(scheduler, data, data.schedule, times, x, pulses):
        yield state[:, 0, 0]


def _checked(x_0: Tensor) -> Tensor:
    """The last state of the probes, [probes, pixels], where all inputs doubled end where affine steps bring them."""
    # of x_T, then of each draw
    shift, gains = x_0[0], x_0[1:-1] - x_0[0]
    expected = shift + 2 * gains.sum(0)
    wrong = ~((x_0[-1] - expected).abs() <= 1e-6 * (1 + gains.abs().sum(0)))
    if wrong.any():
        end, wanted = float(x_0[-1][wrong][0]), float(expected[wrong][0])
        raise NotAffine(f"doubled, all inputs end at {end:.6g}, and a step that is affine would bring them to "
                        f"{wanted:.6g}")
    return x_0


def _affine(x: Tensor) -> Affine:
    """The map that one pixel of the probes shows, [probes]."""
    return Affine(gain=float(x[1] - x[0]), shift=float(x[0]), noise_variance=float(((x[2:-1] - x[0]) ** 2).sum()))


def distance(scheduler: Scheduler, spacing: Spacing, data: MixtureData) -> float:
    """Wasserstein-1 distance of the pixels that a stochastic scheduler gives on a mixture from the exact ones.

    The density is carried from time to time on a grid of GRID_POINTS as wide as the data: a step with noise of its own
    is the kernel N(step without noise, (step with unit noise - step without)²). Nothing is drawn. Raises NotAffine
    where a step keeps a state, is not affine in its noise, or adds less than the grid resolves.
    """
    times = spacing(data.schedule, scheduler.steps).tolist()
    _prepare(data.schedule, tuple(times))
    reach, furthest = torch.linspace(-1, 1, GRID_POINTS, dtype=torch.float64), max(map(abs, data.means))

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
            raise NotAffine(f"the step from {t:.4g} to {s:.4g} adds noise of standard deviation "
                            f"{float(stds.min()):.2g} on a grid of width {width:.2g}")
        # [points of y, points of x]
        z = (y[:, None] - means) / stds
        if s == times[-1]:
            reached = torch.special.ndtr(z) @ mass
            return float((reached - data.cdf(y, s)).abs().sum() * width)
        mass = (torch.exp(-z * z / 2) / stds) @ mass * (width / (2 * torch.pi) ** 0.5)
        x = y
    raise NotAffine("a grid of one time has no step")


def _kernel(scheduler: Scheduler, data: MixtureData, x: Tensor, t: float, s: float) -> tuple[Tensor, Tensor]:
    """(mean, standard deviation) of x_s for each x_t, from a batch with no noise, unit noise and twice that."""
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
    """The states of a scheduler over these times, one after another; noise_of(step) is the noise of a step."""
    _prepare(schedule, tuple(times))
    state = scheduler.init()
    yield x
    for step, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
        x, state = scheduler.step(denoise, schedule, x, t, s, state, noise_of(step))
        yield x


@functools.lru_cache(maxsize=256)
def _prepare(schedule: NoiseSchedule, times: tuple[float, ...]) -> None:
    """Computes the schedule's levels at these times at once, for all samplers that use them."""
    schedule.prepare(torch.as_tensor(times, dtype=torch.float64))
