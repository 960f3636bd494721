"""The 95 % intervals of metrics contain the truth, which is known here, about 95 times in 100.

Few repeats and wide bounds, so that a right interval fails once in thousands of runs; benchmarks/interval_coverage.py has 400 repeats of each metric.
"""

import pytest
import torch
from scipy.stats import binom

from diffbench import Evidence, Jackknife, Real, wilson
from tests.conftest import REGISTRY

D64 = torch.float64
REPEATS = 80
# A right interval misses its truth 2 to 8 times in 100. More misses than this have a chance of 1e-4 even at 8 in 100.
MOST_MISSES = int(binom.ppf(1 - 1e-4, REPEATS, 0.08))


def of(features, labels=None, images=None) -> Evidence:
    return Evidence(images=images, labels=labels, features=features, predicted=None)


def against(reference: torch.Tensor) -> Real:
    return Real(reference=of(reference), held_out=of(reference))


def normal(generator, *shape):
    return torch.randn(*shape, dtype=D64, generator=generator)


def misses(found, truth: float) -> int:
    return sum(not j.low <= truth <= j.high for j in found)


def is_centred(found, truth: float) -> bool:
    debiased = torch.tensor([j.debiased for j in found])
    return abs(float(debiased.mean()) - truth) < 4 * float(debiased.std()) / len(found) ** 0.5


def classes(generator, d: int):
    """Ten centres far apart, [10, d], whose mean is 0."""
    centres = 2 * normal(generator, 10, d)
    return centres - centres.mean(0)


def labels_of(asked: str, generator, count: int):
    return torch.arange(count) % 10 if asked == "in turn" else torch.randint(0, 10, (count,), generator=generator)


def exact_kernel_distance(centres, y) -> float:
    """E k(x, x') - 2 E k(x, y) + the same of y without itself, for x ~ ten N(centre, 1): k is a polynomial, so moments up to the third say all."""
    d, eye = centres.shape[1], torch.eye(centres.shape[1], dtype=D64)
    m1, m2 = centres.mean(0), centres.T @ centres / 10 + eye
    mixed = torch.einsum("i,jk->ijk", m1, eye)
    m3 = torch.einsum("ki,kj,kl->ijl", centres, centres, centres) / 10 + mixed + mixed.permute(1, 0, 2) + mixed.permute(1, 2, 0)
    xx = m3.square().sum() / d**3 + 3 * m2.square().sum() / d**2 + 3 * m1.square().sum() / d + 1
    xy = torch.einsum("ijk,ni,nj,nk->n", m3, y, y, y) / d**3 + 3 * ((y @ m2) * y).sum(1) / d**2 + 3 * y @ m1 / d + 1
    yy = (y @ y.T / d + 1) ** 3
    return float(xx - 2 * xy.mean() + (yy.sum() - yy.diagonal().sum()) / (len(y) * (len(y) - 1)))


@pytest.mark.parametrize("asked", ["in turn", "at random"])
def test_kid_however_the_classes_came(asked):
    """With classes in turn the estimate itself is low by about c/N, and an interval around it holds the truth 4 times in 100.

    N = 400: blocks have all classes alike where N is a multiple of 20 times the classes. At 300 a fifth of the bias is left.
    """
    generator = torch.Generator().manual_seed(0)
    centres = classes(generator, 8)
    y = centres[labels_of("at random", generator, 1000)] + normal(generator, 1000, 8) + 0.2
    truth, found = exact_kernel_distance(centres, y), []
    for _ in range(REPEATS):
        labels = labels_of(asked, generator, 400)
        found.append(REGISTRY.create("metric", "kid").measure(of(centres[labels] + normal(generator, 400, 8), labels), against(y))[""])
    assert is_centred(found, truth) and misses(found, truth) <= MOST_MISSES
    if asked == "in turn":
        half = [(j.high - j.low) / 2 for j in found]
        assert sum(abs(j.value - truth) > h for j, h in zip(found, half, strict=True)) > REPEATS / 2


def test_sliced_wasserstein_of_known_gaussians():
    """One direction, so one dimension: W_2² of N(0.3, 1.2²) to the fixed reference is an integral over quantiles."""
    generator = torch.Generator().manual_seed(1)
    y = normal(generator, 800, 1)
    levels = (torch.arange(800_000, dtype=D64) + 0.5) / 800_000
    quantiles = 0.3 + 1.2 * torch.special.ndtri(levels)
    truth = float((quantiles - y[:, 0].sort().values.repeat_interleave(1000)).square().mean())
    metric = REGISTRY.create("metric", "sliced_wasserstein", directions=1)
    found = [metric.measure(of(0.3 + 1.2 * normal(generator, 400, 1)), against(y))[""] for _ in range(REPEATS)]
    assert truth == pytest.approx(0.3**2 + 0.2**2, rel=0.5) and is_centred(found, truth) and misses(found, truth) <= MOST_MISSES


def test_precision_and_density_on_a_line():
    """The reference is 0, 1, ... 9 and balls have radius 1: x ~ U(-2, 12) is inside one with chance 11/14, and lies in 2 on average over a length of 10.

    Of coverage the truth is known too: every ball is missed by all of N samples with chance (1 - 2/14)^N, which is nothing.
    """
    generator, line = torch.Generator().manual_seed(2), torch.arange(10.0, dtype=D64)[:, None]
    prdc = REGISTRY.create("metric", "prdc", k=1)
    found = [prdc.measure(of(14 * torch.rand(200, 1, dtype=D64, generator=generator) - 2), against(line)) for _ in range(REPEATS)]
    for name, truth in (("", 11 / 14), ("density", 10 * 2 / 14)):
        assert is_centred([f[name] for f in found], truth) and misses([f[name] for f in found], truth) <= MOST_MISSES, name
    assert all(f["coverage"].value == 1.0 for f in found)


@pytest.mark.parametrize("copied", [0.0, 0.02, 0.5])
def test_the_share_of_copies_whether_there_are_any(copied):
    """Half a dozen copies in 300, or none at all, is where an interval from a jackknife begins below 0 or has no width."""
    generator = torch.Generator().manual_seed(3)

    def drawn(count):
        return torch.randint(0, 256, (count, 1, 6, 6), dtype=torch.uint8, generator=generator)

    def seen(images):
        return of(images.flatten(1).double() / 255, images=images)
    train, held_out = seen(drawn(200)), seen(drawn(100))
    real, metric, found = Real(reference=held_out, held_out=held_out, train=train), REGISTRY.create("metric", "memorisation"), []
    for _ in range(REPEATS):
        images = drawn(300)
        is_copy = torch.rand(300, generator=generator) < copied
        images[is_copy] = train.images[torch.randint(0, 200, (int(is_copy.sum()),), generator=generator)]
        found.append(metric.measure(seen(images), real)[""])
    assert misses(found, copied) <= MOST_MISSES and all(0 <= j.low < j.high <= 1 for j in found)


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_wilson_s_interval_covers_by_exact_sums(share):
    """Over all k of n = 300, weighted by their chances: no drawing."""
    n = 300
    inside = [low <= share <= high for low, high in (wilson(k, n) for k in range(n + 1))]
    covered = sum(binom.pmf(k, n, share) for k in range(n + 1) if inside[k])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("asked", ["in turn", "at random"])
def test_medians_cover_however_the_classes_came(asked):
    """Images of one grey level, g ~ 10 class + U{0..9}, beside two training images at 0 and 255: the distance to the nearest is known for each."""
    generator = torch.Generator().manual_seed(4)
    ends = torch.tensor([0, 255], dtype=torch.uint8)[:, None, None, None].expand(2, 1, 2, 2)

    def seen(images, labels=None):
        return of(images.flatten(1).double(), labels, images)
    known = seen(ends)
    real, metric = Real(reference=known, held_out=known, train=known), REGISTRY.create("metric", "memorisation")
    truth, found = 49.5 / 255, []                                     # of 0 to 99, each as likely: between 49 and 50
    for _ in range(REPEATS):
        labels = labels_of(asked, generator, 401)
        grey = 10 * labels + torch.randint(0, 10, (401,), generator=generator)
        found.append(metric.measure(seen(grey.to(torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous(), labels), real)["nn_distance_train"])
    # The median of whole grey levels is one of them: half a level is what a level cannot tell.
    given = [j for j in found if isinstance(j, Jackknife)]      # none where no block changes the median
    assert given and sum(not j.low - 0.5 / 255 <= truth <= j.high + 0.5 / 255 for j in given) <= MOST_MISSES
