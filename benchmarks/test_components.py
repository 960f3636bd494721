"""One step of every registered scheduler and one forward pass of every registered backbone; a stranger's are timed with the built-ins.

    pytest benchmarks                                    # times
    pytest benchmarks --benchmark-autosave               # and keeps them for --benchmark-compare on the same machine
"""

from dataclasses import replace

import pytest
import torch

import diffbench
from diffbench import Io, Prediction, Signals, noise

REGISTRY = diffbench.load_registry()
SHAPES = [(64, 1, 8, 8), (16, 3, 32, 32)]


def defaults(kind):
    """Every registered component of a kind that has a default for each option."""
    refs = [r for r in REGISTRY.refs(kind) if "required" not in dict(r.summary().options).values()]
    return [pytest.param(REGISTRY.create(kind, r.full_name), id=r.full_name) for r in refs]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("scheduler", defaults("scheduler"))
def test_scheduler_step(benchmark, scheduler, shape):
    """The sixth step of ten, past any warm-up, with a denoiser that costs nothing: what is left is the scheduler."""
    schedule = REGISTRY.default("noise_schedule")
    scheduler = replace(scheduler, steps=10)
    times = REGISTRY.default("spacing")(schedule, 10).tolist()
    answer = Prediction(x0=torch.zeros(shape), eps=torch.ones(shape))
    drawn = noise.normal(range(shape[0]), shape[1:], 0)
    x, state = drawn, scheduler.init()

    def step(x, state, i):
        return scheduler.step(lambda x_t, t: answer, schedule, x, times[i], times[i + 1], state, lambda draw=0: drawn)
    for i in range(5):
        x, state = step(x, state, i)
    x_s, _ = benchmark(step, x, state, 5)
    assert x_s.shape == shape and x_s.isfinite().all()


@pytest.mark.parametrize("backbone", defaults("backbone"))
def test_backbone_forward(benchmark, backbone):
    """Four 32x32 colour images through the default configuration."""
    module = backbone.build(Io(channels=3, height=32, width=32, signal_width=backbone.signal_width, ports=backbone.ports & {"vector"})).eval()
    x, c_noise = noise.normal(range(4), (3, 32, 32), 0), torch.full((4,), 500.0)
    signals = Signals(vector=torch.zeros(4, backbone.signal_width)) if "vector" in backbone.ports else Signals()
    with torch.no_grad():
        out = benchmark(module, x, c_noise, signals)
    assert out.shape == x.shape
