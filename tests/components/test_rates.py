"""Rates of noise schedules: the conformance suite finds wrong ones, and what diverges by them names the schedule."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

import diffbench
from diffbench.contracts.settings import Sample
from diffbench.diffusion.denoiser import not_finite
from diffbench.stages import drawing, training_loop
from diffbench.stages.checkpoints import Pieces
from diffbench.testing.checks.formulas import RATES
from diffbench.testing.stand_ins import all_examples, cell_with
from tests.components.test_wrong_components import failures
from tests.conftest import REGISTRY

CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class Laplace(diffbench.NoiseSchedule):
    """log SNR by the quantile of a Laplace law, its rates by automatic differentiation of `sign` and `abs`: not a
    number at both ends.
    """

    def alpha(self, t):
        return torch.sigmoid(self._log_snr(t)).sqrt()

    def sigma(self, t):
        return torch.sigmoid(-self._log_snr(t)).sqrt()

    def _log_snr(self, t):
        return -torch.sign(0.5 - t) * torch.log1p(-2 * (t - 0.5).abs())

    def t_of_nsr(self, nsr):
        log_snr = -2 * nsr.log()
        return 0.5 + 0.5 * torch.sign(log_snr) * torch.expm1(-log_snr.abs())


@dataclass(frozen=True, kw_only=True)
class OneWrongRate(diffbench.NoiseSchedule):
    """A quarter circle that is not quite one, with one rate that is wrong at one time."""
    name: str = "f"
    at_time: float = 0.5
    wrong: str = "0"                  # options are finite, so it is a text

    def alpha(self, t):
        return torch.cos(1.5 * t.double())

    def sigma(self, t):
        return torch.sin(1.5 * t.double())

    def t_of_nsr(self, nsr):
        return torch.atan(nsr) / 1.5

    def _of(self, name, t):
        value = getattr(super(), name)(t)
        return torch.where(t == self.at_time, float(self.wrong), value) if name == self.name else value

    def d_alpha(self, t):
        return self._of("d_alpha", t)

    def d_sigma(self, t):
        return self._of("d_sigma", t)

    def f(self, t):
        return self._of("f", t)

    def g2(self, t):
        return self._of("g2", t)


def test_rates_that_are_not_numbers_are_found():
    (found,) = failures(Laplace()).items()
    assert (
        found[0] == "has rates that are the derivatives" and "d_alpha at t = 0 is nan, and differences give" in found[1]
    )
    assert "write d_alpha in closed form" in found[1]


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf, 0.0, 7.0])
@pytest.mark.parametrize("at_time", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", RATES)
def test_one_wrong_rate_at_one_time_is_found(name, at_time, wrong):
    """Not a number, infinite, or zero where differences say otherwise; and every rate is right where nothing is
    changed.
    """
    assert not failures(OneWrongRate(name="none"))
    is_zero = (name, at_time) in (("d_alpha", 0.0), ("f", 0.0), ("g2", 0.0))
    if wrong == 0.0 and is_zero:
        assert not failures(OneWrongRate(name=name, at_time=at_time, wrong=str(wrong)))
    else:
        assert (
            f"{name} at t = {at_time:g} is {wrong:.6g}"
            in failures(OneWrongRate(name=name, at_time=at_time, wrong=str(wrong)))[
                "has rates that are the derivatives"
            ]
        )


def test_velocity_is_refused_where_rates_are_not_numbers_or_zero():
    velocity = REGISTRY.create("parameterization", "velocity")
    spoilt = cell_with(
        REGISTRY,
        noise_schedule=Laplace(),
        parameterization=velocity,
        scheduler=REGISTRY.create("scheduler", "ddim", steps=2),
    )
    assert "which laplace gives as nan at t = 1: its d_alpha or d_sigma is wrong there" in velocity.why_not(spoilt)
    started = replace(
        spoilt,
        spacing=REGISTRY.create("spacing", "uniform", start=0.5),
        scheduler=REGISTRY.create("scheduler", "ddim", steps=1),
    )
    assert "which laplace gives as 0 at t = 0.5" in velocity.why_not(started).replace("-0 ", "0 ")
    for schedule in all_examples(REGISTRY, "noise_schedule"):
        assert velocity.why_not(replace(spoilt, noise_schedule=schedule)) is None


def test_samples_that_are_not_finite_name_the_schedule_whose_rates_are_not(tmp_path):
    """The reason of a diverged row, where the rates are what is wrong; a divergence of the network alone names nothing
    else.
    """
    cell = cell_with(REGISTRY, noise_schedule=Laplace(), parameterization=REGISTRY.create("parameterization", "v"),
                     scheduler=REGISTRY.create("scheduler", "ddim", steps=2), sample=Sample(count=2, clip=False),
                     backbone=REGISTRY.create("backbone", "dit", patch=4, width=16, depth=1, heads=2))
    model, pieces = (
        training_loop.build(cell, CPU).eval(),
        Pieces(folder=tmp_path / "pieces", aside=tmp_path / "aside", belongs={}),
    )
    for weight in model.parameters():
        weight.data.fill_(math.nan)
    with pytest.raises(
        diffbench.Diverged,
        match="2 of 2 samples are not finite; the first is sample 0; d_alpha of noise_schedule laplace is not finite at t = 1",
    ):
        drawing.blocks(cell, model, drawing.helpers_for(cell, CPU), CPU, pieces, 2, diffbench.silent)
    finite = replace(cell, noise_schedule=REGISTRY.create("noise_schedule", "linear"))
    assert not_finite(finite, torch.linspace(0.1, 1, 10)) == ""
    with pytest.raises(diffbench.Diverged, match="the first is sample 0$"):
        drawing.blocks(finite, model, drawing.helpers_for(finite, CPU), CPU, pieces, 2, diffbench.silent)
