"""Schedulers that fail in every way a worker can, loaded with --plugin by the tests of the engine."""

import ctypes
import os
import resource
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

import diffbench


def fails(how, name):
    """Registers a scheduler that does `how` in its first step."""
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        how(x_t)
        return denoise(x_t, t).x0, None
    cls = type(name, (diffbench.Scheduler,), {"__doc__": f"Fails by {name}.", "__annotations__": {"steps": int}, "steps": 2, "step": step, "__module__": __name__})
    return diffbench.register(dataclass(frozen=True, kw_only=True)(cls))


def raise_(x):
    raise RuntimeError("the sky fell [/red]")


def once(x):
    flag = Path(os.environ["DIFFBENCH_TEST_FLAG"])
    if not flag.exists():
        flag.write_text("")
        raise RuntimeError("only the first time")


def felling(x):
    """Kills the process it was forked from, and with it itself: on a busy machine the kernel may take a while for that."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(600)


fails(raise_, "Raising")
fails(lambda x: ctypes.string_at(0), "Crashing")
fails(lambda x: os._exit(0), "Leaving")
fails(felling, "Felling")
fails(lambda x: x.fill_(float("nan")), "Spoiling")
fails(lambda x: time.sleep(600), "Hanging")
fails(once, "Once")


def greedy(x):
    """Needs more memory than there is for batches of more than two images."""
    if len(x) > 2:
        raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate room for {len(x)} images")


fails(greedy, "Greedy")


def leaking(x):
    """Takes memory until there is no more."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    while True:
        KEPT.append(torch.ones(1 << 28))


def spoiling_one(x):
    """One sample in the middle, as a numerical accident would."""
    x[3 % len(x)] = float("nan")


KEPT = []
fails(leaking, "Leaking")
fails(lambda x: os.kill(os.getpid(), signal.SIGKILL), "Killing")
fails(lambda x: sys.exit(0), "Exiting")
fails(spoiling_one, "SpoilingOne")


def gives(what, name):
    """Registers a scheduler whose every step gives `what`."""
    def step(self, denoise, schedule, x_t, t, s, state, noise):
        denoise(x_t, t)
        return what(x_t), None
    cls = type(name, (diffbench.Scheduler,), {"__doc__": f"Gives what {name} says.", "__annotations__": {"steps": int}, "steps": 2, "step": step, "__module__": __name__})
    return diffbench.register(dataclass(frozen=True, kw_only=True)(cls))


gives(lambda x: x[:, :, 1:], "WrongShape")
gives(lambda x: x.double(), "WrongDtype")
gives(lambda x: torch.full_like(x, 0.25), "Constant")
gives(lambda x: torch.full_like(x, 1.5), "TooBright")
