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


class Source:
    """The noise of a batch of samples, step by step; where steps are small, of several steps in one go."""

    def __init__(self, seeds: Sequence[int], shape: tuple[int, ...], steps: int, device: torch.device | str = "cpu"):
        """seeds: 64 bits, one for each sample; shape: of one sample; steps: how many there may be to draw for."""
        self.shape, self.device = (len(seeds), *shape), torch.device(device)
        self.keys = torch.tensor([_signed(s) for s in seeds], dtype=torch.int64, device=device)[:, None]
        self.blocks = -(-math.prod(shape) // 4)                                  # of four words each
        self.ahead = min(steps, max(1, CACHED // max(1, len(seeds) * self.blocks)))        # steps that are drawn at once
        self.drawn: dict[int, tuple[int, Tensor]] = {}                           # draw -> (first step, noise of the steps from there)

    def __call__(self, step: int, draw: int = 0) -> Tensor:
        """N(0, 1), float32, [B, *shape]; row i depends on the seed of sample i, step and draw alone."""
        first, drawn = self.drawn.get(draw, (0, ()))
        if not first <= step < first + len(drawn):
            first, drawn = self.drawn[draw] = step, self._draw(range(step, step + self.ahead), draw)
        return drawn[step - first]

    def _draw(self, steps: range, draw: int) -> Tensor:
        rows = torch.tensor(steps, dtype=torch.int64, device=self.device).repeat_interleave(len(self.keys))[:, None]
        keys = self.keys.repeat(len(steps), 1)
        z = torch.empty(len(rows), 4, self.blocks, device=self.device)
        size = max(1, CACHED // max(1, self.blocks)) if self.device.type == "cpu" else max(1, len(rows))
        for key, step, out in zip(keys.split(size), rows.split(size), z.split(size), strict=True):
            counter = torch.empty(4, len(key), self.blocks, dtype=torch.int64, device=self.device)
            for word, value in enumerate((torch.arange(self.blocks, device=self.device), step, draw, 0)):
                counter[word] = value
            _normal(philox(tuple(counter), (key & _WORD, (key >> 32) & _WORD)), out)
        return z.flatten(1)[:, : math.prod(self.shape[1:])].reshape(len(steps), *self.shape)


def normal(seeds: Sequence[int], shape: tuple[int, ...], step: int, draw: int = 0, *, device: torch.device | str = "cpu") -> Tensor:
    """The noise of one step, [len(seeds), *shape]."""
    return Source(seeds, shape, 1, device)(step, draw)


def _normal(words: tuple[Tensor, ...], out: Tensor) -> None:
    """Four words to four numbers, out [rows, 4, blocks], in float32: |z| is below 6.8. Box & Muller 1958."""
    for pair, (first, second) in enumerate((words[:2], words[2:])):
        radius = first.float().mul_(2.0**-32).add_(2.0**-33).log_().mul_(-2).sqrt_()           # of numbers in (0, 1], never 0
        angle = second.float().mul_(2 * math.pi * 2.0**-32)
        torch.mul(radius, angle.cos(), out=out[:, 2 * pair])
        torch.mul(radius, angle.sin_(), out=out[:, 2 * pair + 1])


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
