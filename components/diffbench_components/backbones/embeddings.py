"""What the backbones of this folder share: the embedding of the noise level."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def sinusoids(c_noise: Tensor, width: int) -> Tensor:
    """(cos(w_0 c), ..., cos(w_H-1 c), sin(w_0 c), ..., sin(w_H-1 c)), w_i = 10000^(-i/H), H = width/2.

    c_noise: [B], any real, such as 1000 t in [0, 1000] or EDM's log(sigma)/4 in [-2, 2]; width: even. Returns float32
    [B, width]. Cosines come first and H stands in the exponent, as in guided-diffusion and DiT; DDPM has sines first
    and H - 1.
    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    half = width // 2
    # float32 also under autocast: bfloat16 cannot tell level 999 from 1000.
    w = torch.exp(-math.log(10000) / half * torch.arange(half, device=c_noise.device, dtype=torch.float32))
    phase = c_noise.float()[:, None] * w                                        # [B, H]
    return torch.cat([phase.cos(), phase.sin()], dim=1)                         # [B, 2 H]


class TimeEmbedding(nn.Module):
    """Two linear layers on the sinusoids of c_noise: [B] -> [B, width]."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.features = features
        self.first, self.second = nn.Linear(features, width), nn.Linear(width, width)

    def forward(self, c_noise: Tensor) -> Tensor:
        wave = sinusoids(c_noise, self.features).to(self.first.weight.dtype)    # [B, features]
        return self.second(F.silu(self.first(wave)))                            # [B, width]
