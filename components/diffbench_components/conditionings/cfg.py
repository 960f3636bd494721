"""Classifier-free guidance around another conditioning."""

import math
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from diffbench import (
    Condition,
    Conditioning,
    Denoise,
    DenoiseCondition,
    Helpers,
    OptionError,
    Prediction,
    per_sample,
    sampling_option,
)
from diffbench_components.conditionings.wrapper import Wrapper

WIDEST = 1000.0                       # of a log SNR: beyond what float64 can hold of it


@dataclass(frozen=True, kw_only=True)
class Cfg(Wrapper):
    """Classifier-free guidance: mixes a conditional and an unconditional prediction of one network.

    null + w (cond - null), for x_0 and eps alike, since both are affine in F.
    Inside `interval` w = 0 is unconditional, w = 1 plain conditional (one pass, not two), w > 1 sharpens. Ho &
    Salimans's own w is ours less 1. In training the condition is withheld from a share of the samples, which teaches
    the null prediction. In sampling both predictions come from one doubled batch, which counts as two evaluations.
    Outside `interval`, in log SNR = 2 log(alpha/sigma), the prediction is the plain conditional one, one evaluation,
    for w = 0 too. `rescale` brings the standard deviation of the guided x_0 of each image to that of the conditional
    one, by that share, and eps follows from it. A learned variance is the conditional one. It does not sample p(x)
    p(y|x)^w: Bradley & Nakkiran 2024, arXiv:2408.09000.
    Source: Ho & Salimans 2022, arXiv:2207.12598, eq. 6; interval: Kynkäänniemi et al. 2024, arXiv:2404.07724; rescale:
    Lin et al. 2024, arXiv:2305.08891, section 3.4, there on the network's own output.
    """

    scale: Annotated[float, Ge(0)] = sampling_option(3.0)         # w, in the interval: 0 unconditional, 1 conditional
    interval: tuple[float, float] = sampling_option((-WIDEST, WIDEST))  # log SNR from and to which it guides
    rescale: Annotated[float, Interval(ge=0, le=1)] = sampling_option(0.0)  # share of the rescaling; the paper uses 0.7
    dropout: Annotated[float, Interval(gt=0, lt=1)] = 0.1         # share of training samples without their condition

    examples = ({"inner": "film"}, {"inner": "concat", "scale": 2.0, "rescale": 0.7},
                {"inner": "cross_attention", "interval": [-2.0, 4.0]})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interval[0] >= self.interval[1]:
            raise OptionError(f"interval must run from a lower to a higher log SNR, got {list(self.interval)}")

    @property
    def drop_rate(self) -> float:
        return self.dropout

    @property
    def evaluations(self) -> int:
        """Inside the interval; outside it one."""
        return 1 if self.scale in (0.0, 1.0) else 2

    def costs_as(self) -> Conditioning:
        return replace(self, inner=self.inner.costs_as(), scale=1.0 if self.scale in (0.0, 1.0) else 2.0)

    def why_not(self, cell):
        if not self.inner.ports:
            return f"cfg guides by a condition, and its inner conditioning {self.inner.component_name()} has none"
        return self.guides_twice() or self.inner.why_not(cell)

    def guide(self, denoise: DenoiseCondition, cond: Condition | None, helpers: Helpers) -> Denoise:
        w, schedule = self.scale, helpers.schedule
        low, high = self.interval

        def one_pass(x_t: Tensor, t: float, drops: bool) -> Prediction:
            return denoise(x_t, t, cond, torch.full((len(x_t),), drops, device=x_t.device))

        def doubled(x_t: Tensor, t: float) -> Prediction:
            drop = torch.arange(2 * len(x_t), device=x_t.device) >= len(x_t)
            both = denoise(torch.cat([x_t, x_t]), t, Condition.cat([cond, cond]), drop)
            (x0_cond, x0_null), (eps_cond, eps_null) = both.x0.chunk(2), both.eps.chunk(2)
            variance = None if both.variance is None else both.variance.chunk(2)[0]
            x0_hat, eps_hat = torch.lerp(x0_null, x0_cond, w), torch.lerp(eps_null, eps_cond, w)
            if self.rescale == 0:
                return Prediction(x0=x0_hat, eps=eps_hat, variance=variance)
            spread = x0_hat.flatten(1).std(1)  # [B] a flat image has no contrast to bring back
            ratio = torch.where(spread > 0, x0_cond.flatten(1).std(1) / spread, 1.0)
            x0_rescaled = per_sample(1 + self.rescale * (ratio - 1), x0_hat) * x0_hat
            alpha, sigma = schedule.scales(t)
            if sigma == 0:                                        # x_t holds no noise, and any eps is as good
                return Prediction(x0=x0_rescaled, eps=eps_hat, variance=variance)
            return Prediction(x0=x0_rescaled, eps=eps_hat + (alpha / sigma) * (x0_hat - x0_rescaled), variance=variance)

        def guided(x_t: Tensor, t: float) -> Prediction:
            nsr = schedule.nsr(t)
            # Zero SNR and the clean level lie at the ends of the widest interval, inside the default one.
            log_snr = (min(max(-2 * math.log(nsr), -WIDEST), WIDEST) if 0 < nsr < math.inf
                       else math.copysign(WIDEST, 1 - nsr))
            if w == 1 or not low <= log_snr <= high:
                return one_pass(x_t, t, drops=False)
            return one_pass(x_t, t, drops=True) if w == 0 else doubled(x_t, t)
        return guided
