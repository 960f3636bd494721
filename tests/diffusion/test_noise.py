"""Noise is a function of (seed, step, draw) alone, and standard normal."""

import math

import numpy
import pytest
import torch

from diffbench.diffusion import noise

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
    radii = [math.copysign(math.sqrt(-2 * math.log(min(1, abs(half) / 2**31 + 2**-32))), half) for half in halves[:4]]
    angles = [math.pi / 2 * half / 2**31 for half in halves[4:]]
    expected = [r * math.cos(a) for r, a in zip(radii, angles, strict=True)] + [r * math.sin(a) for r, a in zip(radii, angles, strict=True)]
    assert noise.normal([seed], (size,), step, draw)[0].tolist() == pytest.approx(expected[:size], abs=2e-6)


def test_radii_and_angles_are_those_of_logarithm_sine_and_cosine():
    """At the ends of every range of bits, and at random: to a few roundings of float32."""
    generator = torch.Generator().manual_seed(0)
    ends = [sign * (1 << k) + d for k in range(31) for sign in (1, -1) for d in (-1, 0, 1)] + [-(1 << 31), (1 << 31) - 1]
    few = torch.tensor(ends, dtype=torch.int64).repeat(2)
    words = torch.cat([few, torch.randint(-(1 << 31), 1 << 31, (100_000,), generator=generator)]).float()[None]
    angle = words.roll(1)
    out, spare = torch.empty(1, 2, words.shape[1]), (torch.empty_like(words), torch.empty_like(words))
    noise._normal(words.clone(), angle.clone(), *spare, out)
    uniform = (words.abs() * 2.0**-31 + 2.0**-32).double()
    radius, turned = torch.copysign((-2 * uniform.log()).sqrt(), words.double()), angle.double() * math.pi / 2**32
    allowed = 4 * 2.0**-24 * (1 + radius.abs())
    assert ((out[:, 0] - radius * turned.cos()).abs() <= allowed).all()
    assert ((out[:, 1] - radius * turned.sin()).abs() <= allowed).all()


def test_only_operations_that_every_device_rounds_alike_are_asked_for():
    """What IEEE 754 does not fix, or a compiler may fuse, would give other bits on other devices."""
    class Seen(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, arguments=(), options=None):
            names.add(function.name().partition("::")[2].partition(".")[0].rstrip("_"))
            return function(*arguments, **(options or {}))
    names: set[str] = set()
    with Seen():
        noise.normal(range(3), (5, 3), step=2)
    moved = {"view", "slice", "select", "split", "unsqueeze", "arange", "zeros", "empty", "empty_like", "tensor", "lift_fresh", "detach", "unbind", "clone",
             "reshape", "_unsafe_view", "new_empty", "expand", "alias"}
    rounded = {"abs", "add", "sub", "mul", "div", "copysign", "_to_copy", "copy", "bitwise_and", "bitwise_xor", "bitwise_right_shift"}
    assert names <= moved | rounded, names - moved - rounded


def in_ieee_754(radius, angle):
    """Box & Muller as `noise._normal` has it, operation by operation in NumPy, whose float32 arithmetic is that of IEEE 754."""
    f = numpy.float32

    def polynomial(coefficients, x):
        value = f(coefficients[-1])
        for each in coefficients[-2::-1]:
            value = value * x + f(each)
        return value
    uniform = numpy.abs(radius) * f(2.0**-31) + f(2.0**-32)
    bits = uniform.view(numpy.int32)
    exponent = (bits - numpy.int32(noise._ROOT_OF_HALF)) & numpy.int32(-(1 << 23))
    mantissa = (bits - exponent).view(f) - f(1)
    s = mantissa / (mantissa + f(2))
    x = numpy.abs(polynomial(noise._LOG, s * s) * s + exponent.astype(f) * f(noise._PER_EXPONENT))
    root = ((x.view(numpy.int32) >> 1) + numpy.int32(noise._ROOT_BITS)).view(f)
    for _ in range(3):
        root = (root + x / root) * f(0.5)
    r, turned = numpy.copysign(root, radius), angle * f(2.0**-31)
    squared = turned * turned
    return r * polynomial(noise._COS, squared), r * (polynomial(noise._SIN, squared) * turned)


def test_its_bits_are_those_of_ieee_754():
    """Rounded once an operation: what a device gives whose additions, products and quotients are right."""
    words = torch.randint(-(1 << 31), 1 << 31, (2, 7, 1003), dtype=torch.int32, generator=torch.Generator().manual_seed(0)).float()
    out = torch.empty(7, 2, 1003)
    noise._normal(words[0].clone(), words[1].clone(), torch.empty(7, 1003), torch.empty(7, 1003), out)
    for found, expected in zip(out.unbind(1), in_ieee_754(words[0].numpy(), words[1].numpy()), strict=True):
        assert (found.numpy() == expected).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_noise_does_not_depend_on_the_batch(batch):
    seeds = noise.sample_seeds(3, 0, 64)
    whole = noise.normal(seeds, (3, 5, 5), step=4)
    parts = torch.cat([noise.normal(seeds[i : i + batch], (3, 5, 5), step=4) for i in range(0, 64, batch)])
    assert torch.equal(whole, parts)


@pytest.mark.parametrize("shape", [(1, 3, 3), (3, 16, 16)])
def test_steps_drawn_ahead_are_the_steps_drawn_alone(shape, monkeypatch):
    monkeypatch.setattr(noise, "AT_ONCE", {"cpu": 3 * 5 * 7})
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
