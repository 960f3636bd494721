"""Predictor-corrector sampling with Langevin dynamics."""

import math
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, OptionError, Scheduler, posterior, weighted_sum
from diffbench_components.schedulers.ddpm import Ddpm
from diffbench_components.schedulers.euler_sde import EulerSde
from diffbench_components.schedulers.spread import VARIANCE, marginal, why_not_for_its_spread


@dataclass(frozen=True, kw_only=True)
class LangevinPc(Scheduler):
    """Predictor-corrector sampling: steps of Langevin dynamics between those of a predictor.

    At each level first `corrector_steps` of x + e score + sqrt(2 e) z, then one step of the predictor.
    step_size "marginal": e = 2 (snr sigma)², the rule of annealed Langevin dynamics; "norm": e = 2 (snr |z|/|score|)²,
    that of the paper, with the norms of each sample (its code takes the mean over the batch, so that an image depends
    on its neighbours, and multiplies by 1 - beta_i, which is 0.98 to 1 and left out here). predictor "none" is annealed
    Langevin dynamics: the next level starts from alpha_s/alpha_t x, and the end is x0_hat. Last step: corrector, then
    x0_hat; no noise is left. Langevin steps of a fixed snr leave a bias of order snr² that no number of levels removes
    (for N(0, v) noised to v_t the stationary variance is v_t/(1 - e/(2 v_t))), so no order of convergence is claimed
    unless corrector_steps is 0. With predictor "none" nothing but the Langevin steps shrinks what alpha_s/alpha_t has
    stretched, each by 1 - e/v_t, 0.95 at an snr of 0.16: where they are too few for the gain from level to level the
    cell is refused, as are predictors' steps that are too long; see `spread`.
    Source: Song et al. 2021, arXiv:2011.13456, algorithms 2 to 5; annealed: Song & Ermon 2019, arXiv:1907.05600,
    algorithm 1.
    """

    steps: Annotated[int, Ge(1)] = 500                            # N levels; (corrector_steps + 1) N evaluations
    corrector_steps: Annotated[int, Ge(0)] = 1                    # Langevin steps at each level
    predictor: Literal["euler_maruyama", "ancestral", "none"] = "euler_maruyama"      # the step to the next level
    snr: Annotated[float, Gt(0)] = 0.16                           # r of the step size; 0.16 on CIFAR-10
    step_size: Literal["marginal", "norm"] = "marginal"           # what the step is measured against

    examples = ({"snr": 0.05}, {"predictor": "ancestral", "snr": 0.05}, {"predictor": "none", "corrector_steps": 5},
                {"step_size": "norm"},
                {"corrector_steps": 0})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.predictor == "none" and self.corrector_steps == 0:
            raise OptionError("corrector_steps must be at least 1 with predictor 'none': nothing else moves the "
                              "samples")

    @property
    def order(self) -> int:
        return 0 if self.corrector_steps else 1

    @property
    def is_stochastic(self) -> bool:
        return True

    def equal_to(self) -> Scheduler:
        return self if self.corrector_steps or self.predictor == "none" else self._predictor()

    def nfe(self, steps: int) -> int:
        return self.corrector_steps * steps + (1 if self.predictor == "none" else steps)

    def why_not(self, cell):
        first = float(cell.spacing(cell.noise_schedule, self.steps)[0])
        if self.predictor != "ancestral" and cell.noise_schedule.at(first).alpha == 0.0:
            return (f"langevin_pc cannot start at zero terminal SNR with predictor '{self.predictor}', which divides "
                    "by alpha; use 'ancestral'")
        if self.predictor != "none":
            return why_not_for_its_spread(self._shown(), self.steps, cell, self.moved)
        remedy = "use more steps, more corrector_steps or a predictor"
        return why_not_for_its_spread(self._shown(), self.steps, cell, self.moved, remedy, is_mended_by_clipping=False)

    def _shown(self) -> str:
        return f"langevin_pc (predictor '{self.predictor}', {self.corrector_steps} corrector steps of snr {self.snr:g})"

    def moved(self, schedule: NoiseSchedule, variance: float, t: float, s: float) -> float:
        """The variance of x_s for Gaussian data, score = -x/v_t; step size "norm" as in an image of many pixels, where
        norms are standard deviations.
        """
        true, (alpha_t, sigma_t), (alpha_s, sigma_s) = marginal(schedule, t), schedule.scales(t), schedule.scales(s)
        for _ in range(self.corrector_steps):
            e = 2 * self.snr**2 * (sigma_t**2 if self.step_size == "marginal" else true**2 / variance)
            variance = (1 - e / true) ** 2 * variance + 2 * e
        if self.predictor == "euler_maruyama":
            return EulerSde.moved(schedule, variance, t, s)
        if self.predictor == "none":
            return (alpha_s / alpha_t) ** 2 * variance
        q = posterior(alpha_t, sigma_t, alpha_s, sigma_s)
        return (q.of_x + q.of_x0 * alpha_t * VARIANCE / true) ** 2 * variance + q.small

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: Noise) -> tuple[Tensor, None]:
        for draw in range(1, self.corrector_steps + 1):
            x_t = self._corrected(denoise, schedule, x_t, t, noise(draw))
        if self.predictor == "none" and s > 0:
            return (schedule.at(s).alpha / schedule.at(t).alpha) * x_t, None
        if s == 0:
            return denoise(x_t, t).x0, None
        return self._predictor().step(denoise, schedule, x_t, t, s, None, noise)

    def _predictor(self) -> Scheduler:
        return EulerSde(steps=self.steps) if self.predictor == "euler_maruyama" else Ddpm(steps=self.steps)

    def _corrected(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, z: Tensor) -> Tensor:
        sigma_t = schedule.at(t).sigma
        eps_hat = denoise(x_t, t).eps                             # score = -eps_hat/sigma
        if self.step_size == "marginal":
            e = 2 * (self.snr * sigma_t) ** 2
            return weighted_sum((1.0, x_t), (-e / sigma_t, eps_hat), (math.sqrt(2 * e), z))
        norm_z, norm_eps = (torch.linalg.vector_norm(v, dim=(1, 2, 3), keepdim=True) for v in (z, eps_hat))
        root = (self.snr * sigma_t) * (norm_z / norm_eps)              # sqrt(e/2), [B, 1, 1, 1]; |score| = |eps|/sigma
        return torch.addcmul(torch.addcmul(x_t, root**2, eps_hat, value=-2 / sigma_t), root, z, value=2)
