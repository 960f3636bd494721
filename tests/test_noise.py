"""Noise is a function of (seed, step, draw) alone, and standard normal."""

import numpy
import pytest
import torch

from diffbench import noise

# Random123's known answers for philox4x32-10: counter, key, result.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_philox_gives_the_published_answers(counter, key, expected):
    words = noise.philox(tuple(torch.tensor([c]) for c in counter), tuple(torch.tensor([k]) for k in key))
    assert tuple(int(w) for w in words) == expected


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_noise_does_not_depend_on_the_batch(batch):
    seeds = noise.sample_seeds(3, 0, 64)
    whole = noise.normal(seeds, (3, 5, 5), step=4)
    parts = torch.cat([noise.normal(seeds[i : i + batch], (3, 5, 5), step=4) for i in range(0, 64, batch)])
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 16, 16)])
def test_steps_drawn_ahead_are_the_steps_drawn_alone(shape, monkeypatch):
    monkeypatch.setattr(noise, "CACHED", 3 * 5 * 7)
    seeds, source = noise.sample_seeds(1, 0, 5), noise.Source(noise.sample_seeds(1, 0, 5), shape, 20)
    for step, draw in [(k, 0) for k in range(20)] + [(3, 1), (4, 1), (0, 0), (19, 1), (7, 0)]:
        assert torch.equal(source(step, draw), noise.normal(seeds, shape, step, draw))


def test_seed_step_and_draw_each_give_other_noise():
    base = noise.normal([5], (64,), step=1)
    others = [noise.normal([6], (64,), step=1), noise.normal([5 | 1 << 40], (64,), step=1), noise.normal([5], (64,), step=2), noise.normal([5], (64,), step=1, draw=1)]
    for other in others:
        assert abs(float(numpy.corrcoef(base, other)[0, 1])) < 0.5
        assert not torch.equal(base, other)


def test_noise_is_standard_normal():
    z = noise.normal(range(2000), (10, 10), step=0).double().flatten()
    count = len(z)
    # Each bound is five standard errors of the moment.
    assert abs(z.mean()) < 5 / count**0.5
    assert abs(z.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / count) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / count) ** 0.5


def test_samples_are_uncorrelated():
    z = noise.normal(range(400), (1000,), step=0).double()
    correlation = numpy.corrcoef(z.numpy())
    assert abs(correlation - numpy.eye(400)).max() < 6 / 1000**0.5


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    noise.normal([1], (4,), step=0)
    assert torch.equal(before, torch.random.get_rng_state())
