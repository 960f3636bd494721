"""What a step of a sampler costs, in operators, and that the sums it is made of are right."""
import numpy
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import diffbench
from diffbench import Prediction, weighted_sum
from diffbench.contracts import noise_schedule
from tests.conftest import REGISTRY

SHAPE = (2, 1, 4, 4)


class Operators(TorchDispatchMode):
    """Notes the operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.names.append(operator.overloadpacket.__name__)
        return operator(*args, **(kwargs or {}))


def drawn(count):
    return [torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(count)]


def test_a_weighted_sum_is_the_sum_and_leaves_its_terms_alone():
    x, y, z = drawn(3)
    kept = [t.clone() for t in (x, y, z)]
    per_sample = torch.tensor([0.5, -2.0], dtype=torch.float64)[:, None, None, None]
    assert torch.allclose(weighted_sum((2.0, x), (-0.5, y), (1, z)), 2 * x - 0.5 * y + z, rtol=0, atol=1e-15)
    assert torch.allclose(weighted_sum((per_sample, x), (per_sample, y), (3.0, z)), per_sample * (x + y) + 3 * z, rtol=0, atol=1e-15)
    assert torch.equal(weighted_sum((1.0, x)), x) and weighted_sum((1.0, x)) is not x
    assert all(torch.equal(a, b) for a, b in zip((x, y, z), kept, strict=True))


def test_a_weighted_sum_has_the_gradient_of_the_sum():
    x, y = (t.requires_grad_() for t in drawn(2))
    weighted_sum((2.0, x), (-3.0, y)).sum().backward()
    assert torch.equal(x.grad, torch.full(SHAPE, 2.0, dtype=torch.float64)) and torch.equal(y.grad, torch.full(SHAPE, -3.0, dtype=torch.float64))


@pytest.mark.parametrize(("name", "options", "passes"), [("ddim", {}, 2), ("ddpm", {}, 3), ("euler_sde", {}, 3), ("euler_ode", {}, 3), ("pndm", {"warmup": "plms"}, 5),
                                                         ("dpm_solver_pp", {}, 4)])
def test_a_step_passes_over_the_images_once_for_each_of_its_terms(name, options, passes):
    """The sixth step of ten, past any start-up; noise and network cost nothing."""
    schedule, scheduler = REGISTRY.create("noise_schedule", "linear"), REGISTRY.create("scheduler", name, steps=10, **options)
    visited, known = REGISTRY.default("spacing")(schedule, 10), Prediction(*drawn(2))
    schedule.prepare(visited)
    times = visited.tolist()
    (x, z), state = drawn(2), scheduler.init()
    for index in range(6):
        with Operators() as seen:
            x, state = scheduler.step(lambda x_t, t: known, schedule, x, times[index], times[index + 1], state, lambda draw=0: z)
    assert len(seen.names) == passes and set(seen.names) <= {"mul", "add_"}, seen.names


@pytest.mark.parametrize("name", [r.full_name for r in REGISTRY.refs("noise_schedule")])
def test_levels_worked_out_together_have_the_bits_of_those_worked_out_one_by_one(name):
    """Or else what a process did before would change the bits of a sample: vector units and what is left over for no vector round differently."""
    schedule = REGISTRY.create("noise_schedule", name)
    for steps in (1, 2, 7, 50, 333):
        times = REGISTRY.default("spacing")(schedule, steps)
        noise_schedule._LEVELS.clear()
        schedule.prepare(times)
        together = [schedule.at(t) for t in times.tolist()]
        noise_schedule._LEVELS.clear()
        for t, level in zip(times.tolist(), together, strict=True):
            assert level.t == t and numpy.array_equal(level, schedule.at(t), equal_nan=True)


def test_no_level_is_worked_out_inside_the_loop(monkeypatch):
    schedule, inside = REGISTRY.create("noise_schedule", "cosine", s=0.0123), []          # of which no level is remembered
    monkeypatch.setattr(noise_schedule, "_level", lambda schedule, t: inside.append(t))
    scheduler = REGISTRY.create("scheduler", "ddim", steps=9)
    x = torch.zeros(SHAPE)
    diffbench.sample(lambda x_t, t: Prediction(x0=x_t, eps=x_t), schedule, scheduler, x)
    assert inside == []
