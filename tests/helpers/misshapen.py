"""Components whose networks and samples are no images, each in one way, loaded with --plugin by the tests of bad images."""

from dataclasses import dataclass

import torch
from torch import nn

import diffbench


class Spoilt(nn.Module):
    """A network of one weight whose output goes through `how`."""

    def __init__(self, how):
        super().__init__()
        self.scale, self.how = nn.Parameter(torch.ones(())), how

    def forward(self, x, c_noise, signals):
        return self.how(self.scale * x)


def network(how, name):
    """Registers a backbone whose network gives `how` of what it should."""
    def build(self, io):
        return Spoilt(how)
    return diffbench.register(dataclass(frozen=True, kw_only=True)(
        type(name, (diffbench.Backbone,), {"__doc__": f"A network that is {name}.", "build": build, "signal_width": 8, "__module__": __name__})))


network(lambda out: out, "Upright")
network(lambda out: out[:, :1], "OneChannel")
network(lambda out: out[:, :, 1:], "Cropped")
network(lambda out: out[:1], "OneImage")
network(lambda out: (out,), "Tuple")
network(lambda out: out.to(torch.complex64), "Complex")
network(lambda out: out / 0, "NotFinite")


def samples(how, name):
    """Registers a scheduler whose every step gives `how` of x_t."""
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        denoise(x_t, t)
        return how(x_t), None
    return diffbench.register(dataclass(frozen=True, kw_only=True)(
        type(name, (diffbench.Scheduler,), {"__doc__": f"Gives samples that are {name}.", "__annotations__": {"steps": int}, "steps": 2, "step": step,
                                            "__module__": __name__})))


def one_infinite(x):
    x = x.clone()
    x[0, 0, 0, 0] = float("inf")
    return x


def shades(x):
    """Every image one flat colour, and no two of a batch the same."""
    return torch.linspace(-0.9, 0.9, len(x)).view(-1, 1, 1, 1).expand_as(x).contiguous()


def alike(x):
    """Always the same picture."""
    return torch.linspace(-1, 1, x[0].numel()).view(1, *x.shape[1:]).expand_as(x).contiguous()


samples(one_infinite, "Infinite")
samples(lambda x: x * 1e9, "Enormous")
samples(lambda x: x.clamp(-1, 1) * (1 + 1e-6), "Rounded")
samples(shades, "Flat")
samples(alike, "Collapsed")
samples(lambda x: x[:, :1], "Grey")
samples(lambda x: x.long(), "Whole")
samples(lambda x: None, "Nothing")
