"""Orders of convergence of schedulers, measured on data whose flow is exact. Used by `schedulers` and `orders`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import torch
from torch import Tensor

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Scheduler, Spacing
from diffbench.registry.registry import Registry
from diffbench.testing.oracles import GaussianData, MixtureData, NotAffine, affine_map_of_each, distance, run
from diffbench.testing.stand_ins import Between, all_examples, cell_with
from diffbench.testing.verdicts import NotApplicable

# of Gaussian data: at one of them an error may vanish by chance, at all it does not
STDS = (0.05, 0.4, 1.7)
TOLERANCE = 0.15                      # of a measured order
# steps, each doubled once: an order is a limit, so a later pair decides where an earlier one has not settled
SETTLING = (160, 640, 2560)
# the same where a density is carried, which takes longer and whose grid resolves no shorter steps
SETTLING_DENSITY = (20, 40, 80)
# sigma/alpha at which a density ends at the least, for the same reason: below the data's own features
LAST_NOISE = 0.2
STARTS = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None, None, None]      # standard deviations


def why_not(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule, spacing: Spacing) -> str | None:
    """The reason why a plan would skip a scheduler on this grid, with the objective that suits it best; or None."""
    reasons = []
    for objective in all_examples(registry, "objective"):
        cell = cell_with(registry, noise_schedule=schedule, spacing=spacing, scheduler=scheduler, objective=objective)
        reason = spacing.why_not(cell) or scheduler.why_not(cell)
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0]


def gaussian_order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """The slope of the error on Gaussian data. Raises NotApplicable."""
    return _order(registry, scheduler, schedule, _gaussian_error)


def _order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule,
           error: Callable[[Scheduler, Spacing, NoiseSchedule], float]) -> float:
    if scheduler.order == 0:
        raise NotApplicable("claims no order")
    spacing = Between()
    reason = why_not(registry, replace(scheduler, steps=SETTLING[0]), schedule, spacing)
    if reason:
        spacing = Between(equal=True)
        reason = why_not(registry, replace(scheduler, steps=SETTLING[0]), schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    return _settled(scheduler, lambda configured: error(configured, spacing, schedule), SETTLING)


def mixture_order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """The slope on mixture data: of the paths of a deterministic scheduler, of the density of a stochastic one."""
    if not scheduler.is_stochastic or scheduler.order == 0:
        return _order(registry, scheduler, schedule, _mixture_error)
    spacing = Between(even=True, end=max(Between.end, schedule.time_of(LAST_NOISE)))
    reason = why_not(registry, replace(scheduler, steps=SETTLING_DENSITY[0]), schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    try:
        return _settled(scheduler, lambda configured: distance(configured, spacing, MixtureData(schedule=schedule)),
                        SETTLING_DENSITY)
    except NotAffine as error:
        raise NotApplicable(f"the density of its samples is not known: {error}") from error


def _settled(scheduler: Scheduler, error: Callable[[Scheduler], float], settling: tuple[int, ...]) -> float:
    """The slope from N to 2 N steps at the first N where it is the claimed order."""
    for steps in settling:
        errors = [error(replace(scheduler, steps=n)) for n in (steps, 2 * steps)]
        slope = math.log2(errors[0] / errors[1])
        if abs(slope - scheduler.order) < TOLERANCE:
            return slope
    raise AssertionError(f"claims order {scheduler.order}, measured {slope:.2f} from {steps} to {2 * steps} steps, "
                         f"with errors {errors[0]:.2g} and {errors[1]:.2g}")


def _gaussian_error(scheduler: Scheduler, spacing: Between, schedule: NoiseSchedule) -> float:
    """The error of the exact affine map: of its gain, or of mean and variance where the scheduler adds noise."""
    squared, stds = 0.0, torch.tensor(STDS, dtype=torch.float64)
    try:
        maps = affine_map_of_each(scheduler, spacing, GaussianData(schedule=schedule, std=stds, mean=0.3), len(STDS))
    except NotAffine as error:
        raise NotApplicable(f"its steps are not affine on Gaussian data: {error}") from error
    for std, affine in zip(STDS, maps, strict=True):
        data = GaussianData(schedule=schedule, std=std, mean=0.3)
        if scheduler.is_stochastic:
            reached, exact = affine.pushed(*data.marginal(spacing.start)), data.marginal(spacing.end)
            squared += sum((a - b) ** 2 for a, b in zip(reached, exact, strict=True))
        else:
            gain = data.flow(1.0, spacing.start, spacing.end) - data.flow(0.0, spacing.start, spacing.end)
            squared += (affine.gain - gain) ** 2
    return math.sqrt(squared)


def _mixture_error(scheduler: Scheduler, spacing: Between, schedule: NoiseSchedule) -> float:
    """The largest distance from the exact flow, over starting points."""
    reached = _path_end(scheduler, spacing, schedule)
    return float((reached - _exact_end(schedule, spacing.start, spacing.end)).abs().max())


def _path_end(scheduler: Scheduler, spacing: Spacing, schedule: NoiseSchedule) -> Tensor:
    times = spacing(schedule, scheduler.steps).tolist()
    alpha, sigma = schedule.scales(times[0])
    *_, end = run(scheduler, MixtureData(schedule=schedule), schedule, times,
                  STARTS * math.hypot(alpha, sigma), silence)
    return end


@lru_cache(maxsize=256)
def _exact_end(schedule: NoiseSchedule, start: float, end: float) -> Tensor:
    alpha, sigma = schedule.scales(start)
    return MixtureData(schedule=schedule).flow(STARTS * math.hypot(alpha, sigma), start, end)


def silence(step: int) -> Callable[[int], Tensor]:
    def noise_(draw: int = 0) -> Tensor:
        raise AssertionError(f"asks for noise in step {step} and says that it adds none")
    return noise_
