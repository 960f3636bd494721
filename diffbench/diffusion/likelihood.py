"""Bits per dimension of a denoiser: the variational bound on its grid, and the likelihood of its probability flow.

Both are of the data on [-1, 1], where 8-bit pixel k lies at k/127.5 - 1, in float64 around a network of any precision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.values import Denoise
from diffbench.diffusion import noise, ode
from diffbench.diffusion.transitions import pixel_log_likelihood, posterior, step_divergence

LEVEL = 2 / 255                       # distance of two pixel values on [-1, 1]
_DEQUANTISED, _FIRST_PROBE = 0, 1     # numbers of the draws of an image at "step" 0; the bound's steps count from 1


class Bound(NamedTuple):
    """The variational bound of each image, bits per dimension, [B] each; `total` holds the other two."""

    total: Tensor
    prior: Tensor    # KL(q(x_T | x_0) || p(x_T)): what is lost because the last level is not pure noise
    decoder: Tensor  # -log P(x_0 | x_1): what rounding to 256 values costs


class Flow(NamedTuple):
    """The likelihood of each image under the probability flow, bits per dimension, [B], and what it took."""

    total: Tensor
    evaluations: int                  # times each image was sent through the denoiser
    start: float                      # sigma/alpha at which the flow starts: the density is that of x_t/alpha there


def variational_bound(denoise: Denoise, schedule: NoiseSchedule, images: Tensor, seeds: Sequence[int], steps: int,
                      visits: Sequence[tuple[int, int]], *, share: float = 0.0, clip: bool = True) -> Bound:
    """-log2 P(x_0) <= L_T + sum_i L_i + L_0, over D.

    images: uint8 [B, C, H, W]; steps: T, the levels are t = i/T; visits: (i, weight), the terms L_(i-1) that stand for
    all with i >= 2, each for `weight` of them, see `draw_visits`. seeds: one 64-bit integer per image, from which and
    from i its noise is drawn.
    share: place of a reverse step's log-variance between the small (0) and the large one (1), where the network learned
    none.
    clip: x0_hat is clamped to [-1, 1] first, as the samplers do. p(x_T) is what samplers start from, N(0, alpha² +
    sigma²). Unbiased in the noise for every image; in the visits too where they are drawn.
    Source: Ho et al. 2020, arXiv:2006.11239, eq. 5 and 13; learned variance: Nichol & Dhariwal 2021, arXiv:2102.09672,
    eq. 15.
    """
    x_0 = _on_unit(images)                                                         # [B, C, H, W]
    before = posterior(*schedule.scales(2 / steps), *schedule.scales(1 / steps))

    def term(i: int) -> Tensor:
        """L_(i-1), nats per pixel."""
        (alpha_t, sigma_t), (alpha_s, sigma_s) = schedule.scales(i / steps), schedule.scales((i - 1) / steps)
        q = posterior(alpha_t, sigma_t, alpha_s, sigma_s)
        x_t = alpha_t * x_0 + sigma_t * noise.normal(seeds, tuple(x_0.shape[1:]), i, device=x_0.device).double()
        x0_hat, _, learned = denoise(x_t, i / steps)
        x0_hat = x0_hat.clamp(-1, 1) if clip else x0_hat
        # The step to the clean level has no small variance of its own; as published, it is given that of the step
        # before.
        small, large = (x_0.new_tensor(v).log() for v in (before.small if i == 1 else q.small, q.large))
        place = share if learned is None else learned
        log_variance = place * large + (1 - place) * small
        if i == 1:
            return -pixel_log_likelihood(x_0, q.of_x * x_t + q.of_x0 * x0_hat, log_variance)
        return step_divergence(x_0, x0_hat, q.of_x0, small, log_variance)

    with torch.no_grad():
        alpha_T, sigma_T = schedule.scales(1.0)
        variance = alpha_T**2 + sigma_T**2
        prior = 0.5 * ((sigma_T**2 + (alpha_T * x_0) ** 2) / variance - 1 + math.log(variance / sigma_T**2))
        parts = [_bits(prior), _bits(term(1))]
        total = sum((weight * _bits(term(i)) for i, weight in visits), parts[0] + parts[1])
    return Bound(total, *parts)


def image_seeds(seed: int, rows: Tensor) -> list[int]:
    """The seeds of the images with these rows, int64 [B], in a cell:
    an image draws the same random numbers in every batch and every cell.
    """
    return [own for row in rows.tolist() for own in noise.sample_seeds(seed, row, 1)]


def draw_visits(steps: int, draws: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Which of the bound's terms i = 2..T to look at: one of each stretch of them, drawn uniformly, with the stretch's
    length.

    draws: at most so many; all of them, and nothing is random, where T - 1 <= draws. Else the ends of the stretches lie
    at 1 + (T - 1) (k/draws)², k = 0, 1, ..., for the terms are largest and change most near the data.
    """
    ends = range(1, steps + 1) if steps - 1 <= draws else sorted(
        {1 + round((steps - 1) * (k / draws) ** 2) for k in range(draws + 1)})
    places = torch.rand(len(ends) - 1, dtype=torch.float64, generator=generator).tolist()
    return [(low + 1 + int(place * (high - low)), high - low) for low, high, place in zip(ends, ends[1:], places)]  # noqa: B905  neighbours


def flow_likelihood(denoise: Denoise, schedule: NoiseSchedule, images: Tensor, seeds: Sequence[int], *,
                    tolerance: float, least_noise: float,
                    probes: int = 1) -> Flow:
    """-log2 of the density of uniformly dequantised images under the probability flow, times the volume of a pixel
    value, over D.

    images: uint8 [B, C, H, W], dequantised to x = (k + u - 1/2)/127.5 - 1, u uniform on [0, 1), so that a pixel value
    has width 2/255 and bits = -log2 p(x)/D + log2(127.5); on average over u no less than -log2 P of the images
    themselves (Theis et al. 2016, arXiv:1511.01844). seeds: one 64-bit integer per image, from which u and the probes
    (Rademacher) are drawn.
    tolerance, least_noise, probes: see `flow_log_density`.
    """
    shape = tuple(images.shape[1:])
    u = torch.special.ndtr(noise.normal(seeds, shape, 0, _DEQUANTISED, device=images.device).double())
    # A normal number in float32 is exactly 0 with probability 2^-25, where sign() would be 0 too.
    normals = [noise.normal(seeds, shape, 0, _FIRST_PROBE + p, device=images.device) for p in range(probes)]
    z = [1 - 2 * (normal < 0).double() for normal in normals]
    log_p, evaluations, start = flow_log_density(denoise, schedule, _on_unit(images) + LEVEL * (u - 0.5), z, tolerance,
                                                 least_noise)
    return Flow(-log_p / math.prod(shape) / math.log(2) - math.log2(LEVEL), evaluations, start)


def flow_log_density(denoise: Denoise, schedule: NoiseSchedule, x: Tensor, probes: Sequence[Tensor], tolerance: float,
                     least_noise: float) -> tuple[Tensor, int, float]:
    """(log p(x) in nats [B], evaluations of each image, sigma/alpha at which the flow starts), x float64 [B, C, H, W].

    dx/dt = f x - g²/2 score = alpha' x0_hat + sigma' eps_hat knows its schedule by the time the network is told alone:
    with the angle phi = atan(sigma/alpha) and y = x_t/sqrt(alpha² + sigma²) it is dy/dphi = -sin(phi) x0_hat + cos(phi)
    eps_hat for every Gaussian process, defined at zero SNR too, and smooth where a schedule read off a table has a kink
    in t at each grid point. It is followed from sigma/alpha = least_noise to t = 1, where y is what samplers start
    from, N(0, 1): log p = log p_1(y_1) + int div(dy/dphi) dphi + D log cos(phi_0), the last because the model's image
    is x_t/alpha. No time is left out: the model is the flow that stops there, and its images have that much noise on
    them. A discrete schedule starts at its first grid point; between grid points its network is asked at times it was
    not trained at, as by any ODE sampler.
    probes: K tensors like x with E[z z^T] = 1, div = mean of z^T J z (Hutchinson); D of them, sqrt(D) times the unit
    vectors, are exact.
    tolerance: of one step of the solver, for pixels (root mean square) and for the log-density per dimension.
    Source: Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.2, eq. 39; Grathwohl et al. 2019,
    arXiv:1810.01367.
    """
    shape, dimensions = x.shape[1:], math.prod(x.shape[1:])
    first = max(least_noise, 0.0 if schedule.grid is None else schedule.nsr(1 / schedule.grid))
    start, end = math.atan(first), math.atan(schedule.nsr(1.0))

    def slope(phi: float, state: Tensor) -> Tensor:
        t = 1.0 if phi >= end else schedule.time_of(math.tan(phi))
        alpha, sigma = schedule.scales(t)
        with torch.enable_grad():
            y = state[:, :-1].detach().view(-1, *shape).requires_grad_()
            x0_hat, eps_hat, _ = denoise((alpha**2 + sigma**2) ** 0.5 * y, t)
            velocity = math.cos(phi) * eps_hat - math.sin(phi) * x0_hat                       # dy/dphi
            divergence = y.new_zeros(len(y))
            for p, z in enumerate(probes):
                (along,) = torch.autograd.grad(velocity, y, z, retain_graph=p + 1 < len(probes))
                divergence += (along * z).flatten(1).sum(1) / len(probes)                     # [B]
        return torch.cat([velocity.detach().flatten(1), divergence[:, None] / dimensions], dim=1)

    def size(errors: Tensor) -> Tensor:
        return torch.maximum(errors[:, :-1].square().mean(1).sqrt(), errors[:, -1].abs())

    state = torch.cat([math.cos(start) * x.flatten(1), x.new_zeros(len(x), 1)], dim=1)        # [B, D + 1]
    state, evaluations = ode.integrate(slope, state, start, end, tolerance, size)
    last = -0.5 * (state[:, :-1].square().sum(1) + dimensions * math.log(2 * math.pi))
    return last + dimensions * (state[:, -1] + math.log(math.cos(start))), evaluations, first


def _on_unit(images: Tensor) -> Tensor:
    return images.double() / 127.5 - 1


def _bits(nats: Tensor) -> Tensor:
    """Nats of each pixel, [B, C, H, W], to bits per dimension of each image, [B]."""
    return nats.flatten(1).mean(1) / math.log(2)
