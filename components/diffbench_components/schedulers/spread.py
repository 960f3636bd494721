"""What schedulers with Euler's steps share: whether they keep the spread of the data, by moments of Gaussian data."""

import functools
import math
from collections.abc import Callable

from diffbench import NoiseSchedule, Spacing

VARIANCE = 0.25  # of the Gaussian data: pixels in [-1, 1] have a standard deviation of about 0.5
WIDEST = 3.0  # states on the way that a network is still asked about, in units of their true standard deviation
WIDEST_END = 2.0  # and images at the end
REMEDY = "use more steps, or a spacing that starts below t = 1, such as 'uniform: {start: 0.98}'"
NARROWEST = 0.5  # states on the way, in units of what ddim keeps on the same grid

Moved = Callable[[NoiseSchedule, float, float, float], float]  # (schedule, variance of x_t, t, s) -> variance of x_s


def marginal(schedule: NoiseSchedule, t: float) -> float:
    """The true variance of x_t: alpha² v + sigma² for data of variance v."""
    alpha, sigma = schedule.scales(t)
    return alpha**2 * VARIANCE + sigma**2


def growth(schedule: NoiseSchedule, t: float) -> float:
    """a of the probability flow dx/dt = a x of Gaussian data: (alpha' alpha v + sigma' sigma)/v_t."""
    _, alpha, sigma, d_alpha, d_sigma = map(float, schedule.at(t))
    return (d_alpha * alpha * VARIANCE + d_sigma * sigma) / marginal(schedule, t)


def why_not_for_its_spread(
    name: str, steps: int, cell, moved: Moved, remedy: str = REMEDY, is_mended_by_clipping: bool = True
) -> str | None:
    """Why a scheduler whose steps move variances by `moved` would lose the spread of the data on its grid, or None.

    The samples begin as noise of variance alpha² + sigma², and the step to the clean level is x0_hat. Euler's method is
    right for short steps; where beta is large and steps are long, its gain 1 - h beta/2 is far outside of [-1, 1], and
    states reach hundreds of times their spread. A later step may bring them back, as on `cosine`; a network has then
    been asked about inputs it never saw, which is harmless while x0_hat is clipped. Measured there on digits, uniform
    spacing from t = 1, 20 and 50 steps of euler_sde: as good as from 0.98 with clipping, chance without it.
    """
    end, narrowest, widest, where = _reach(moved, cell.noise_schedule, cell.spacing, steps)
    label = (f"{name} with {steps} steps on {cell.spacing.component_name()} spacing of "
             f"{cell.noise_schedule.component_name()}")
    if end > WIDEST_END:
        return f"{label} would end at {end:.3g} times the spread of the data: its steps are too long; {remedy}"
    if narrowest < NARROWEST:
        return (f"{label} would lose the spread of the data: it keeps {narrowest:.0%} of what ddim keeps; use more "
                "steps, or ddim")
    if widest > WIDEST and not (is_mended_by_clipping and cell.sample.clip):
        mended = ", or 'sample: {clip: true}'" if is_mended_by_clipping else ""
        return (f"{label} would take images to {widest:.3g} times their spread at t = {where:.3g}, where no network "
                f"has learnt anything; {remedy}{mended}")
    return None


@functools.lru_cache(maxsize=4096)
def _reach(moved: Moved, schedule: NoiseSchedule, spacing: Spacing, steps: int) -> tuple[float, float, float, float]:
    """(spread of the images, the least on the way in units of ddim's, the largest one in units of the truth, its time).
    """
    visited = spacing(schedule, steps)
    schedule.prepare(visited)
    times = visited.tolist()
    alpha, sigma = schedule.scales(times[0])
    variance = of_ddim = alpha**2 + sigma**2
    widest, where, narrowest = 1.0, times[0], 1.0
    for t, s in zip(times, times[1:]):  # noqa: B905  pairs of neighbours
        (alpha_t, sigma_t), (alpha_s, sigma_s), true = schedule.scales(t), schedule.scales(s), marginal(schedule, t)
        if s == 0:
            return math.sqrt((alpha_t * VARIANCE / true) ** 2 * variance / VARIANCE), narrowest, widest, where
        of_ddim *= ((alpha_s * alpha_t * VARIANCE + sigma_s * sigma_t) / true) ** 2
        variance = moved(schedule, variance, t, s)
        widest, where = max((widest, where), (math.sqrt(variance / marginal(schedule, s)), s))
        narrowest = min(narrowest, math.sqrt(variance / of_ddim))
    return math.sqrt(variance / marginal(schedule, times[-1])), narrowest, widest, where
