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


def sample_seeds(seed: int, first: int, count: int) -> list[int]:
    """The seeds of samples first..first + count - 1 of a run: run seed in the high word, index in the low one."""
    return [(seed << 32) | index for index in range(first, first + count)]


def normal(seeds: Sequence[int], shape: tuple[int, ...], step: int, draw: int = 0, *, device: torch.device | str = "cpu") -> Tensor:
    """N(0, 1), float32, [len(seeds), *shape]; row i depends on seeds[i] (64 bits), step and draw alone."""
    count = math.prod(shape)
    blocks = -(-count // 4)                                                      # four words a block, two Box-Muller pairs
    keys = torch.tensor([_signed(s) for s in seeds], dtype=torch.int64, device=device)[:, None]
    block = torch.arange(blocks, dtype=torch.int64, device=device)[None, :]
    zero = torch.zeros_like(block)
    words = philox((block, zero + step, zero + draw, zero), (keys & _WORD, (keys >> 32) & _WORD))
    u = [(w.double() + 0.5) * 2.0**-32 for w in words]                           # in (0, 1), never 0
    radius = [torch.sqrt(-2 * torch.log(u[0])), torch.sqrt(-2 * torch.log(u[2]))]
    angle = [2 * math.pi * u[1], 2 * math.pi * u[3]]
    z = torch.stack([radius[0] * angle[0].cos(), radius[0] * angle[0].sin(), radius[1] * angle[1].cos(), radius[1] * angle[1].sin()], dim=-1)
    return z.flatten(1)[:, :count].reshape(len(seeds), *shape).float()


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox 4x32; counter and key words are int64 tensors that hold 32 unsigned bits and broadcast."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # The product of two 32-bit words wraps in int64, but its bits are right: mask after the shift, which copies the sign.
        high0, low0 = _split(c0 * _MULTIPLIERS[0])
        high1, low1 = _split(c2 * _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _WEYL[0]) & _WORD, (k1 + _WEYL[1]) & _WORD
    return c0, c1, c2, c3


def _split(product: Tensor) -> tuple[Tensor, Tensor]:
    return (product >> 32) & _WORD, product & _WORD


def _signed(seed: int) -> int:
    """The same 64 bits as torch's int64."""
    seed &= 0xFFFFFFFFFFFFFFFF
    return seed - (1 << 64) if seed >> 63 else seed
