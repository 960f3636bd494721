"""Checks of schedulers, on exact denoisers in float64. Used by `conformance`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Scheduler, Spacing
from diffbench.contracts.values import Prediction
from diffbench.diffusion import noise, sampling
from diffbench.errors import OptionError
from diffbench.registry.describing import label
from diffbench.registry.registry import Registry
from diffbench.testing.checks.convergence import gaussian_order, mixture_order, why_not
from diffbench.testing.oracles import GaussianData, NotAffine, affine_map, run
from diffbench.testing.stand_ins import Between, all_examples
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]

def scheduler_checks(registry: Registry, scheduler: Scheduler) -> Checks:
    """Checks of order, clean end, parameterizations, evaluations, few steps, batches, synchronisation and cost."""
    schedules: list[NoiseSchedule] = all_examples(registry, "noise_schedule")
    spacings: list[Spacing] = all_examples(registry, "spacing")
    for schedule in schedules:
        where = label(schedule, registry)
        yield (f"converges at order {scheduler.order} on {where}, Gaussian data",
               partial(gaussian_order, registry, scheduler, schedule))
        yield (f"converges at order {scheduler.order} on {where}, mixture data",
               partial(mixture_order, registry, scheduler, schedule))
        yield (f"gives one sample on {where} however the network is parameterized",
               partial(_parameterizations, registry, scheduler, schedule))
        for spacing in spacings:
            yield (f"ends clean on {where} with {label(spacing, registry)} spacing",
                   partial(_ends_clean, registry, scheduler, schedule, spacing))
    yield "counts the evaluations it claims", partial(_evaluations, registry, scheduler)
    for steps in (1, 2):
        yield (f"takes {steps} step{'s' if steps > 1 else ''}, or refuses with a reason",
               partial(_few_steps, registry, scheduler, steps))
    yield "gives an image that does not depend on its batch", partial(_batches, registry, scheduler)
    yield "asks for noise if and only if it says so", partial(_noise, registry, scheduler)
    yield "never waits for the device", partial(_no_synchronisation, registry, scheduler)
    yield "launches at most three tensor operations per term", partial(_operations, registry, scheduler)


def _ends_clean(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule, spacing: Spacing) -> float:
    """On data that are a single point, the spread that is left in the result is an error of the sampler."""
    reasons, spreads = [], []
    for steps in (10, 50):
        configured = replace(scheduler, steps=steps)
        reason = why_not(registry, configured, schedule, spacing)
        if reason:
            reasons.append(reason)
            continue
        try:
            affine = affine_map(configured, spacing, GaussianData(schedule=schedule, std=0.0, mean=0.3))
        except NotAffine as error:
            raise NotApplicable(f"its steps are not affine on Gaussian data: {error}") from error
        mean, variance = affine.pushed(0.0, 1.0)
        spreads.append(math.sqrt(variance))
        assert spreads[-1] <= 1e-3 and abs(mean - 0.3) <= 1e-3, (
            f"{steps} steps on data at 0.3 end at {mean:.4g} with standard deviation {spreads[-1]:.2g}")
    if not spreads:
        raise NotApplicable(reasons[0])
    return max(spreads)


def _parameterizations(registry: Registry, scheduler: Scheduler, schedule: NoiseSchedule) -> float:
    """Samples are the same for one exact model in each parameterization; mixing raw outputs would tell them apart."""
    configured, spacing = replace(scheduler, steps=20), Between(equal=True)
    reason = why_not(registry, configured, schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    data = GaussianData(schedule=schedule, std=0.5, mean=0.3)
    x_T = noise.normal(range(5), (1, 2, 2), 0).double()

    def through(parameterization: Any) -> Tensor:
        def denoise(x_t: Tensor, t: float) -> Prediction:
            level, exact = schedule.at(t), data(x_t, t)
            return parameterization.decode(parameterization.target(exact.x0, exact.eps, level), x_t, level)._replace(
                variance=exact.variance)
        return sampling.sample(denoise, schedule, configured, x_T, spacing=spacing).x_0
    samples = torch.stack([through(p) for p in all_examples(registry, "parameterization")])
    difference = float((samples - samples[0]).abs().max() / samples[0].abs().max().clamp(min=1))
    assert difference < 1e-10, f"samples differ by {difference:.2g}"
    return difference


def _default_setting(registry: Registry, scheduler: Scheduler) -> tuple[NoiseSchedule, Spacing, GaussianData]:
    schedule, spacing = registry.default("noise_schedule"), registry.default("spacing")
    reason = why_not(registry, scheduler, schedule, spacing)
    if reason:
        raise NotApplicable(reason)
    return schedule, spacing, GaussianData(schedule=schedule, std=0.5)


def _evaluations(registry: Registry, scheduler: Scheduler) -> None:
    for steps in (max(4, scheduler.min_steps), 20):
        configured = replace(scheduler, steps=steps)
        schedule, spacing, data = _default_setting(registry, configured)
        nfe = sampling.sample(data, schedule, configured, torch.zeros(3, 1, 2, 2, dtype=torch.float64) + 0.1,
                              spacing=spacing).nfe
        assert nfe == configured.nfe(steps), (
            f"{steps} steps make {nfe:g} evaluations, and {configured.nfe(steps)} are claimed")


def _few_steps(registry: Registry, scheduler: Scheduler, steps: int) -> None:
    try:
        configured = replace(scheduler, steps=steps)
    except OptionError as error:
        raise NotApplicable(str(error)) from error
    schedule, spacing, data = _default_setting(registry, configured)
    samples = sampling.sample(data, schedule, configured, torch.full((2, 1, 2, 2), 0.7, dtype=torch.float64),
                              spacing=spacing).x_0
    assert samples.isfinite().all(), f"{steps} steps end at {samples.flatten()[0]:g}"


def _batches(registry: Registry, scheduler: Scheduler) -> float:
    configured = replace(scheduler, steps=10)
    schedule, spacing, data = _default_setting(registry, configured)
    seeds = noise.sample_seeds(0, 0, 64)

    def draw(part: list[int]) -> Tensor:
        x_T = sampling.initial(schedule, spacing, 10, part, (1, 4, 4))
        return sampling.sample(data, schedule, configured, x_T, spacing=spacing, seeds=part).x_0
    together = draw(seeds)
    differences = [float((together - torch.cat([draw(seeds[i : i + batch]) for i in range(0, 64, batch)])).abs().max())
                   for batch in (1, 7)]
    assert max(differences) < 1e-5, f"images drawn in batches of 1, 7 and 64 differ by {max(differences):.2g}"
    return max(differences)


def _noise(registry: Registry, scheduler: Scheduler) -> None:
    configured = replace(scheduler, steps=10)
    schedule, spacing, data = _default_setting(registry, configured)
    draws: list[tuple[int, int]] = []

    def listening(step: int) -> Callable[[int], Tensor]:
        def noise_(draw: int = 0) -> Tensor:
            draws.append((step, draw))
            return torch.zeros(1, 1, 1, 1, dtype=torch.float64)
        return noise_
    for _ in run(configured, data, schedule, spacing(schedule, 10).tolist(),
                 torch.ones(1, 1, 1, 1, dtype=torch.float64), listening):
        pass
    assert bool(draws) == configured.is_stochastic, (
        f"is_stochastic is {configured.is_stochastic}, and it asked for noise {len(draws)} times")
    assert len(set(draws)) == len(draws), "asks twice for the same draw of one step: give each its own number"


def _no_synchronisation(registry: Registry, scheduler: Scheduler) -> None:
    """Nothing is read on the host: a tensor on the meta device has no value, so reading one raises."""
    configured = replace(scheduler, steps=10)
    schedule, spacing, data = _default_setting(registry, configured)
    x = torch.empty(2, 1, 4, 4, device="meta")
    for _ in run(configured, data, schedule, spacing(schedule, 10).tolist(), x,
                 lambda step: lambda draw=0: torch.empty_like(x)):
        pass


class _Counter(TorchDispatchMode):
    """Counter of tensor operations, and of the tensors handed out that they read: the terms of the formula."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.handed_out, self.read = 0, [], set()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        self.operations += 1
        flat = [a for arg in args for a in (arg if isinstance(arg, list | tuple) else (arg,))]
        self.read |= {i for i, tensor in enumerate(self.handed_out) if any(a is tensor for a in flat)}
        return func(*args, **(kwargs or {}))

    def hand_out(self) -> Tensor:
        before = self.operations
        self.handed_out.append(torch.ones(2, 1, 4, 4))
        self.operations = before                          # the network's own work, not the step's
        return self.handed_out[-1]


def _operations(registry: Registry, scheduler: Scheduler) -> str:
    """The operations of a step are at most three per term; start-up and the network's own work do not count.

    Coefficients are on the host already, as in a second run.
    A term is a tensor that the step reads: its state, a prediction, noise. Each costs a pass over the images, or two
    with its scale.
    """
    configured = replace(scheduler, steps=10)
    schedule, spacing, data = _default_setting(registry, configured)
    sampling.sample(data, schedule, configured, torch.ones(2, 1, 4, 4), spacing=spacing)
    times, state, x = spacing(schedule, 10).tolist(), configured.init(), torch.ones(2, 1, 4, 4)
    for t, s in zip(times[:6], times[1:7], strict=True):
        counter = _Counter()
        x, state = counter.hand_out(), _hand_out_state(state, counter)
        with counter:
            x, state = configured.step(
                lambda x_t, t, tell=counter.hand_out: Prediction(tell(), tell(), tell()),
                schedule,
                x,
                t,
                s,
                state,
                lambda draw=0, tell=counter.hand_out: tell(),
            )
    terms = len(counter.read)
    assert counter.operations <= 3 * terms, (
        f"{counter.operations} operations for {terms} terms (tensors that the step reads): compute scales as floats "
        "and add the terms with diffbench.weighted_sum"
    )
    return f"{counter.operations} operations for {terms} terms"


def _hand_out_state(state: Any, counter: _Counter) -> Any:
    """Adds the tensors of a state to those that the counter has handed out; returns the state."""
    if isinstance(state, Tensor):
        counter.handed_out.append(state)
    for part in state if isinstance(state, tuple | list) else ():
        _hand_out_state(part, counter)
    return state
