"""A network whose bits depend on every state a checkpoint holds, and which ends its process when told; loaded as a plug-in by the tests of resuming."""

import os
import signal
import time
from dataclasses import dataclass

import torch
from torch import nn

import diffbench


@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Fragile(diffbench.Backbone):
    """Two convolutions with dropout between them, around a running mean."""

    dropout: float = 0.3

    @property
    def signal_width(self):
        return 1

    def build(self, io):
        return Net(io.channels, self.dropout)


class Net(nn.Module):
    def __init__(self, channels, dropout):
        super().__init__()
        self.enter, self.dropout, self.leave = nn.Conv2d(channels, 8, 3, padding=1), nn.Dropout(dropout), nn.Conv2d(8, channels, 3, padding=1)
        self.never = nn.Parameter(torch.ones(3))          # takes no part
        self.register_buffer("mean", torch.zeros(()))
        self.calls = 0

    def forward(self, x, c_noise, signals):
        self.calls += 1
        end(self.calls)
        if self.training and self.dropout.p > 0:
            self.mean.lerp_(x.detach().mean(), 0.1)
        return self.leave(self.dropout(torch.tanh(self.enter(x - self.mean)) * (1 + c_noise[:, None, None, None] / 1000)))


def end(call):
    """Does DIFFBENCH_TEST_END, '<rank>:<call>:<how>', when its turn has come."""
    rank, at, how = os.environ.get("DIFFBENCH_TEST_END", "0:0:").split(":")
    if int(at) != call or rank != os.environ.get("RANK", "0"):
        return
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "kill the worker":
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)
    if how == "raise":
        raise ArithmeticError("no more")
    if how == "refuse":
        x = torch.zeros(2)
        x.put_(torch.tensor([0]), x[:1])


def step(how, name):
    """Registers a scheduler whose step spoils its result."""
    def spoiled(self, denoise, schedule, x_t, t, s, state, noise):
        return how(denoise(x_t, t).x0), None
    content = {"__doc__": f"{name}.", "__annotations__": {"steps": int}, "steps": 2, "step": spoiled, "__module__": __name__}
    return diffbench.register(dataclass(frozen=True, kw_only=True)(type(name, (diffbench.Scheduler,), content)))


def stain(x):
    x[2:3] = float("nan")                                 # the third sample of a batch, where there is one
    return x


step(stain, "Staining")
step(lambda x: x[:, :, 1:], "Cropping")
step(lambda x: x.double(), "Widening")
step(lambda x: None, "Forgetting")
