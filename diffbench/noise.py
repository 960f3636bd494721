"""Standard normal noise as a function of (seed, step, draw) and nothing else.

A counter-based generator (Philox 4x32-10) computed with tensor operations: the noise of a sample is the same in every
batch, order and number of devices, and no Python loop runs over samples.
Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section 3.3 and the Random123 constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
INITIAL = 0xFFFFFFFF                  # the "step" at which x_T is drawn
CACHED = 1 << 16                      # words of each kind that a CPU works on at once: more do not stay in its cache


def sample_seeds(seed: int, first: int, count: int) -> list[int]:
    """The seeds of samples first..first + count - 1 of a run: run seed in the high word, index in the low one."""
    return [(seed << 32) | index for index in range(first, first + count)]


def normal(seeds: Sequence[int], shape: tuple[int, ...], step: int, draw: int = 0, *, device: torch.device | str = "cpu") -> Tensor:
    """N(0, 1), float32, [len(seeds), *shape]; row i depends on seeds[i] (64 bits), step and draw alone.

    Four words of the generator make two pairs (Box & Muller 1958), computed in float32: |z| is below 6.8, and two machines agree to rounding.
    """
    count, device = math.prod(shape), torch.device(device)
    blocks = -(-count // 4)                                                      # each of four words
    keys = torch.tensor([_signed(s) for s in seeds], dtype=torch.int64, device=device)[:, None]
    z = torch.empty(len(seeds), 4, blocks, device=device)
    rows = max(1, CACHED // max(1, blocks)) if device.type == "cpu" else len(seeds)
    for some, out in zip(keys.split(rows), z.split(rows), strict=True):
        counter = torch.empty(4, len(some), blocks, dtype=torch.int64, device=device)
        counter[0] = torch.arange(blocks, device=device)
        for word, value in enumerate((step, draw, 0), start=1):
            counter[word] = value
        w = philox(tuple(counter), (some & _WORD, (some >> 32) & _WORD))
        for pair, (first, second) in enumerate((w[:2], w[2:])):
            radius = first.float().mul_(2.0**-32).add_(2.0**-33).log_().mul_(-2).sqrt_()       # of numbers in (0, 1], never 0
            angle = second.float().mul_(2 * math.pi * 2.0**-32)
            torch.mul(radius, angle.cos(), out=out[:, 2 * pair])
            torch.mul(radius, angle.sin_(), out=out[:, 2 * pair + 1])
    return z.flatten(1)[:, :count].reshape(len(seeds), *shape)


def philox(counter: tuple[Tensor, ...], key: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Ten rounds of Philox 4x32. Words are 32 unsigned bits in int64: four of one shape, overwritten, and two keys that broadcast to it.

    Overwriting takes a third of the time of a new tensor for each operation.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    p0, p1 = torch.empty_like(c0), torch.empty_like(c2)
    for _ in range(10):
        # A product of two 32-bit words wraps in int64, but its bits are right. Only multiplications need clean operands: a high word is
        # masked once, after everything is added to it, and a low word not before it has become one.
        torch.mul(c0, _MULTIPLIERS[0], out=p0)
        torch.mul(c2, _MULTIPLIERS[1], out=p1)
        torch.bitwise_right_shift(p1, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_WORD)
        torch.bitwise_right_shift(p0, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_WORD)
        c1, p1, c3, p0 = p1, c1, p0, c3
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1.bitwise_and_(_WORD), c2, c3.bitwise_and_(_WORD)


def _signed(seed: int) -> int:
    """The same 64 bits as torch's int64."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed
