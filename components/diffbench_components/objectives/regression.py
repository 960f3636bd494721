"""What `mse`, `l1` and `huber` share: the weight over noise levels and the law of t."""

import math
from abc import abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Annotated, Literal

import torch
from annotated_types import Gt, Interval
from torch import Tensor

from diffbench import Level, Noised, NoiseSchedule, Objective, Parameterization


@dataclass(frozen=True, kw_only=True)
class Regression(Objective):
    """Mean over pixels of w(t) times a distance between the network's own output F and its target.

    `simple` is w = 1 on F itself. The others are functions of snr = alpha²/sigma² for the error of x0_hat, brought to F
    by c_out² (|x0_hat - x_0|² = c_out² |F - target|²); that is exact for the squared error, and kept as it is for the
    other distances. Where a network predicts x_0, weights that grow like snr without bound (snr, edm, sigmoid) leave
    the loss to the cleanest images of a batch; on a continuous schedule, whose t reaches 0, the mean of snr itself is
    infinite.

        snr       snr                                        the error of eps_hat, for any parameterization
        min_snr   min(snr, min_snr_gamma)                    Hang et al. 2023, arXiv:2303.09556
        p2        snr / (1 + snr)^p2_gamma                   Choi et al. 2022, arXiv:2204.00227, k = 1
        edm       snr + 1/sigma_data²                        Karras et al. 2022, arXiv:2206.00364, table 1; 1 on F of
        `edm`
        sigmoid   snr sigmoid(bias - log snr) (-d log snr/dt)/2    Kingma & Gao 2023, arXiv:2303.00848; Hoogeboom et al.
        2024, arXiv:2410.19324

    At a grid point of a discrete schedule, where training takes place, the rate of `sigmoid` is that of the interval
    below it: 27 to 63 % above that of the next one at the first two grid points of `linear` and `cosine`, within 1 % of
    it from t = 0.1 on.

    Laws of t, all put on the grid where the schedule has one: `uniform`; `low_discrepancy`, uniform with one offset for
    the whole batch (Kingma et al. 2021, arXiv:2107.00630); `logit_normal`, t = sigmoid(N(location, spread²)) (Esser et
    al. 2024, arXiv:2403.03206); `lognormal`, sigma/alpha = exp(N(location, spread²)), with -1.2 and 1.2 EDM's.
    """

    weighting: Literal["simple", "snr", "min_snr", "p2", "edm", "sigmoid"] = "simple"         # weight over noise levels
    min_snr_gamma: Annotated[float, Gt(0)] = 5.0                  # of min_snr: the cap
    p2_gamma: Annotated[float, Gt(0)] = 1.0                       # of p2: the exponent
    sigma_data: Annotated[float, Gt(0)] = 0.5                     # of edm: standard deviation of the data
    bias: float = -1.0                                            # of sigmoid: log snr at which the weight on eps is
                                                                  # one half
    law: Literal["uniform", "low_discrepancy", "logit_normal", "lognormal"] = "uniform"       # of the training times
    location: float = 0.0                                         # of logit_normal and lognormal: mean
    spread: Annotated[float, Interval(gt=0, le=10)] = 1.0         # of logit_normal and lognormal: standard deviation

    examples = tuple({"weighting": w} for w in ("simple", "snr", "min_snr", "p2", "edm", "sigmoid")) + (
        {"law": "low_discrepancy"}, {"law": "logit_normal"}, {"law": "lognormal", "location": -1.2, "spread": 1.2})

    def equal_to(self) -> Objective:
        """Options that the weighting and the law do not read are as if they were not given."""
        read = {"min_snr": {"min_snr_gamma"}, "p2": {"p2_gamma"}, "edm": {"sigma_data"}, "sigmoid": {"bias"}}.get(
            self.weighting, set())
        read |= {"location", "spread"} if self.law in ("logit_normal", "lognormal") else set()
        unread = {"min_snr_gamma", "p2_gamma", "sigma_data", "bias", "location", "spread"} - read
        return replace(self, **{f.name: f.default for f in fields(self) if f.name in unread})

    @abstractmethod
    def distance(self, difference: Tensor) -> Tensor:
        """Distance per pixel, same shape."""

    def times(self, u: Tensor, schedule: NoiseSchedule) -> Tensor:
        if self.law == "low_discrepancy":
            u = (u[..., :1] + torch.arange(u.shape[-1], dtype=u.dtype) / u.shape[-1]) % 1
        t = 1 - u                                                 # in (0, 1]
        if self.law in ("logit_normal", "lognormal"):
            drawn = self.location + self.spread * math.sqrt(2) * torch.erfinv((2 * t - 1).clamp(-1 + 1e-15, 1 - 1e-15))
            t = (drawn.sigmoid() if self.law == "logit_normal"
                 else schedule.t_of_nsr(drawn.exp().clamp(max=schedule.nsr(1.0))))
        return schedule.snapped(t.clamp(min=1e-9, max=1))         # [..., B]

    def loss(self, out: Tensor, noised: Noised, schedule: NoiseSchedule, parameterization: Parameterization) -> Tensor:
        x_0, eps, _, level = noised[:4]
        distance = self.distance(out - parameterization.target(x_0, eps, level))      # [B, C, H, W]
        return (self.weight(level, parameterization) * distance).flatten(1).mean(1)   # [B]

    def weight(self, level: Level, parameterization: Parameterization) -> Tensor | float:
        """w on the distance of F, shaped like level.alpha."""
        if self.weighting == "simple":
            return 1.0
        return self.weight_of_x0(level) * parameterization.c_out(level) ** 2

    def weight_of_x0(self, level: Level) -> Tensor:
        """w on the squared error of x0_hat, shaped like level.alpha."""
        _, alpha, sigma, d_alpha, d_sigma = level
        snr = alpha**2 / sigma**2
        if self.weighting == "snr":
            return snr
        if self.weighting == "min_snr":
            return snr.clamp(max=self.min_snr_gamma)
        if self.weighting == "p2":
            return snr / (1 + snr) ** self.p2_gamma
        if self.weighting == "edm":
            return snr + self.sigma_data**-2
        # snr times -d log snr/dt = 2 (alpha sigma' - sigma alpha')/(alpha sigma), with one alpha cancelled: finite at
        # alpha = 0.
        rate = alpha * (alpha * d_sigma - sigma * d_alpha) / sigma**3
        return rate * (self.bias - snr.log()).sigmoid()
