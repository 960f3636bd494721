"""Noise is a function of (seed, step, draw) alone, and standard normal."""

import math

import numpy
import pytest
import torch

from diffbench import noise

# The first words of SplitMix64 seeded with 1234567, as published with its reference implementations.
KNOWN_ANSWERS = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
GAMMA, WORD = 0x9E3779B97F4A7C15, 0xFFFFFFFFFFFFFFFF


def mix(z):
    """Steele, Lea & Flood 2014 in whole numbers, as they write it."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & WORD
    return z ^ (z >> 31)


def test_the_words_are_the_published_ones():
    words = torch.tensor([noise._signed(1234567 + (i + 1) * GAMMA) for i in range(5)])
    assert [int(w) & WORD for w in noise.mixed_(words, torch.empty_like(words))] == KNOWN_ANSWERS == [mix((1234567 + (i + 1) * GAMMA) & WORD) for i in range(5)]


def test_every_number_is_the_one_that_whole_numbers_give():
    """Key, words and Box & Muller, one number at a time: a seed with its highest bit set, a step beyond any loop, a size that is no multiple of 4."""
    seed, step, draw, size = 0xFEDCBA9876543210, noise.INITIAL, 3, 7
    key = 0
    for value in (seed, step, draw):
        key = mix((key + (value + 1) * GAMMA) & WORD)
    words = [mix((key + (i + 1) * GAMMA) & WORD) for i in range(4)]
    halves = [half - (1 << 32 if half >> 31 else 0) for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    radii = [math.sqrt(-2 * math.log(min(1, abs(half) / 2**31 + 2**-32))) for half in halves[:4]]
    angles = [math.pi * half / 2**31 for half in halves[4:]]
    expected = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)] + [r * math.sin(a) for r, a in zip(radii, angles, strict=True)]
    assert noise.normal([seed], (size,), step, draw)[0].tolist() == pytest.approx(expected[:size], abs=2e-6)


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
