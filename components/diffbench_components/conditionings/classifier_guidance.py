"""Guidance by the gradient of a classifier."""

from dataclasses import dataclass, replace
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from diffbench import Condition, Conditioning, Denoise, DenoiseCondition, Helpers, Prediction, sampling_option
from diffbench_components.conditionings.labels import needs_labels
from diffbench_components.conditionings.none import None_
from diffbench_components.conditionings.wrapper import Wrapper


@dataclass(frozen=True, kw_only=True)
class ClassifierGuidance(Wrapper):
    """Classifier guidance: follows the gradient of a classifier of noised images.

    eps_hat - w sigma grad log p(y | x_t), and x0_hat + w sigma²/alpha grad with it; grad with respect to x_t.
    p(y | x_t) is a classifier of noised images, trained once per data set and noise schedule and shared. The gradient
    goes through the classifier only. Around an unconditional network w = 1 samples the condition, w > 1 sharpens; w = 0
    is the inner conditioning. In
    `ddpm` the shift of x0_hat moves the mean by alpha_s var_ts/alpha_t w grad, the paper's Sigma grad to first order in
    the step.
    Source: Dhariwal & Nichol 2021, arXiv:2105.05233, algorithm 2 and eq. 14.
    """

    inner: Conditioning = None_()                          # how a condition enters the network itself
    scale: Annotated[float, Ge(0)] = sampling_option(1.0)  # w: 0 is unconditional, 1 plain conditional, more sharpens

    examples = ({}, {"inner": "film", "scale": 2.0})

    @property
    def drop_rate(self) -> float:
        return self.inner.drop_rate

    @property
    def is_conditional(self) -> bool:
        return True

    @property
    def needs_classifier(self) -> bool:
        return True

    def costs_as(self) -> Conditioning:
        return replace(self, inner=self.inner.costs_as(), scale=1.0)

    def why_not(self, cell):
        first = float(cell.spacing(cell.noise_schedule, cell.scheduler.steps)[0])
        if cell.noise_schedule.at(first).alpha == 0.0:
            return ("classifier_guidance cannot start at zero terminal SNR: its shift of x_0 is divided by alpha, "
                    "which is 0 there")
        return self.guides_twice() or needs_labels("classifier_guidance", cell) or self.inner.why_not(cell)

    def guide(self, denoise: DenoiseCondition, cond: Condition | None, helpers: Helpers) -> Denoise:
        w, plain = self.scale, self.inner.guide(denoise, cond, helpers)

        def guided(x_t: Tensor, t: float) -> Prediction:
            x0_hat, eps_hat, variance = plain(x_t, t)
            alpha, sigma = helpers.schedule.scales(t)
            with torch.enable_grad():
                x = x_t.detach().requires_grad_()
                log_p = helpers.classifier(x, t).log_softmax(1)                           # [B, K]
                (gradient,) = torch.autograd.grad(log_p.gather(1, cond.label[:, None]).sum(), x)
            return Prediction(x0=x0_hat + (w * sigma**2 / alpha) * gradient, eps=eps_hat - (w * sigma) * gradient,
                              variance=variance)
        return plain if w == 0 else guided
