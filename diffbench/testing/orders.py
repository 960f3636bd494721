"""The table of measured orders of convergence, for the documentation:

    python -m diffbench.testing.orders > docs/orders.md
"""

from __future__ import annotations

import sys

import torch

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Scheduler
from diffbench.registry.describing import label
from diffbench.registry.registry import Registry, load_registry
from diffbench.testing.checks.convergence import SETTLING, STDS, gaussian_order
from diffbench.testing.stand_ins import all_examples
from diffbench.testing.verdicts import NotApplicable

HEAD = f"""# Measured orders of convergence

Every scheduler, in each configuration its class names in `examples`, on every noise schedule. Data are Gaussian with
standard deviations {', '.join(map(str, STDS))}, for which the exact answer is known; a number is the slope
log2(e(N)/e(2N)) of the root-mean-square error between t = 0.95 and t = 0.05, in float64. For deterministic schedulers
the error is that of the gain of the whole run, for stochastic ones that of the mean and variance they lead to (weak
order). N is {SETTLING[0]}, and where the slope there is not yet within 0.15 of the claim
{' or '.join(map(str, SETTLING[1:]))}. Steps follow 3 u² - 2 u³ in log(sigma/alpha), so that the start-up of a
multistep scheduler does not count; `pndm`, which takes equal steps only, has equal steps in t. A dash: no order is
claimed, or the pair is refused.

Regenerate with `python -m diffbench.testing.orders > docs/orders.md`; `diffbench check scheduler` tests the same and
more.

"""


def table(registry: Registry) -> str:
    """The page, as Markdown."""
    schedules: list[NoiseSchedule] = all_examples(registry, "noise_schedule")
    names = [label(s, registry).replace("(zero_terminal_snr=True)", ", zero SNR") for s in schedules]
    lines = ["| scheduler | claimed | " + " | ".join(names) + " |", "|:--" + "|--:" * (1 + len(names)) + "|"]
    for scheduler in all_examples(registry, "scheduler"):
        cells = [_cell(registry, scheduler, schedule) for schedule in schedules]
        lines.append(f"| {label(scheduler, registry)} | {scheduler.order or '-'} | " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def _cell(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> str:
    try:
        return f"{gaussian_order(registry, scheduler, schedule):.2f}"
    except NotApplicable:
        return "-"


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(table(load_registry()))
