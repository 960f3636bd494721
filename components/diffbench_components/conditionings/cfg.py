"""Classifier-free guidance around another conditioning."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from diffbench import Conditioning, Denoise, DenoiseCondition, Helpers, Io, Prediction, sampling_option


@dataclass(frozen=True, kw_only=True)
class Cfg(Conditioning):
    """Mixes two predictions of one network: null + w (cond - null), for x_0 and eps alike, since both are affine in F.

    w = 0 is unconditional, w = 1 plain conditional (one pass, not two), w > 1 sharpens. The papers' gamma is w - 1.
    In training the condition is withheld from a share of the samples, which teaches the null prediction. In sampling both
    predictions come from one doubled batch, which counts as two evaluations.
    It does not sample p(x) p(y|x)^w: Bradley & Nakkiran 2024, arXiv:2408.09000.
    Source: Ho & Salimans 2022, arXiv:2207.12598, eq. 6.
    """

    inner: Conditioning                                           # how the condition enters
    scale: Annotated[float, Ge(0)] = sampling_option(3.0)         # w
    dropout: Annotated[float, Interval(gt=0, lt=1)] = 0.1         # share of training samples without their condition

    @property
    def ports(self) -> frozenset[str]:
        return self.inner.ports

    @property
    def drop_rate(self) -> float:
        return self.dropout

    @property
    def guidance_scale(self) -> float:
        return self.scale

    def costs_as(self) -> Conditioning:
        return replace(self, inner=self.inner.costs_as(), scale=1.0 if self.scale in (0.0, 1.0) else 2.0)

    def why_not(self, cell):
        if not self.inner.ports:
            return f"cfg guides by a condition, and its inner conditioning {self.inner.component_name()} has none"
        if self.inner.guidance_scale is not None:
            return f"cfg around {self.inner.component_name()} would guide twice"
        return self.inner.why_not(cell)

    def build(self, io: Io) -> nn.Module:
        return self.inner.build(io)

    def guide(self, denoise: DenoiseCondition, cond: Tensor | None, helpers: Helpers) -> Denoise:
        w = self.scale

        def one_pass(x_t: Tensor, t: float) -> Prediction:
            drop = torch.full((len(x_t),), w == 0, device=x_t.device)
            return denoise(x_t, t, cond, drop)

        def doubled(x_t: Tensor, t: float) -> Prediction:
            drop = torch.arange(2 * len(x_t), device=x_t.device) >= len(x_t)
            both = denoise(torch.cat([x_t, x_t]), t, torch.cat([cond, cond]), drop)
            (x0_cond, x0_null), (eps_cond, eps_null) = both.x0.chunk(2), both.eps.chunk(2)
            return Prediction(x0=x0_null + w * (x0_cond - x0_null), eps=eps_null + w * (eps_cond - eps_null))

        return one_pass if w in (0.0, 1.0) else doubled
