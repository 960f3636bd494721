"""The number of workers that share a GPU where the user gives none. Used by the engine."""

from __future__ import annotations

import torch

from diffbench.contracts.cell import Recipe
from diffbench.diffusion.denoiser import Denoiser
from diffbench.launchers import Capacity, Launcher
from diffbench.machine import gpu_figures
from diffbench.planning.plan import Plan


def capacity(launcher: Launcher, plan: Plan, widest: int, jobs: int | None) -> Capacity:
    """The capacity of a launcher for a plan, with the number of workers per GPU that was measured to be fastest.

    widest: the most stages that could run at once; jobs: the number of workers that the user asked for, or None.
    """
    kind = plan.device.partition(":")[0]
    alone = launcher.capacity(kind, widest, jobs)
    if kind != "cuda" or jobs is not None or not launcher.shares_gpus or alone.slots == widest:
        return alone
    device = torch.cuda.get_device_name(plan.device)
    parameters = largest_network(plan) if gpu_figures.of_sharing(device) else None
    workers_per_gpu = 1 if parameters is None else gpu_figures.workers_at_once(device, parameters)
    return alone if workers_per_gpu == 1 else launcher.capacity(kind, widest,
                                                                min(widest, workers_per_gpu * alone.slots))


def largest_network(plan: Plan) -> int | None:
    """Parameters of the largest network of a plan, counted without weights; None where one cannot be built so."""
    largest = 0
    built: set[tuple[int, ...]] = set()
    for planned in plan.cells:
        parts = tuple(id(getattr(planned.cell, kind)) for kind in ("dataset", "backbone", "conditioning", "objective"))
        if planned.skipped or parts in built:
            continue
        built.add(parts)
        try:
            largest = max(largest, _parameters(planned.cell))
        except Exception:  # noqa: BLE001  a stranger's network may need real numbers while it is built
            return None
    return largest or None


def _parameters(recipe: Recipe) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Denoiser(recipe).parameters())
