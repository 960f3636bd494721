"""The conformance suite finds what is wrong: components with one mistake each, and the check that says so."""

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

import diffbench
from diffbench import Signals
from diffbench.testing.checks import BY_KIND
from diffbench.testing.conformance import Check, outcome
from tests.conftest import REGISTRY


def failures(component):
    """What the suite says of a component that is wrong."""
    return {statement: result.detail for statement, run in BY_KIND[component.kind](REGISTRY, component)
            if (result := outcome(Check("", statement, run))).status == "failed"}


def moved(x_t, x0, eps, schedule, s):
    alpha, sigma = schedule.scales(s)
    return alpha * x0 + sigma * eps


@dataclass(frozen=True, kw_only=True)
class ClaimsTooMuch(diffbench.Scheduler):
    steps: int = 10
    order: ClassVar[int] = 2

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        return moved(x_t, x0, eps, schedule, s), None


@dataclass(frozen=True, kw_only=True)
class WrongSign(diffbench.Scheduler):
    steps: int = 10
    is_stochastic = True

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        if s == 0:
            return x0, None
        f, g2 = schedule.rates(t)
        h, sigma = t - s, schedule.at(t).sigma
        return (1 - h * f) * x_t + (h * g2 / sigma) * eps + math.sqrt(g2 * h) * noise(), None


@dataclass(frozen=True, kw_only=True)
class NoisyEnd(diffbench.Scheduler):
    steps: int = 10
    is_stochastic = True

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        q = diffbench.posterior(*schedule.scales(t), *schedule.scales(s))
        return q.of_x * x_t + q.of_x0 * denoise(x_t, t).x0 + math.sqrt(q.large) * noise(), None


@dataclass(frozen=True, kw_only=True)
class FixedLengthSteps(diffbench.Scheduler):
    """Moves by 1/N whatever the grid, as scripts do."""
    steps: int = 10

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        return moved(x_t, x0, eps, schedule, max(0.0, t - 1 / self.steps)), None


@dataclass(frozen=True, kw_only=True)
class LooksAtTheBatch(diffbench.Scheduler):
    steps: int = 10

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        return moved(x_t, x0 * (1 + 0.01 * x0.mean()), eps, schedule, s), None


@dataclass(frozen=True, kw_only=True)
class Synchronises(diffbench.Scheduler):
    steps: int = 10

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        if float(x0.abs().max()) > 100:
            x0 = x0 / 2
        return moved(x_t, x0, eps, schedule, s), None


@dataclass(frozen=True, kw_only=True)
class HidesNoise(diffbench.Scheduler):
    steps: int = 10

    def nfe(self, steps):
        return steps + 1

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        return moved(x_t, x0, eps, schedule, s) + (0 if s == 0 else 1e-9 * noise() + 1e-9 * noise()), None


@dataclass(frozen=True, kw_only=True)
class ManyEvaluations(diffbench.Scheduler):
    """Asks the network twenty times in a step, and draws ten times; or, `is_wasteful`, computes with tensors what are
    floats.
    """
    steps: int = 10
    is_stochastic = True
    is_wasteful: bool = False

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        terms = [(1 / 20, denoise(x_t, t).x0) for _ in range(20)]
        if self.is_wasteful:
            terms = [(scale, x.clone().mul(1.0).add(0.0).mul(1.0)) for scale, x in terms]
        return diffbench.weighted_sum(*terms, *(((1e-3 if s > 0 else 0.0), noise(i)) for i in range(10) if s > 0)), None


def test_a_step_may_make_any_number_of_evaluations_and_draws():
    (run,) = (
        run
        for statement, run in BY_KIND["scheduler"](REGISTRY, ManyEvaluations())
        if "operations per term" in statement
    )
    assert outcome(Check("", "", run)).measured == "30 operations for 30 terms"
    (run,) = (
        run
        for statement, run in BY_KIND["scheduler"](REGISTRY, ManyEvaluations(is_wasteful=True))
        if "operations per term" in statement
    )
    assert "for 30 terms (tensors that the step reads)" in outcome(Check("", "", run)).detail


@dataclass(frozen=True, kw_only=True)
class Brightness(diffbench.SampleMetric):
    """Distance of the mean grey level and its spread: looks at pixels alone."""

    def measure(self, generated, real):
        ours, theirs = generated.images.double(), real.reference.images.double()
        return {"": float((ours.mean() - theirs.mean()).abs() + (ours.std() - theirs.std()).abs())}


def test_a_metric_of_pixels_is_shown_other_pixels():
    assert failures(Brightness()) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("scheduler", "found"), [
    (ClaimsTooMuch(), "converges at order 2 on linear, Gaussian data"),
    (WrongSign(), "converges at order 1 on linear, Gaussian data"),
    (NoisyEnd(), "ends clean on linear with trailing spacing"),
    (FixedLengthSteps(), "converges at order 1 on linear, mixture data"),
    (LooksAtTheBatch(), "gives an image that does not depend on its batch"),
    (Synchronises(), "never waits for the device"),
    (HidesNoise(), "asks for noise if and only if it says so"),
    (HidesNoise(), "counts the evaluations it claims"),
], ids=lambda value: getattr(value, "component_name", lambda: "")())
def test_a_wrong_scheduler_is_found(scheduler, found):
    statements = [(s, run) for s, run in BY_KIND["scheduler"](REGISTRY, scheduler) if s == found]
    assert [outcome(Check("", s, run)).status for s, run in statements] == ["failed"]


@dataclass(frozen=True, kw_only=True)
class WrongInverse(diffbench.NoiseSchedule):
    """A straight flow whose inverse and rate are slightly off, and which has noise at t = 0."""

    def alpha(self, t):
        return 1 - t.double()

    def sigma(self, t):
        return 0.01 + 0.99 * t.double()

    def d_sigma(self, t):
        return torch.full_like(t, 0.98, dtype=torch.float64)

    def t_of_nsr(self, nsr):
        return nsr / (1 + nsr)


def test_a_wrong_schedule_is_found():
    assert set(failures(WrongInverse())) == {"starts clean", "has t_of_nsr as its inverse, to 1e-10", "has rates that are the derivatives"}


@dataclass(frozen=True, kw_only=True)
class ForgetsSkip(diffbench.Parameterization):
    """Decodes x0 and eps from different formulas, and sees unscaled inputs."""

    def c_in(self, level):
        return 1.0

    def target(self, x_0, eps, level):
        return eps

    def decode(self, out, x_t, level):
        return diffbench.Prediction(x0=x_t - level.sigma * out, eps=out)


def test_a_wrong_parameterization_is_found():
    assert {"decodes its own target to x_0 and eps", "predicts x_0 and eps that lie on x_t, for any output",
            "gives the network inputs of about unit variance"} <= set(failures(ForgetsSkip()))


@dataclass(frozen=True, kw_only=True)
class Leaks(diffbench.Conditioning):
    """Tells the label even where it is withheld, and names a socket that it does not fill."""
    ports = frozenset({"vector", "tokens"})

    def build(self, io):
        return _Leaks(io)


class _Leaks(nn.Module):
    def __init__(self, io):
        super().__init__()
        self.table = nn.Embedding(io.classes, io.signal_width)

    def forward(self, cond, drop):
        return Signals(vector=self.table(torch.zeros(len(drop), dtype=torch.int64) if cond is None else cond.label))


def test_a_wrong_conditioning_is_found():
    found = failures(Leaks())
    assert "fills exactly the sockets it names, labels" in found and "has one null condition, labels" in found


@dataclass(frozen=True, kw_only=True)
class Backwards(diffbench.Spacing):
    def __call__(self, schedule, steps):
        return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


def test_a_wrong_spacing_is_found():
    assert len(failures(Backwards())) == len(list(BY_KIND["spacing"](REGISTRY, Backwards())))


@dataclass(frozen=True, kw_only=True)
class MeanOfTheBatch(diffbench.Objective):
    def times(self, u, schedule):
        return u.float()

    def loss(self, out, noised, schedule, parameterization):
        difference = out - parameterization.target(noised.x_0, noised.eps, noised.level)
        return difference.square().mean().expand(len(out)) + torch.zeros(len(out))


def test_a_wrong_objective_is_found():
    found = failures(MeanOfTheBatch())
    assert "times are torch.float32" in found["draws times in (0, 1] of linear"]
    assert "depends on another's" in found["has one finite loss per sample, least at the truth, on linear"]


@dataclass(frozen=True, kw_only=True)
class LikesWrongDenoisers(diffbench.DenoiserMetric):
    """Draws from the global generator, calls distance from the truth good, and has no number without a suffix where images are many."""

    def measure(self, model, progress=diffbench.silent):
        x_t = torch.randn(len(model.held_out.images), 1, 8, 8)
        mean = float(model.denoise(torch.arange(len(x_t)))(x_t, 0.5).x0.mean())
        return {"" if len(x_t) < 40 else "_mean": -mean}


def test_a_wrong_metric_of_denoisers_is_found():
    found = failures(LikesWrongDenoisers())
    worse = [said for statement, said in found.items() if statement.startswith("finds a wrong denoiser worse than the right one on ")]
    assert len(worse) == 4 and all("the right denoiser has" in said for said in worse), "discrete or continuous, with or without zero terminal SNR"
    assert "twice the same model" in found["is a function of the model and its seed"]
    assert "the main one has no suffix" in found["gives finite numbers of as many images as an interval takes"]
