"""Pseudo numerical methods for diffusion models."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge
from torch import Tensor

from diffbench import Denoise, Noise, NoiseSchedule, OptionError, Scheduler, weighted_sum
from diffbench_components.schedulers.slopes import why_not_from_here

ADAMS_BASHFORTH = {                                       # weights of eps_hat, newest first
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}


@dataclass(frozen=True, kw_only=True)
class Pndm(Scheduler):
    """PNDM: a four-step linear multistep method on eps_hat (PLMS), globally of order 2.

    Four-step Adams-Bashforth on eps_hat, moved by DDIM's map: x_s = alpha_s (x_t - sigma_t e)/alpha_t + sigma_s e.
    The history is of eps_hat, never of the network's raw output. The weights hold on a uniform grid only, so others are
    refused. Two starts: "prk", three pseudo Runge-Kutta steps of four evaluations (N + 9 in all, N >= 4), and "plms",
    one Heun-like pair and then orders 2, 3, 4 (N + 1 in all, N >= 2). Globally of order 2, as the paper proves, not 4:
    the weights are those of equal steps in sigma/alpha, which equal steps in t are not; and the step to the clean level
    is of order 1. Where a schedule ends in a tiny alpha (cosine: 5e-5), errors of the first step are multiplied by
    alpha_s/alpha_t; beyond 50 the cell is refused: start below t = 1 there (`uniform: {start: 0.98}`).
    Source: Liu et al. 2022, arXiv:2202.09778, section 3 (transfer part, pseudo linear multi-step, pseudo Runge-Kutta);
    "plms" as in latent diffusion.
    """

    steps: Annotated[int, Ge(2)] = 50                     # N; prk makes N + 9 evaluations, plms N + 1
    warmup: Literal["prk", "plms"] = "prk"                # how the first steps are made

    examples = ({}, {"warmup": "plms"})
    order: ClassVar[int] = 2
    min_steps: ClassVar[int] = 4

    def __post_init__(self):
        super().__post_init__()
        if self.warmup == "prk" and self.steps < 4:
            raise OptionError("steps must be at least 4 with warmup 'prk' (three of them are the warm-up), got "
                              f"{self.steps}; 'plms' takes 2")

    def nfe(self, steps: int) -> int:
        return steps + 9 if self.warmup == "prk" else steps + 1

    def why_not(self, cell):
        times = cell.spacing(cell.noise_schedule, self.steps)
        lengths = times[:-1] - times[1:]
        if float(lengths.max() - lengths.min()) > 1e-9:
            return (f"pndm's Adams-Bashforth weights hold for equal steps, and {cell.spacing.component_name()} spacing "
                    f"with {self.steps} steps "
                    f"has steps of {float(lengths.min()):.4g} to {float(lengths.max()):.4g}; use uniform")
        return why_not_from_here("pndm", self.steps, cell)

    def init(self) -> tuple[Tensor, ...]:
        return ()

    def step(self, denoise: Denoise, schedule: NoiseSchedule, x_t: Tensor, t: float, s: float,
             state: tuple[Tensor, ...],
             noise: Noise) -> tuple[Tensor, tuple[Tensor, ...]]:
        def transfer(to: float, *e: tuple[float, Tensor]) -> Tensor:
            alpha_t, sigma_t = schedule.scales(t)
            alpha_to, sigma_to = schedule.scales(to)
            along = sigma_to - alpha_to * sigma_t / alpha_t
            return weighted_sum((alpha_to / alpha_t, x_t), *((along * weight, part) for weight, part in e))

        e_1 = denoise(x_t, t).eps                         # [B, C, H, W]
        history = (e_1, *state[:3])
        if self.warmup == "prk" and len(history) < 4:
            middle = (t + s) / 2
            e_2 = denoise(transfer(middle, (1, e_1)), middle).eps
            e_3 = denoise(transfer(middle, (1, e_2)), middle).eps
            e_4 = denoise(transfer(s, (1, e_3)), s).eps
            e = (1 / 6, e_1), (1 / 3, e_2), (1 / 3, e_3), (1 / 6, e_4)
        elif len(history) == 1:
            e = (1 / 2, e_1), (1 / 2, denoise(transfer(s, (1, e_1)), s).eps)
        else:
            e = tuple(zip(ADAMS_BASHFORTH[len(history)], history, strict=True))
        return transfer(s, *e), history
