"""A package with another component for each seam, small enough that what a cell makes of it is known to the last bit. Installed by tests/stages/test_seams.py."""

from dataclasses import dataclass

import torch
from torch import nn

import diffbench
from diffbench import Encoded, Io, Noised, Signals, Tokens


@dataclass(frozen=True, kw_only=True)
class Half(diffbench.Autoencoder):
    """Latents are half of the data: no bit is lost."""

    @property
    def bounds(self):
        return -0.5, 0.5

    def latent_shape(self, shape):
        return shape

    def module(self, shape):
        return _Half()


class _Half(nn.Module):
    def encode(self, x):
        return Encoded(0.5 * x)

    def decode(self, z):
        return 2 * z


@dataclass(frozen=True, kw_only=True)
class Pairs(diffbench.Autoencoder):
    """Two latents for each pair of pixels of a line, spread by `std`, without bounds."""

    std: float = 0.0  # of latents around their mean

    def latent_shape(self, shape):
        channels, height, width = shape
        return 2 * channels, height, width // 2

    def module(self, shape):
        return _Pairs(self.std)


class _Pairs(nn.Module):
    def __init__(self, std):
        super().__init__()
        self.std = std

    def encode(self, x):
        mean = torch.cat([x[..., ::2], x[..., 1::2]], dim=1)
        return Encoded(mean, torch.full_like(mean, self.std))

    def decode(self, z):
        return torch.stack(z.chunk(2, dim=1), dim=-1).flatten(-2)


@dataclass(frozen=True, kw_only=True)
class Shifted(diffbench.Process):
    """The noise is one number, everywhere."""

    shift: float = 0.125  # the number

    def noised(self, x_0, level, noise):
        eps = torch.full_like(noise(), self.shift)
        return Noised(x_0, eps, level.alpha * x_0 + level.sigma * eps, level)

    def prior(self, noise, level):
        return torch.full_like(noise, self.shift)

    def step_noise(self, noise):
        return noise

    def network_io(self, io: Io):
        return io

    def decode(self, out, x_t, level, parameterization):
        return parameterization.decode(out, x_t, level)

    def with_x0(self, prediction, x0, x_t, level):
        return prediction._replace(x0=x0)


@dataclass(frozen=True, kw_only=True)
class BiasOnly(diffbench.Method):
    """Trains the bias of the last layer by a quarter of the loss."""

    def prepare(self, model):
        return [model.network.last.bias]

    def loss(self, network, batch, recipe):
        return recipe.objective.loss(network(batch), batch.noised, recipe.noise_schedule, recipe.parameterization) / 4

    def finish(self, model, average):
        return model.state_dict() | {"network.last.bias": average[0]}


@dataclass(frozen=True, kw_only=True)
class Twice(diffbench.Pipeline):
    """The mean of two runs."""

    @property
    def runs(self):
        return 2

    def run(self, sampler, earlier, index):
        assert earlier == {}
        return (sampler() + sampler(run=1)) / 2


@dataclass(frozen=True, kw_only=True)
class Letters(diffbench.TextEncoder):
    """Tokens are letters; the pooled vector is the number of the first one, from '0' on, in sixteenths."""

    def tokenize(self, texts):
        length = max(map(len, texts), default=0)
        ids = torch.tensor([[*map(ord, text), *[0] * (length - len(text))] for text in texts])
        return Tokens(ids, ids > 0)

    def module(self):
        return _Letters()


class _Letters(nn.Module):
    def forward(self, ids, visible):
        states = ((ids - ord("0")) * visible)[:, :, None] / 16
        return states, states[:, 0]


@dataclass(frozen=True, kw_only=True)
class FirstLetter(diffbench.Conditioning):
    """Tells the network the pooled vector."""

    @property
    def ports(self):
        return frozenset({"maps"})

    def map_channels(self, dataset):
        return 1

    def build(self, io):
        return _AsMap(io.height, io.width)


class _AsMap(nn.Module):
    def __init__(self, *size):
        super().__init__()
        self.size = size

    def forward(self, cond, drop):
        assert cond.tokens.shape == cond.visible.shape == cond.states.shape[:2]
        return Signals(maps=cond.pooled[:, :, None, None].expand(-1, -1, *self.size))


@dataclass(frozen=True, kw_only=True)
class Echo(diffbench.Backbone):
    """A network whose output is the map that it is told."""

    ports = frozenset({"maps"})
    signal_width = 1

    def build(self, io):
        return _Echo()


class _Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, x, c_noise, signals):
        return self.factor * signals.maps.expand_as(x)
