"""Standard normal noise as a function of (seed, step, draw) and nothing else.

A counter-based generator computed with tensor operations: the noise of a sample is the same in every batch, order and
number of devices, and no Python loop runs over samples. Its bits are those of the CPU on every device: words are whole
numbers, and normal numbers are made of them by additions, products and quotients, which IEEE 754 rounds in one way,
where libraries of devices disagree on log, sin, cos and even sqrt. The words are SplitMix64's: word i of a stream is
mix(key + (i + 1) gamma), two multiplications for 64 bits where Philox 4x32-10 makes ten. Streams start at hashed places
of one cycle of 2^64 words. Of m streams of L words about m² L/2^64 pairs meet: in 50,000 samples of 3x32x32 over 1,000
steps it is one pair in five such runs, and what meets is the noise of one step of either sample, shifted.
Source: Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", OOPSLA, figures 16 and 17; mix is
Stafford's variant 13.
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
AT_ONCE = {"cpu": 1 << 16}            # words that a device works on at once: on a CPU more do not stay in its cache
# on a GPU fewer are done before the next kernel is launched; about 200 MB at a time
AT_ONCE_ELSEWHERE = 1 << 22
# Polynomials by interpolation at Chebyshev's nodes, lowest power first: sin(pi a/2)/a and cos(pi a/2) of a², for |a| <=
# 1, to 7e-9 and 5e-8;
# -2 log((1 + s)/(1 - s))/s of s², for numbers from sqrt(1/2) to sqrt(2), to 2e-9.
_SIN = (1.57079632, -0.645963760, 0.0796899226, -4.67415067e-3, 1.51675118e-4)
_COS = (0.999999953, -1.23369821, 0.253650710, -0.0208105714, 8.58162543e-4)
_LOG = (-4.0, -1.33333370, -0.799774960, -0.591620580)
_ROOT_OF_HALF = 0x3F3504F3            # float32's bits of sqrt(1/2)
_PER_EXPONENT = -2 * math.log(2) / (1 << 23)          # -2 log 2 for each power of two, which stands 23 bits up
_ROOT_BITS = 0x1FBD1DF5               # float32's bits of x, halved, and this: sqrt(x) to 3.5 %


def sample_seeds(seed: int, first: int, count: int) -> list[int]:
    """The seeds of samples first..first + count - 1 of a run: run seed in the high word, index in the low one."""
    return [(seed << 32) | index for index in range(first, first + count)]


def seeds_of_run(seeds: Sequence[int], run: int) -> list[int]:
    """The seeds of the same samples in another run of their sampler; those of run 0 are `seeds`."""
    if run == 0:
        return list(seeds)
    return folded(torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64), run).tolist()


class Source:
    """The noise of a batch of samples, step by step; where steps are small, of several steps in one go."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], steps: int, device: torch.device | str = "cpu"):
        """seeds: 64 bits, one for each sample; shape: of one sample; steps: how many there may be to draw for."""
        self.shape, self.device = (len(seeds), *shape), torch.device(device)
        self.keys = folded(torch.zeros((), dtype=torch.int64),
                           torch.tensor([_signed(seed) for seed in seeds], dtype=torch.int64)).to(device)
        # words of 64 bits for radii, and as many for angles
        half = -(-math.prod(shape) // 4)
        self.places = (torch.arange(1, 2 * half + 1, device=device) * _signed(_GAMMA)).view(2, 1, half)
        size = max(1, len(seeds) * 2 * half)                                     # words of a step
        at_once = AT_ONCE.get(self.device.type, AT_ONCE_ELSEWHERE)
        self.ahead = min(steps, max(1, at_once // size))                         # steps that are drawn at once
        self.rows = (max(1, at_once // max(1, 2 * half)) if self.device.type == "cpu"
                     else max(1, self.ahead * len(seeds)))
        self.steps = steps
        # draw -> (first step, keys [steps, B] from there)
        self.streams: dict[int, tuple[int, Tensor]] = {}
        # draw -> (first step, noise of the steps from there)
        self.drawn: dict[int, tuple[int, Tensor]] = {}
        # kept: fresh memory costs as much as what is done in it
        self.scratch: tuple[Tensor, ...] = ()

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
                                 for parts, dtype in ((1, torch.int64), (1, torch.int64), (2, torch.float32),
                                                      (1, torch.float32), (1, torch.float32)))
        for key, out in zip(keys.split(rows, dim=1), z.split(rows), strict=True):
            count = len(out)
            words, spare = (part[: 2 * count * half].view(2, count, half) for part in self.scratch[:2])
            mixed_(torch.add(self.places, key, out=words), spare)
            numbers = self.scratch[2][: 4 * count * half].view(2, count, 2 * half).copy_(words.view(torch.int32))
            _normal(*numbers, *(part[: 2 * count * half].view(count, 2 * half) for part in self.scratch[3:]), out)
        return z.flatten(1)[:, : math.prod(self.shape[1:])].reshape(-1, *self.shape)


def normal(seeds: Sequence[int], shape: tuple[int, ...], step: int, draw: int = 0, *,
           device: torch.device | str = "cpu") -> Tensor:
    """The noise of one step, [len(seeds), *shape]."""
    return Source(seeds, shape, 1, device)(step, draw)


def folded(key: Tensor, value: Tensor | int) -> Tensor:
    """The key of a stream within a stream: word `value` of the stream of `key`;
    for one key other values never give the same.
    """
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


def _normal(radius: Tensor, angle: Tensor, x: Tensor, y: Tensor, out: Tensor) -> None:
    """Pairs of signed words of 32 bits, [rows, n] each, float32, to normal numbers, out [rows, 2, n]: |z| < 6.7. Box &
    Muller 1958.

    The magnitude of the first word gives the radius: |word| has all its bits near 0, where the tail of the normal comes
    from. Its sign and the second word give the angle, a half turn each. x, y: scratch; all are overwritten.
    """
    uniform = torch.abs(radius, out=x).mul_(2.0**-31).add_(2.0**-32)                      # in (0, 1], never 0
    # uniform = mantissa 2^exponent, the mantissa from sqrt(1/2) to sqrt(2)
    bits = uniform.view(torch.int32)
    exponent = torch.sub(bits, _ROOT_OF_HALF, out=y.view(torch.int32)).bitwise_and_(-(1 << 23))
    bits.sub_(exponent)
    powers = out[:, 1].copy_(exponent).mul_(_PER_EXPONENT)
    mantissa = uniform.sub_(1)
    s = mantissa.div_(torch.add(mantissa, 2, out=y))
    squared = torch.mul(s, s, out=y)
    torch.copysign(_root(_polynomial(_LOG, squared, out[:, 0]).mul_(s).add_(powers), x, y), radius, out=radius)
    turned = angle.mul_(2.0**-31)                         # of a quarter turn
    squared = torch.mul(turned, turned, out=x)
    torch.mul(radius, _polynomial(_COS, squared, y), out=out[:, 0])
    torch.mul(radius, _polynomial(_SIN, squared, y).mul_(turned), out=out[:, 1])


def _root(x: Tensor, out: Tensor, spare: Tensor) -> Tensor:
    """The square root of x >= 0 by Heron's rule, to the last bits; of 0 a number below 1e-19.
    -0 becomes 0, whose bits have no sign.
    """
    x.abs_()
    torch.bitwise_right_shift(x.view(torch.int32), 1, out=out.view(torch.int32)).add_(_ROOT_BITS)
    for _ in range(3):
        out.add_(torch.div(x, out, out=spare)).mul_(0.5)
    return out


def _polynomial(coefficients: tuple[float, ...], x: Tensor, out: Tensor) -> Tensor:
    """By Horner's rule, in operations of their own: fused ones would be rounded elsewhere."""
    *lower, second, first = coefficients
    torch.mul(x, first, out=out).add_(second)
    for each in reversed(lower):
        out.mul_(x).add_(each)
    return out


def _signed(bits: int) -> int:
    """The same 64 bits as torch's int64."""
    bits &= 0xFFFFFFFFFFFFFFFF
    return bits - (1 << 64) if bits >> 63 else bits
