"""An adaptive Runge-Kutta method on the device of its tensors: Dormand and Prince's pair of orders 5 and 4."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffbench.errors import Diverged

# Source: Dormand & Prince 1980, "A family of embedded Runge-Kutta formulae", RK5(4)7M; Hairer, Norsett & Wanner,
# Solving ODEs I, table II.5.2.
NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    # the last stage is the new state: its slope is the next step's first
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
FIRST_STEP = 1e-3                     # of the whole interval
SHRINK, GROW, CAUTION = 0.2, 5.0, 0.9
MOST_STEPS = 20_000


def integrate(slope: Callable[[float, Tensor], Tensor], y: Tensor, start: float, end: float, tolerance: float,
              size: Callable[[Tensor], Tensor]) -> tuple[Tensor, int]:
    """(y(end), number of slopes asked for) of dy/du = slope(u, y), for a batch of states that take their steps
    together.

    y: [B, n]; tolerance: of the error of one step, absolute plus relative to |y|, by `size`: [B, n] -> [B], which makes
    one number of the errors of a state, each in units of its tolerance. The worst state of the batch decides, so that
    each keeps the tolerance. Raises Diverged where a state stops being finite or the steps become too many.
    """
    u, h, slopes = start, (end - start) * FIRST_STEP, [slope(start, y)]
    asked = 1
    for _ in range(MOST_STEPS):
        is_last = abs(end - u) <= abs(h) * (1 + 1e-12)
        h = end - u if is_last else h
        for node, row in zip(NODES[1:], STAGES[1:], strict=True):
            new = y + h * sum(weight * k for weight, k in zip(row, slopes, strict=True) if weight)
            slopes.append(slope(u + node * h, new))
        asked += len(NODES) - 1
        error = h * sum(weight * k for weight, k in zip(ERROR, slopes, strict=True) if weight)
        worst = float(size(error / (tolerance * (1 + torch.maximum(y.abs(), new.abs())))).max())
        if not worst < float("inf"):
            raise Diverged(f"the flow could not be followed past u = {u:.4g}: its state is no longer finite")
        if worst <= 1:
            if is_last:
                return new, asked
            u, y, slopes = u + h, new, slopes[-1:]
        else:
            slopes = slopes[:1]
        h = h * min(GROW, max(SHRINK, CAUTION * worst**-0.2 if worst else GROW))
    raise Diverged(f"the flow could not be followed past u = {u:.4g} in {MOST_STEPS} steps at a tolerance of "
                   f"{tolerance:g}")
