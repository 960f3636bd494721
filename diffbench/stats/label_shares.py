"""Sequences of labels by the shares of their classes. Used by `contracts.labels` and by the jackknife."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor


def label_sequence(shares: Sequence[int], count: int) -> Tensor:
    """The class of index 0, 1, ... count - 1, int64 [count], with each class in its share in every prefix.

    The number of images of a class in a prefix differs from its share by less than one.

    shares: a whole number >= 0 for each class, in proportion to its share; at least one is above 0. The class of an
    index depends on the shares alone, not on `count`. With K classes of positive share p_k, a prefix of n labels holds
    class k between n p_k - d and n p_k + d times, d = 1 - 1/(2K - 2), the least that holds for all shares. Equal shares
    give 0, 1, ..., K - 1, 0, 1, ...
    Source: Tijdeman 1980, "The chairman assignment problem", Discrete Mathematics 32: the j-th image of class k is due
    between the prefixes (j - d)/p_k and (j - 1 + d)/p_k, and of those that may come the one that must come first does;
    of equal ones the first class.
    """
    total, present = sum(shares), [k for k, share in enumerate(shares) if share > 0]
    if len(present) == 1:
        return torch.full((count,), present[0], dtype=torch.int64)
    halves = 2 * len(present) - 2  # 1 - d = 1/halves
    # (the first prefix whose last image it may be, or the last one, class, which image of the class)
    waiting = [(_up(total, halves * shares[k]), k, 1) for k in present]
    due: list[tuple[int, int, int]] = []
    heapq.heapify(waiting)
    labels = []
    for n in range(1, count + 1):
        while waiting and waiting[0][0] <= n:
            _, k, j = heapq.heappop(waiting)
            heapq.heappush(due, (total * (halves * j - 1) // (halves * shares[k]), k, j))
        _, k, j = heapq.heappop(due)
        labels.append(k)
        heapq.heappush(waiting, (_up(total * (halves * j + 1), halves * shares[k]), k, j + 1))
    return torch.tensor(labels, dtype=torch.int64)


def _up(numerator: int, denominator: int) -> int:
    """The quotient, rounded up."""
    return -(-numerator // denominator)


def have_fixed_shares(labels: Tensor) -> bool:
    """Whether the shares of labels, int64 [N], look fixed beforehand.

    Every class is equally frequent, to within one image, or has its share in every prefix, to within two, as in
    `label_sequence`. Labels that were drawn at random do not, from some hundred images on.
    """
    counts = labels.unique(return_counts=True)[1]
    if int(counts.max() - counts.min()) <= 1:
        return True
    order = torch.argsort(labels, stable=True)  # the places of class 0, then of class 1, ...
    before = torch.cat([torch.arange(int(count)) for count in counts])  # images of the class before each place
    share = torch.repeat_interleave(counts, counts).double() / len(labels)
    return bool(((before - order * share > -2) & (before + 1 - (order + 1) * share < 2)).all())


def whole_numbers(shares: Sequence[float]) -> tuple[int, ...]:
    """Integers in exactly the proportion of the shares' decimal digits: 9 and 1 for 0.9 and 0.1."""
    exact = [Fraction(str(share)) for share in shares]
    scale = math.lcm(*(part.denominator for part in exact))
    return tuple(int(part * scale) for part in exact)
