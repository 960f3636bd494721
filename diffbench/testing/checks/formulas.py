"""Checks of noise schedules, parameterizations, objectives and spacings against their definitions.

Used by `conformance`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.model import Objective, Parameterization
from diffbench.contracts.noise_schedule import NoiseSchedule
from diffbench.contracts.sampler import Spacing
from diffbench.contracts.values import Level, Noised, per_sample
from diffbench.registry.describing import label
from diffbench.registry.registry import Registry
from diffbench.testing.stand_ins import OneCall, all_examples, cell_with
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]

T = torch.linspace(0, 1, 2001, dtype=torch.float64)
RATES = ("d_alpha", "d_sigma", "f", "g2")
X_0, EPS = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def noise_schedule_checks(registry: Registry, schedule: NoiseSchedule) -> Checks:
    """Checks of alpha and sigma, of the inverse t_of_nsr, and of the rates."""
    yield "starts clean", partial(_starts_clean, schedule)
    yield "has a noise-to-signal ratio that rises strictly", partial(_rises, schedule)
    yield "has t_of_nsr as its inverse, to 1e-10", partial(_inverse, schedule)
    yield "is float64 and keeps the shape of t", partial(_shapes, schedule)
    yield "has rates that are the derivatives", partial(_rates, schedule)
    yield "trains on its grid", partial(_grid, schedule)
    yield "refuses times outside [0, 1]", partial(_outside, schedule)


def _starts_clean(schedule: NoiseSchedule) -> None:
    assert schedule.scales(0.0) == (1.0, 0.0), f"(alpha, sigma) at t = 0 are {schedule.scales(0.0)}"


def _nsr(schedule: NoiseSchedule, t: Tensor) -> Tensor:
    return schedule.sigma(t) / schedule.alpha(t)


def _rises(schedule: NoiseSchedule) -> None:
    nsr = _nsr(schedule, T)
    assert (nsr[1:] > nsr[:-1]).all(), f"it does not at t = {float(T[1:][~(nsr[1:] > nsr[:-1])][0]):.4f}"
    assert (schedule.alpha(T) >= 0).all() and (schedule.alpha(T) <= 1).all(), "alpha leaves [0, 1]"


def _inverse(schedule: NoiseSchedule) -> float:
    error = float((schedule.t_of_nsr(_nsr(schedule, T)) - T).abs().max())
    assert error < 1e-10, f"t_of_nsr(nsr(t)) misses t by {error:.2g}"
    return error


def _shapes(schedule: NoiseSchedule) -> None:
    t = torch.tensor([[0.1, 0.2, 0.7], [0.3, 0.5, 0.99]], dtype=torch.float64)
    for name in ("alpha", "sigma", "d_alpha", "d_sigma", "f", "g2"):
        value = getattr(schedule, name)(t)
        assert value.shape == t.shape and value.dtype == torch.float64, (
            f"{name} of float64 {list(t.shape)} is {value.dtype} {list(value.shape)}")


def _rates(schedule: NoiseSchedule) -> None:
    """Rates equal central differences in the middle of grid intervals, and at t = 0, 1/2 and 1.

    At the latter automatic differentiation often fails.
    """
    count = schedule.grid or 1000
    t = (torch.arange(1, 1000, 7, dtype=torch.float64) * count // 1000 + 0.5) / count
    h = 1e-3 / count
    for name in ("alpha", "sigma"):
        scale, rate = getattr(schedule, name), getattr(schedule, f"d_{name}")
        slope = (scale(t + h) - scale(t - h)) / (2 * h)
        assert torch.allclose(rate(t), slope, rtol=1e-4, atol=1e-7), (
            f"d_{name} is off by {float((rate(t) - slope).abs().max()):.2g}")
    f = (schedule.alpha(t + h).log() - schedule.alpha(t - h).log()) / (2 * h)
    g2 = (schedule.sigma(t + h) ** 2 - schedule.sigma(t - h) ** 2) / (2 * h) - 2 * f * schedule.sigma(t) ** 2
    assert torch.allclose(schedule.f(t), f, rtol=1e-4, atol=1e-7), "f is not d log alpha/dt"
    assert torch.allclose(schedule.g2(t), g2, rtol=1e-4) and (g2 > 0).all(), "g2 is not d sigma²/dt - 2 f sigma²"
    middle = float(t[50])
    assert schedule.rates(middle) == (float(schedule.f(t)[50]),
                                      float(schedule.g2(t)[50])) or math.isclose(schedule.rates(middle)[1],
                                                                                 float(g2[50]), rel_tol=1e-3)
    for t_0 in (0.0, 0.5, 1.0):
        for name in RATES:
            _rate_at(schedule, name, t_0)


def _rate_at(schedule: NoiseSchedule, name: str, t_0: float) -> None:
    """A rate at one time lies between the differences to either side, or is infinite where they grow without bound."""
    value = float(getattr(schedule, name)(torch.tensor([t_0], dtype=torch.float64))[0])
    slopes = [[_difference(schedule, name, t_0, side * h / (schedule.grid or 1000)) for h in (1e-3, 1e-5)]
              for side in (-1, 1) if 0 <= t_0 + side * 1e-3 <= 1]
    if (
        name == "g2"
        and t_0 == 0.0
        and not math.isfinite(float(schedule.d_sigma(torch.zeros(1, dtype=torch.float64))[0]))
    ):
        return  # sigma rises like sqrt(t): g2 is 0 times infinity there, and nobody asks for it
    comparison = (
        f"{name} at t = {t_0:g} is {value:.6g}, and differences give {', '.join(f'{near:.6g}' for _, near in slopes)}"
    )
    assert not math.isnan(value), (
        f"{comparison}; write {name} in closed form where automatic differentiation has no value")
    if any(abs(near) > 3 * abs(far) or math.isinf(near) for far, near in slopes):
        assert any(value == math.copysign(math.inf, near) or abs(value) > abs(near) for _, near in slopes), comparison
        return
    nearest = [near for _, near in slopes]
    slack = 1e-3 * max(map(abs, nearest)) + 1e-6
    assert min(nearest) - slack <= value <= max(nearest) + slack, comparison


def _difference(schedule: NoiseSchedule, name: str, t_0: float, step: float) -> float:
    """A rate as a difference quotient from t_0 to t_0 + step: of alpha, sigma, log alpha, or sigma² less 2 f sigma²."""
    ends = torch.tensor([t_0, t_0 + step], dtype=torch.float64)
    alpha, sigma = schedule.alpha(ends), schedule.sigma(ends)

    def slope_of(values: Tensor) -> float:
        return float((values[1] - values[0]) / step)
    if name in ("d_alpha", "d_sigma"):
        return slope_of(alpha if name == "d_alpha" else sigma)
    f = slope_of(alpha.log())
    return f if name == "f" else slope_of(sigma**2) - 2 * f * float(sigma[0]) ** 2


def _grid(schedule: NoiseSchedule) -> None:
    t = schedule.snapped(1 - torch.rand(10_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    assert t.min() > 0 and t.max() <= 1, f"training times run from {float(t.min())} to {float(t.max())}"
    if schedule.grid:
        index = t * schedule.grid
        assert (index - index.round()).abs().max() < 1e-9, "training times miss the grid"
        assert len(index.round().unique()) > 0.9 * min(schedule.grid, 10_000), "training times leave grid points out"


def _outside(schedule: NoiseSchedule) -> None:
    for t in (-0.1, 1.1, math.nan):
        try:
            schedule.at(t)
        except ValueError:
            continue
        raise AssertionError(f"at({t}) is answered")


def _levels(registry: Registry, parameterization: Parameterization) -> Iterator[Level]:
    """Levels of every schedule that the parameterization accepts, float64 [4, 1, 1, 1], two of them near the ends."""
    t = torch.tensor([0.002, 0.3, 0.7, 0.999], dtype=torch.float64)[:, None, None, None]
    for schedule in all_examples(registry, "noise_schedule"):
        if (parameterization.why_not(cell_with(registry, noise_schedule=schedule, parameterization=parameterization))
            is None):
            yield schedule.level(t)


def parameterization_checks(registry: Registry, parameterization: Parameterization) -> Checks:
    """Checks that the network's output and (x_0, eps) determine each other."""
    yield "decodes its own target to x_0 and eps", partial(_decodes, registry, parameterization)
    yield "predicts x_0 and eps that lie on x_t, for any output", partial(_lies_on_x_t, registry, parameterization)
    yield "gives the network inputs of about unit variance", partial(_unit_variance, registry, parameterization)
    yield "tells the network levels that are finite and distinct", partial(_tells_levels, registry, parameterization)
    yield "has c_out² between the errors of its output and of x_0", partial(_c_out, registry, parameterization)


def _decodes(registry: Registry, parameterization: Parameterization) -> float:
    worst = 0.0
    for level in _levels(registry, parameterization):
        decoded = parameterization.decode(parameterization.target(X_0, EPS, level),
                                          level.alpha * X_0 + level.sigma * EPS, level)
        for decoded_value, exact, scale in ((decoded.x0, X_0, level.alpha), (decoded.eps, EPS, level.sigma)):
            # x_t holds sigma²/alpha² times as much noise as signal; that many digits of x_0 are lost in x_t itself.
            worst = max(worst, float(((decoded_value - exact).abs() * scale / (level.alpha + level.sigma)).max()))
    assert worst < 1e-12, f"off by {worst:.2g} of x_t"
    return worst


def _lies_on_x_t(registry: Registry, parameterization: Parameterization) -> None:
    for level in _levels(registry, parameterization):
        x_t = level.alpha * X_0 + level.sigma * EPS
        decoded = parameterization.decode(torch.full_like(x_t, 0.7), x_t, level)
        gap = (level.alpha * decoded.x0 + level.sigma * decoded.eps - x_t).abs().max() / x_t.abs().max()
        assert gap < 1e-10, f"alpha x0_hat + sigma eps_hat misses x_t by {float(gap):.2g} of it: a sampler would drift"


def _unit_variance(registry: Registry, parameterization: Parameterization) -> None:
    for level in _levels(registry, parameterization):
        spread = (parameterization.c_in(level) * (level.alpha * X_0 + level.sigma * EPS)).flatten(1).std(1)
        assert ((spread > 0.4) & (spread < 2.5)).all(), (f"standard deviations from {float(spread.min()):.2g} to "
                                                         f"{float(spread.max()):.2g}")


def _tells_levels(registry: Registry, parameterization: Parameterization) -> None:
    for schedule in all_examples(registry, "noise_schedule"):
        c_noise = [float(parameterization.c_noise(schedule.at(t))) for t in (0.01, 0.3, 0.7, 0.99)]
        assert all(math.isfinite(c) for c in c_noise) and len(set(c_noise)) == 4, (
            f"c_noise at four times of {label(schedule, registry)} is {c_noise}")


def _c_out(registry: Registry, parameterization: Parameterization) -> None:
    for level in _levels(registry, parameterization):
        x_t = level.alpha * X_0 + level.sigma * EPS
        target = parameterization.target(X_0, EPS, level)
        moved = parameterization.decode(target + 0.1, x_t, level).x0 - X_0
        expected = (0.1 * parameterization.c_out(level)).expand_as(moved)
        assert torch.allclose(moved, expected, rtol=1e-5, atol=1e-9), "x0_hat does not move by c_out times the output"


def objective_checks(registry: Registry, objective: Objective) -> Checks:
    """Checks of the loss: finite, one for each sample, least at the target; and of the times it draws."""
    for schedule in all_examples(registry, "noise_schedule"):
        where = label(schedule, registry)
        yield f"draws times in (0, 1] of {where}", partial(_times, registry, objective, schedule)
        yield (f"has one finite loss per sample, least at the truth, on {where}",
               partial(_loss, registry, objective, schedule))


def _usable(registry: Registry, objective: Objective, schedule: NoiseSchedule) -> list[Parameterization]:
    reasons, usable = [], []
    for parameterization in all_examples(registry, "parameterization"):
        cell = cell_with(registry, noise_schedule=schedule, parameterization=parameterization, objective=objective)
        reason = objective.why_not(cell) or parameterization.why_not(cell)
        (reasons if reason else usable).append(reason or parameterization)
    if not usable:
        raise NotApplicable(reasons[0])
    return usable


def _times(registry: Registry, objective: Objective, schedule: NoiseSchedule) -> None:
    _usable(registry, objective, schedule)
    t = objective.times(torch.rand(50, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1)), schedule)
    assert t.shape == (50, 64) and t.dtype == torch.float64, f"times are {t.dtype} {list(t.shape)}"
    assert t.min() > 0 and t.max() <= 1, f"times run from {float(t.min())} to {float(t.max())}"
    assert (schedule.grid is None or ((t * schedule.grid).round() - t * schedule.grid).abs().max()
            < 1e-9), "times miss the grid"
    assert len(t.unique()) > 100, f"only {len(t.unique())} different times"


def _loss(registry: Registry, objective: Objective, schedule: NoiseSchedule) -> None:
    for parameterization in _usable(registry, objective, schedule):
        t = objective.times(torch.tensor([0.9, 0.5, 0.2, 0.05], dtype=torch.float64), schedule)
        level = Level(*(per_sample(part, X_0) for part in schedule.level(t)))
        previous_t = (t - 1 / (schedule.grid or 1000)).clamp(min=0)
        previous = (Level(*(per_sample(part, X_0) for part in schedule.level(previous_t)))
                    if objective.learns_variance else None)
        x_0 = (X_0.clamp(-1, 1) * 127.5).round() / 127.5
        noised = Noised(x_0, EPS, level.alpha * x_0 + level.sigma * EPS, level, previous)
        target = parameterization.target(x_0, EPS, level)

        def loss_of(output: Tensor, noised: Noised = noised,
                    parameterization: Parameterization = parameterization) -> Tensor:
            # With a learned variance the small one is right where x_0 is known: output -1 of [-1, 1].
            full_output = torch.cat([output, -torch.ones_like(output)], dim=1) if objective.learns_variance else output
            return objective.loss(full_output, noised, schedule, parameterization)
        best = loss_of(target)
        assert best.shape == (4,) and best.isfinite().all(), f"the loss of four samples is {best.tolist()}"
        worse = loss_of(target + 0.1)
        assert (worse > best).all(), f"a wrong output has loss {worse.tolist()}, the right one {best.tolist()}"
        disturbed = loss_of(torch.cat([target[:1] + 0.1, target[1:]]))
        assert torch.allclose(disturbed[1:], best[1:]), "the loss of a sample depends on another's"


def spacing_checks(registry: Registry, spacing: Spacing) -> Checks:
    """Checks that times decrease strictly to the clean level, for every schedule that the spacing accepts."""
    for schedule in all_examples(registry, "noise_schedule"):
        yield (f"decreases strictly to the clean level of {label(schedule, registry)}",
               partial(_decreases, registry, spacing, schedule))


def _decreases(registry: Registry, spacing: Spacing, schedule: NoiseSchedule) -> None:
    accepted = 0
    for steps in (1, 2, 3, 7, 50, 64, 1000):
        cell = cell_with(registry, noise_schedule=schedule, spacing=spacing, scheduler=OneCall(steps=steps))
        if spacing.why_not(cell) is None:
            accepted += 1
            times = spacing(schedule, steps)
            assert (times.shape == (steps + 1,) and times.dtype
                    == torch.float64), f"{steps} steps are {times.dtype} {list(times.shape)}"
            assert ((times[1:] < times[:-1]).all() and times[-1] == 0
                    and times[0] <= 1), f"{steps} steps are {times.tolist()[:3]} ... {times.tolist()[-3:]}"
    if not accepted:
        raise NotApplicable(spacing.why_not(cell))
