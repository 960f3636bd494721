"""The network predicts the velocity of the process."""

from dataclasses import dataclass

from torch import Tensor

from diffbench import Level, Parameterization, Prediction, weighted_sum


@dataclass(frozen=True, kw_only=True)
class Velocity(Parameterization):
    """The network predicts the velocity dx_t/dt, as in flow matching.

    F = u_hat of u = alpha' x_0 + sigma' eps at fixed x_0 and eps; on `rectified_flow` u = eps - x_0.
    With D = alpha sigma' - sigma alpha': x0_hat = (sigma' x - sigma u_hat)/D, eps_hat = (alpha u_hat - alpha' x)/D. t
    runs from data to noise, so u points to the noise; the code of SiT and torchcfm has the opposite sign. alpha' and
    sigma' are per unit of our t.
    Source: Lipman et al. 2023, arXiv:2210.02747, eq. 15; for any alpha and sigma Ma et al. 2024, arXiv:2401.08740.
    """

    def why_not(self, cell):
        times = cell.spacing(cell.noise_schedule, cell.scheduler.steps)[:-1]
        _, alpha, sigma, d_alpha, d_sigma = cell.noise_schedule.level(times)
        d = alpha * d_sigma - sigma * d_alpha
        bad = times[~(d.isfinite() & (d > 0))]
        if len(bad):
            return (
                f"velocity divides by alpha sigma' - sigma alpha', which {cell.noise_schedule.component_name()} gives "
                f"as {float(d[times == bad[0]][0]):g} at t = {float(bad[0]):.3g}: its d_alpha or d_sigma is wrong "
                "there, as `diffbench check` shows"
            )
        return None

    def c_in(self, level: Level) -> float | Tensor:
        return (level.alpha**2 + level.sigma**2) ** -0.5

    def target(self, x_0: Tensor, eps: Tensor, level: Level) -> Tensor:
        return level.d_alpha * x_0 + level.d_sigma * eps

    def decode(self, out: Tensor, x_t: Tensor, level: Level) -> Prediction:
        _, alpha, sigma, d_alpha, d_sigma = level
        d = alpha * d_sigma - sigma * d_alpha
        return Prediction(x0=weighted_sum((d_sigma / d, x_t), (-sigma / d, out)),
                          eps=weighted_sum((alpha / d, out), (-d_alpha / d, x_t)))
