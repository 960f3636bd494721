"""Attention over a sequence [B, L, D], for the backbones of this folder. Heads are D/heads wide."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """softmax(q k^T / sqrt(D/heads)) v, with q, k, v from the sequence; tokens [B, M, token_width] add keys and values
    of their own.

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1; tokens as further keys and values: GLIDE, Nichol et al. 2021,
    arXiv:2112.10741.
    """

    def __init__(self, width: int, heads: int, token_width: int = 0):
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.token_kv = nn.Linear(token_width, 2 * width) if token_width else None

    def forward(self, h: Tensor, tokens: Tensor | None = None) -> Tensor:
        q, k, v = split(self.qkv(h), 3, self.heads)                                # [B, heads, L, D/heads] each
        if self.token_kv is not None:
            token_k, token_v = split(self.token_kv(tokens), 2, self.heads)         # [B, heads, M, D/heads] each
            k, v = torch.cat([k, token_k], dim=2), torch.cat([v, token_v], dim=2)
        return self.project(join(F.scaled_dot_product_attention(q, k, v)))         # [B, L, D]


class CrossAttention(nn.Module):
    """softmax(q k^T / sqrt(D/heads)) v, with q from the sequence, k and v from tokens [B, M, token_width].

    One token alone leaves nothing to choose: its softmax is 1 whatever q and k are. Source: Vaswani et al. 2017,
    section 3.2.3.
    """

    def __init__(self, width: int, heads: int, token_width: int):
        super().__init__()
        self.heads = heads
        self.q, self.kv, self.project = (nn.Linear(width, width), nn.Linear(token_width, 2 * width),
                                         nn.Linear(width, width))

    def forward(self, h: Tensor, tokens: Tensor) -> Tensor:
        (q,) = split(self.q(h), 1, self.heads)                                     # [B, heads, L, D/heads]
        k, v = split(self.kv(tokens), 2, self.heads)                               # [B, heads, M, D/heads] each
        return self.project(join(F.scaled_dot_product_attention(q, k, v)))         # [B, L, D]


class LinearAttention(nn.Module):
    """rho_q(q) (rho_k(k)^T v): rho_q is softmax over the features of a head, rho_k over the places. Its cost grows with
    L, not with L².

    Called like the others; it takes no tokens. Source: Shen et al. 2021, arXiv:1812.01243, with their softmax
    normalisation.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, h: Tensor, tokens: Tensor | None = None) -> Tensor:
        q, k, v = split(self.qkv(h), 3, self.heads)                                # [B, heads, L, D/heads] each
        context = k.softmax(dim=2).transpose(2, 3).to(v.dtype) @ v                 # [B, heads, D/heads, D/heads]
        return self.project(join(q.softmax(dim=3).to(v.dtype) @ context))          # [B, L, D]


def split(h: Tensor, parts: int, heads: int) -> tuple[Tensor, ...]:
    """[B, L, parts D] -> parts times [B, heads, L, D/heads]."""
    return h.unflatten(2, (parts, heads, -1)).permute(2, 0, 3, 1, 4).unbind()


def join(h: Tensor) -> Tensor:
    """[B, heads, L, D/heads] -> [B, L, D]."""
    return h.transpose(1, 2).flatten(2)
