"""What every scheduler must do, on exact denoisers in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffbench import noise, sampling
from diffbench.contracts import NoiseSchedule, Scheduler, Spacing
from diffbench.errors import OptionError
from diffbench.registry import Registry
from diffbench.specs import label
from diffbench.testing.conformance import NotApplicable
from diffbench.testing.oracles import GaussianData, MixtureData, NotAffine, affine_map, distance, run
from diffbench.testing.stand_ins import Between, all_examples, cell_with
from diffbench.values import Prediction

Checks = Iterator[tuple[str, Callable[[], Any]]]

STDS = (0.05, 0.4, 1.7)               # of Gaussian data: at one of them an error may vanish by chance, at all it does not
TOLERANCE = 0.15                      # of a measured order
SETTLING = (160, 640, 2560)           # steps, each doubled once: an order is a limit, so a later pair decides where an earlier one has not settled
SETTLING_DENSITY = (20, 40, 80)       # the same where a density is carried, which takes longer and whose grid resolves no shorter steps
LAST_NOISE = 0.2                      # sigma/alpha at which a density ends at the least, for the same reason: below the data's own features
STARTS = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None, None, None]      # standard deviations


def scheduler_checks(registry: Registry, scheduler: Scheduler) -> Checks:
    """Order, clean end, parameterizations, evaluations, few steps, batches, synchronisation, cost."""
    schedules: list[NoiseSchedule] = all_examples(registry, "noise_schedule")
    spacings: list[Spacing] = all_examples(registry, "spacing")
    for schedule in schedules:
        where = label(schedule, registry)
        yield f"converges at order {scheduler.order} on {where}, Gaussian data", partial(_order, registry, scheduler, schedule, _gaussian_error)
        yield f"converges at order {scheduler.order} on {where}, mixture data", partial(_mixture_order, registry, scheduler, schedule)
        yield f"gives one sample on {where} however the network is parameterized", partial(_parameterizations, registry, scheduler, schedule)
        for spacing in spacings:
            yield f"ends clean on {where} with {label(spacing, registry)} spacing", partial(_ends_clean, registry, scheduler, schedule, spacing)
    yield "counts the evaluations it claims", partial(_evaluations, registry, scheduler)
    for steps in (1, 2):
        yield f"takes {steps} step{'s' if steps > 1 else ''}, or refuses with a reason", partial(_few_steps, registry, scheduler, steps)
    yield "gives an image that does not depend on its batch", partial(_batches, registry, scheduler)
    yield "asks for noise if and only if it says so", partial(_noise, registry, scheduler)
    yield "never waits for the device", partial(_no_synchronisation, registry, scheduler)
    yield "launches at most three tensor operations per term", partial(_operations, registry, scheduler)


def why_not(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule, spacing: Spacing) -> str | None:
    """Why the plan would skip a scheduler on this grid; where it asks for a learned variance, with an objective that trains one."""
    reasons = []
    for objective in all_examples(registry, "objective"):
        cell = cell_with(registry, noise_schedule=schedule, spacing=spacing, scheduler=scheduler, objective=objective)
        reason = spacing.why_not(cell) or scheduler.why_not(cell)
        if reason is None:
            return None
        reasons.append(reason)
    return reasons[0]


def measured_order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """The slope of the error on Gaussian data, for the table of the documentation; raises NotApplicable."""
    return _order(registry, scheduler, schedule, _gaussian_error)


def _order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule, error: Callable[[Scheduler, Spacing, NoiseSchedule], float]) -> float:
    if scheduler.order == 0:
        raise NotApplicable("claims no order")
    spacing = Between()
    reason = why_not(registry, replace(scheduler, steps=SETTLING[0]), schedule, spacing)
    if reason:
        spacing = Between(equal=True)
        reason = why_not(registry, replace(scheduler, steps=SETTLING[0]), schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    return _settled(scheduler, lambda made: error(made, spacing, schedule), SETTLING)


def _mixture_order(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """By paths where the scheduler is deterministic, by the density of its samples where it adds noise."""
    if not scheduler.is_stochastic or scheduler.order == 0:
        return _order(registry, scheduler, schedule, _mixture_error)
    spacing = Between(even=True, end=max(Between.end, schedule.time_of(LAST_NOISE)))
    reason = why_not(registry, replace(scheduler, steps=SETTLING_DENSITY[0]), schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    try:
        return _settled(scheduler, lambda made: distance(made, spacing, MixtureData(schedule=schedule)), SETTLING_DENSITY)
    except NotAffine as error:
        raise NotApplicable(f"the density of its samples is not known: {error}") from error


def _settled(scheduler: Scheduler, error: Callable[[Scheduler], float], settling: tuple[int, ...]) -> float:
    """The slope between a number of steps and its double, of the first pair where it is the claimed one."""
    for steps in settling:
        errors = [error(replace(scheduler, steps=n)) for n in (steps, 2 * steps)]
        slope = math.log2(errors[0] / errors[1])
        if abs(slope - scheduler.order) < TOLERANCE:
            return slope
    raise AssertionError(f"claims order {scheduler.order}, measured {slope:.2f} from {steps} to {2 * steps} steps, "
                         f"with errors {errors[0]:.2g} and {errors[1]:.2g}")


def _gaussian_error(scheduler: Scheduler, spacing: Between, schedule: NoiseSchedule) -> float:
    """Of the exact affine map: its gain where the scheduler is deterministic, the mean and variance it leads to where it adds noise."""
    squared = 0.0
    for std in STDS:
        data = GaussianData(schedule=schedule, std=std, mean=0.3)
        try:
            found = affine_map(scheduler, spacing, data)
        except NotAffine as error:
            raise NotApplicable(f"its steps are not affine on Gaussian data: {error}") from error
        if scheduler.is_stochastic:
            reached, exact = found.pushed(*data.marginal(spacing.start)), data.marginal(spacing.end)
            squared += sum((a - b) ** 2 for a, b in zip(reached, exact, strict=True))
        else:
            gain = data.flow(1.0, spacing.start, spacing.end) - data.flow(0.0, spacing.start, spacing.end)
            squared += (found.gain - gain) ** 2
    return math.sqrt(squared)


def _mixture_error(scheduler: Scheduler, spacing: Between, schedule: NoiseSchedule) -> float:
    """Largest distance from the exact flow, over starting points."""
    reached = _path_end(scheduler, spacing, schedule)
    return float((reached - _exact_end(schedule, spacing.start, spacing.end)).abs().max())


def _path_end(scheduler: Scheduler, spacing: Spacing, schedule: NoiseSchedule) -> Tensor:
    times = spacing(schedule, scheduler.steps).tolist()
    alpha, sigma = schedule.scales(times[0])
    *_, end = run(scheduler, MixtureData(schedule=schedule), schedule, times, STARTS * math.hypot(alpha, sigma), _silence)
    return end


@lru_cache(maxsize=256)
def _exact_end(schedule: NoiseSchedule, start: float, end: float) -> Tensor:
    alpha, sigma = schedule.scales(start)
    return MixtureData(schedule=schedule).flow(STARTS * math.hypot(alpha, sigma), start, end)


def _silence(step: int) -> Callable[[int], Tensor]:
    def noise_(draw: int = 0) -> Tensor:
        raise AssertionError(f"asks for noise in step {step} and says that it adds none")
    return noise_


def _ends_clean(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule, spacing: Spacing) -> float:
    """Data that are one point: whatever spread is left in the result is the sampler's fault."""
    reasons, spreads = [], []
    for steps in (10, 50):
        made = replace(scheduler, steps=steps)
        reason = why_not(registry, made, schedule, spacing)
        if reason:
            reasons.append(reason)
            continue
        try:
            found = affine_map(made, spacing, GaussianData(schedule=schedule, std=0.0, mean=0.3))
        except NotAffine as error:
            raise NotApplicable(f"its steps are not affine on Gaussian data: {error}") from error
        mean, variance = found.pushed(0.0, 1.0)
        spreads.append(math.sqrt(variance))
        assert spreads[-1] <= 1e-3 and abs(mean - 0.3) <= 1e-3, f"{steps} steps on data at 0.3 end at {mean:.4g} with standard deviation {spreads[-1]:.2g}"
    if not spreads:
        raise NotApplicable(reasons[0])
    return max(spreads)


def _parameterizations(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """One exact model written as each network output; a scheduler that mixed raw outputs would tell them apart."""
    made, spacing = replace(scheduler, steps=20), Between(equal=True)
    reason = why_not(registry, made, schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    data = GaussianData(schedule=schedule, std=0.5, mean=0.3)
    x_T = noise.normal(range(5), (1, 2, 2), 0).double()

    def through(parameterization: Any) -> Tensor:
        def denoise(x_t: Tensor, t: float) -> Prediction:
            level, exact = schedule.at(t), data(x_t, t)
            return parameterization.decode(parameterization.target(exact.x0, exact.eps, level), x_t, level)._replace(variance=exact.variance)
        return sampling.sample(denoise, schedule, made, x_T, spacing=spacing).x_0
    drawn = torch.stack([through(p) for p in all_examples(registry, "parameterization")])
    difference = float((drawn - drawn[0]).abs().max() / drawn[0].abs().max().clamp(min=1))
    assert difference < 1e-10, f"samples differ by {difference:.2g}"
    return difference


def _usual(registry: Registry, scheduler: Scheduler) -> tuple[NoiseSchedule, Spacing, GaussianData]:
    schedule, spacing = registry.default("noise_schedule"), registry.default("spacing")
    reason = why_not(registry, scheduler, schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    return schedule, spacing, GaussianData(schedule=schedule, std=0.5)


def _evaluations(registry: Registry, scheduler: Scheduler) -> None:
    for steps in (max(4, scheduler.min_steps), 20):
        made = replace(scheduler, steps=steps)
        schedule, spacing, data = _usual(registry, made)
        found = sampling.sample(data, schedule, made, torch.zeros(3, 1, 2, 2, dtype=torch.float64) + 0.1, spacing=spacing).nfe
        assert found == made.nfe(steps), f"{steps} steps make {found:g} evaluations, and {made.nfe(steps)} are claimed"


def _few_steps(registry: Registry, scheduler: Scheduler, steps: int) -> None:
    try:
        made = replace(scheduler, steps=steps)
    except OptionError as error:
        raise NotApplicable(str(error)) from error
    schedule, spacing, data = _usual(registry, made)
    drawn = sampling.sample(data, schedule, made, torch.full((2, 1, 2, 2), 0.7, dtype=torch.float64), spacing=spacing).x_0
    assert drawn.isfinite().all(), f"{steps} steps end at {drawn.flatten()[0]:g}"


def _batches(registry: Registry, scheduler: Scheduler) -> float:
    made = replace(scheduler, steps=10)
    schedule, spacing, data = _usual(registry, made)
    seeds = noise.sample_seeds(0, 0, 64)

    def draw(part: list[int]) -> Tensor:
        x_T = sampling.initial(schedule, spacing, 10, part, (1, 4, 4))
        return sampling.sample(data, schedule, made, x_T, spacing=spacing, seeds=part).x_0
    whole = draw(seeds)
    differences = [float((whole - torch.cat([draw(seeds[i : i + batch]) for i in range(0, 64, batch)])).abs().max()) for batch in (1, 7)]
    assert max(differences) < 1e-5, f"images drawn in batches of 1, 7 and 64 differ by {max(differences):.2g}"
    return max(differences)


def _noise(registry: Registry, scheduler: Scheduler) -> None:
    made = replace(scheduler, steps=10)
    schedule, spacing, data = _usual(registry, made)
    asked: list[tuple[int, int]] = []

    def listening(step: int) -> Callable[[int], Tensor]:
        def noise_(draw: int = 0) -> Tensor:
            asked.append((step, draw))
            return torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        return noise_
    for _ in run(made, data, schedule, spacing(schedule, 10).tolist(), torch.ones(1, 1, 1, 1, dtype=torch.float64), listening):
        pass
    assert bool(asked) == made.is_stochastic, f"is_stochastic is {made.is_stochastic}, and it asked for noise {len(asked)} times"
    assert len(set(asked)) == len(asked), "asks twice for the same draw of one step: give each its own number"


def _no_synchronisation(registry: Registry, scheduler: Scheduler) -> None:
    """On the meta device a tensor has no value: reading one on the host, or branching on it, raises."""
    made = replace(scheduler, steps=10)
    schedule, spacing, data = _usual(registry, made)
    x = torch.empty(2, 1, 4, 4, device="meta")
    for _ in run(made, data, schedule, spacing(schedule, 10).tolist(), x, lambda step: lambda draw=0: torch.empty_like(x)):
        pass


class _Counted(TorchDispatchMode):
    """Counts tensor operations, and which of the tensors handed out they read: the terms of the formula."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.handed_out, self.read = 0, [], set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.operations += 1
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else (arg,))]
        self.read |= {i for i, tensor in enumerate(self.handed_out) if any(a is tensor for a in flat)}
        return func(*args, **(kwargs or {}))

    def hand_out(self) -> Tensor:
        self.handed_out.append(torch.ones(2, 1, 4, 4))
        return self.handed_out[-1]


def _operations(registry: Registry, scheduler: Scheduler) -> str:
    """One step past any start-up, the network's own work left out; coefficients are on the host by then, as in a second run."""
    made = replace(scheduler, steps=10)
    schedule, spacing, data = _usual(registry, made)
    sampling.sample(data, schedule, made, torch.ones(2, 1, 4, 4), spacing=spacing)
    times, state, x = spacing(schedule, 10).tolist(), made.init(), torch.ones(2, 1, 4, 4)
    for t, s in zip(times[:6], times[1:7], strict=True):
        counted = _Counted()
        answers = [(counted.hand_out(), counted.hand_out(), counted.hand_out()) for _ in range(8)]
        draws = [counted.hand_out() for _ in range(8)]
        x, state = counted.hand_out(), _handed_out(state, counted)
        ask = iter(answers)
        with counted:
            x, state = made.step(lambda x_t, t, ask=ask: Prediction(*next(ask)), schedule, x, t, s, state, lambda draw=0, draws=draws: draws[draw])
    terms = len(counted.read)
    assert counted.operations <= 3 * terms, f"{counted.operations} operations for {terms} terms"
    return f"{counted.operations} operations for {terms} terms"


def _handed_out(state: Any, counted: _Counted) -> Any:
    """A state whose tensors are known to the counter."""
    if isinstance(state, Tensor):
        counted.handed_out.append(state)
    for part in state if isinstance(state, tuple | list) else ():
        _handed_out(part, counted)
    return state
