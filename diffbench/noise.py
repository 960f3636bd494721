"""Standard normal noise as a function of (seed, step, draw) and nothing else.

A counter-based generator computed with tensor operations: the noise of a sample is the same in every batch, order and number of devices,
and no Python loop runs over samples. It is SplitMix64: word i of a stream is mix(key + (i + 1) gamma), which asks for two multiplications where
Philox 4x32 asks for twenty. Streams start at hashed places of one cycle of 2^64 words. Of m streams of L words about m² L/2^64 pairs meet: in 50,000
samples of 3x32x32 over 1,000 steps it is one pair in five such runs, and what meets is the noise of one step of either sample, shifted.
Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA, figures 16 and 17; mix is Stafford's variant 13.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_GAMMA = 0x9E3779B97F4A7C15           # 2^64 over the golden ratio, odd
_ROUNDS = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))        # shift, multiplier
_LAST_SHIFT = 31
INITIAL = 0xFFFFFFFF                  # the "step" at which x_T is drawn
CACHED = 1 << 16                      # words that a CPU works on at once: more do not stay in its cache


def sample_seeds(seed: int, first: int, count: int) -> list[int]:
    """The seeds of samples first..first + count - 1 of a run: run seed in the high word, index in the low one."""
    return [(seed << 32) | index for index in range(first, first + count)]


class Source:
    """The noise of a batch of samples, step by step; where steps are small, of several steps in one go."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], steps: int, device: torch.device | str = "cpu"):
        """seeds: 64 bits, one for each sample; shape: of one sample; steps: how many there may be to draw for."""
        self.shape, self.device = (len(seeds), *shape), torch.device(device)
        self.keys = folded(torch.zeros((), dtype=torch.int64), torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64)).to(device)
        half = -(-math.prod(shape) // 4)                                         # words of 64 bits for radii, and as many for angles
        self.places = (torch.arange(1, 2 * half + 1, device=device) * _signed(_GAMMA)).view(2, 1, half)
        size = max(1, len(seeds) * 2 * half)                                     # words of a step
        self.ahead = min(steps, max(1, CACHED // size))                          # steps that are drawn at once
        self.rows = max(1, CACHED // max(1, 2 * half)) if self.device.type == "cpu" else max(1, self.ahead * len(seeds))
        self.steps = steps
        self.streams: dict[int, tuple[int, Tensor]] = {}                         # draw -> (first step, keys [steps, B] from there)
        self.drawn: dict[int, tuple[int, Tensor]] = {}                           # draw -> (first step, noise of the steps from there)
        self.scratch: tuple[Tensor, ...] = ()                                    # kept: fresh memory costs as much as what is done in it

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        """N(0, 1), float32, [B, *shape]; row i depends on the seed of sample i, step and draw alone."""
        first, drawn = self.drawn.get(draw, (0, ()))
        if not first <= step < first + len(drawn):
            first, drawn = self.drawn[draw] = step, self._draw(step, draw)
        return drawn[step - first]

    def _streams(self, step: int, draw: int) -> Tensor:
        """The keys of the steps from this one that are drawn at once, [up to `ahead`, B]."""
        first, keys = self.streams.get(draw, (0, ()))
        if not first <= step < first + len(keys):
            steps = torch.arange(step, step + self.steps, device=self.device)[:, None]
            first, keys = self.streams[draw] = step, folded(folded(self.keys, steps), draw)
        return keys[step - first : step - first + self.ahead]

    def _draw(self, first: int, draw: int) -> Tensor:
        keys = self._streams(first, draw).reshape(1, -1, 1)                      # [1, steps * B, 1]
        half = self.places.shape[2]
        z = torch.empty(keys.shape[1], 2, 2 * half, device=self.device)
        rows = min(self.rows, keys.shape[1])
        if not self.scratch:
            self.scratch = tuple(torch.empty(2 * rows * half * parts, dtype=dtype, device=self.device)
                                 for parts, dtype in ((1, torch.int64), (1, torch.int64), (2, torch.float32), (1, torch.float32)))
        for key, out in zip(keys.split(rows, dim=1), z.split(rows), strict=True):
            count = len(out)
            words, spare = (part[: 2 * count * half].view(2, count, half) for part in self.scratch[:2])
            mixed_(torch.add(self.places, key, out=words), spare)
            numbers = self.scratch[2][: 4 * count * half].view(2, count, 2 * half).copy_(words.view(torch.int32))
            _normal(*numbers, self.scratch[3][: 2 * count * half].view(count, 2 * half), out)
        return z.flatten(1)[:, : math.prod(self.shape[1:])].reshape(-1, *self.shape)


def normal(seeds: Sequence[int], shape: tuple[int, ...], step: int, draw: int = 0, *, device: torch.device | str = "cpu") -> Tensor:
    """The noise of one step, [len(seeds), *shape]."""
    return Source(seeds, shape, 1, device)(step, draw)


def folded(key: Tensor, value: Tensor | int) -> Tensor:
    """The key of a stream within a stream: word `value` of the stream of `key`; for one key other values never give the same."""
    moved = key + (value + 1) * _signed(_GAMMA) if isinstance(value, Tensor) else key + _signed((value + 1) * _GAMMA)
    return mixed_(moved, torch.empty_like(moved))


def mixed_(words: Tensor, spare: Tensor) -> Tensor:
    """mix of 64 unsigned bits held in int64, overwritten; spare: overwritten too, of their shape."""
    for shift, multiplier in _ROUNDS:
        words.bitwise_xor_(_shifted(words, shift, spare)).mul_(_signed(multiplier))       # wraps: its 64 bits are right
    return words.bitwise_xor_(_shifted(words, _LAST_SHIFT, spare))


def _shifted(words: Tensor, by: int, out: Tensor) -> Tensor:
    """Zeros move in from the left, where torch's own shift of int64 repeats the sign."""
    return torch.bitwise_right_shift(words, by, out=out).bitwise_and_((1 << (64 - by)) - 1)


def _normal(radius: Tensor, angle: Tensor, spare: Tensor, out: Tensor) -> None:
    """Pairs of signed words of 32 bits, [rows, n] each, float32 and overwritten, to normal numbers, out [rows, 2, n]: |z| < 6.7. Box & Muller 1958.

    |word| has all its bits near 0, where the tail of the normal comes from.
    """
    radius.abs_().mul_(2.0**-31).add_(2.0**-32).log_().mul_(-2).sqrt_()                  # of numbers in (0, 1], never 0
    angle.mul_(math.pi * 2.0**-31)
    torch.mul(radius, torch.cos(angle, out=spare), out=out[:, 0])
    torch.mul(radius, angle.sin_(), out=out[:, 1])


def _signed(bits: int) -> int:
    """The same 64 bits as torch's int64."""
    bits &= 0xFFFFFFFFFFFFFFFF
    return bits - (1 << 64) if bits >> 63 else bits
