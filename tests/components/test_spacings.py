"""Spacings where they coincide with what others publish; that each decreases to the clean level is in `test_conformance.py`."""

import math

import pytest
import torch

from diffbench import OptionError
from diffbench.contracts.refusals import first_refusal
from diffbench.testing.oracles import GaussianData
from diffbench.testing.stand_ins import OneCall, cell_with
from tests.conftest import REGISTRY

LINEAR = REGISTRY.create("noise_schedule", "linear")


def create(name, **options):
    return REGISTRY.create("spacing", name, **options)


def cell_of(name, options, schedule, steps):
    schedule, more = (schedule, {}) if isinstance(schedule, str) else schedule
    return cell_with(
        REGISTRY,
        spacing=create(name, **options),
        noise_schedule=REGISTRY.create("noise_schedule", schedule, **more),
        parameterization=REGISTRY.create("parameterization", "v"),
        scheduler=OneCall(steps=steps),
    )


def test_leading_and_trailing_visit_the_published_indices():
    """0-based indices as in diffusers for ten steps of 1000: leading 900, 800, ..., 0; trailing 999, 899, ..., 99."""
    leading = create("leading")(LINEAR, 10)[:-1] * 1000 - 1
    trailing = create("trailing")(LINEAR, 10)[:-1] * 1000 - 1
    assert leading.round().tolist() == list(range(900, -1, -100))
    assert trailing.round().tolist() == list(range(999, 0, -100))


def test_uniform_can_start_below_the_noisiest_level():
    assert create("uniform", start=0.9)(None, 3).tolist() == pytest.approx([0.9, 0.6, 0.3, 0.0])


def test_quadratic_is_equal_in_the_root():
    times = create("quadratic")(LINEAR, 7)
    assert times[0] == pytest.approx(0.8) and times.sqrt().diff().std() < 1e-12


def test_levels_stay_inside_what_was_trained():
    """On linear the first grid point has sigma/alpha = 0.01 and the last 157."""
    for name in ("karras", "log_snr"):
        times = create(name)(LINEAR, 10)
        assert LINEAR.nsr(float(times[0])) == pytest.approx(80.0) and float(times[-2]) == pytest.approx(0.001)
        wide = create(name, nsr_max=1e6)(LINEAR, 10)
        assert wide[0] == 1.0
        flow = REGISTRY.create("noise_schedule", "rectified_flow")
        assert create(name)(flow, 10)[0] == pytest.approx(80 / 81)


def test_log_snr_is_equal_in_the_logarithm():
    times = create("log_snr")(LINEAR, 12)
    logs = torch.tensor([math.log(LINEAR.nsr(t)) for t in times[:-1].tolist()])
    assert logs.diff().std() < 1e-6


@pytest.mark.parametrize(("schedule", "options"), [
    ("vp", {"beta_min": 0.12, "beta_max": 10.1}), ("constant", {"beta": 0.0019}), ("linear", {"timesteps": 500, "beta_end": 0.0054})])
@pytest.mark.parametrize("name", ["karras", "log_snr"])
def test_rounding_never_leaves_the_schedule(name, schedule, options):
    made = REGISTRY.create("noise_schedule", schedule, **options)
    times = create(name)(made, 10)
    assert times[0] <= 1 and made.time_of(made.nsr(1.0)) <= 1 and (times.diff() < 0).all()


@pytest.mark.parametrize(("name", "options", "schedule", "steps", "said"), [
    ("karras", {"nsr_min": 0.001, "nsr_max": 0.005}, "linear", 10, "karras spacing has no levels between sigma/alpha 0.001 and 0.005 on linear, whose levels reach from 0.01 to 157"),
    ("log_snr", {"nsr_min": 90.0, "nsr_max": 200.0}, "edm", 10, "no levels between sigma/alpha 90 and 200 on edm"),
    ("leading", {}, "vp", 10, "strides over grid points, and vp is continuous"),
    ("leading", {}, "linear", 1001, "leading spacing cannot visit 1001 of 1000 grid points"),
])
def test_grids_that_make_no_sense_have_a_reason(name, options, schedule, steps, said):
    cell = cell_with(REGISTRY, spacing=create(name, **options), noise_schedule=REGISTRY.create("noise_schedule", schedule), scheduler=OneCall(steps=steps))
    assert said in cell.spacing.why_not(cell)


@pytest.mark.parametrize(("name", "options", "schedule", "steps"), [
    ("leading", {}, "linear", 1), ("leading", {}, "cosine", 334), ("leading", {}, "cosine", 251),
    ("leading", {}, "cosine", 501), ("quadratic", {}, "exponential", 20), ("uniform", {"start": 0.5}, "cosine", 20),
    ("karras", {"nsr_max": 2.0}, "edm", 18), ("trailing", {}, ("linear", {"beta_end": 0.001}), 20)])
def test_a_grid_that_starts_far_from_pure_noise_is_refused_by_the_signal_that_is_left_there(
    name, options, schedule, steps
):
    cell = cell_of(name, options, schedule, steps)
    assert cell.spacing.why_not(cell) is None
    assert f"{name} spacing with {steps} steps starts at t = " in first_refusal(
        cell
    ) and "far from pure noise on" in first_refusal(cell)


@pytest.mark.parametrize(
    ("name", "options", "schedule", "steps"),
    [
        ("leading", {}, "linear", 600),
        ("leading", {}, "linear", 334),
        ("leading", {}, "cosine", 250),
        ("leading", {}, "cosine", 1000),
        ("quadratic", {}, "cosine", 20),
        ("quadratic", {"start": 1.0}, "exponential", 20),
        ("uniform", {}, "rectified_flow", 20),
    ],
)
def test_a_grid_that_starts_with_little_signal_brings_gaussian_data_out_as_they_are(name, options, schedule, steps):
    """Of the mean less than 0.05 is lost, of the standard deviation less than 4 %."""
    cell = cell_of(name, options, schedule, steps)
    assert first_refusal(cell) is None
    data, first = (
        GaussianData(schedule=cell.noise_schedule, std=0.5, mean=0.3),
        float(cell.spacing(cell.noise_schedule, steps)[0]),
    )
    mean, one = data.flow(0.0, first, 0.0), data.flow(1.0, first, 0.0)  # the probability flow itself, from noise alone
    assert (
        abs(mean - 0.3) < 0.05 and abs((one - mean) * math.hypot(*cell.noise_schedule.scales(first)) / 0.5 - 1) < 0.04
    )


@pytest.mark.parametrize("name", ["karras", "log_snr"])
def test_nonsense_is_refused(name):
    with pytest.raises(OptionError, match="nsr_max must be above nsr_min, got 0.1 and 0.5"):
        create(name, nsr_min=0.5, nsr_max=0.1)
    with pytest.raises(OptionError, match="rho must be a number >= 1, got 0.5"):
        create("karras", rho=0.5)
