"""Where numbers of samples have an interval and where they have none: closed-form truths, few samples for the features, few samples a class."""
import math
import re

import numpy as np
import pytest
import torch

from diffbench import (
    Evidence,
    Jackknife,
    NoInterval,
    Real,
    blocks_of,
    frechet_distance,
    jackknife,
    jackknife_blocks,
    jackknifed,
    jackknifed_share,
)
from diffbench.diffusion import likelihood
from diffbench.stages.evaluate import as_columns
from diffbench.stats.frechet import effective_features, enough_samples, moments
from diffbench.stats.jackknife import extrapolated, halves, unevenness, why_no_blocks
from diffbench.stats.numbers_of_rows import differences, number_of
from tests.conftest import REGISTRY

D64 = torch.float64
BIASED = ("fid", "kid", "sliced_wasserstein", "inception_score")


def normal(seed, *shape):
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def evidence(features, labels=None, logits=None):
    return Evidence(images=None, labels=labels, features=features, predicted=None, logits=logits)


def against(features):
    return Real(reference=evidence(features), held_out=evidence(features))


def spread(power, d=64):
    """Standard deviations whose squares fall as i^-power."""
    return torch.arange(1, d + 1, dtype=D64) ** (-power / 2)


def truth(y, scales):
    """The distance of N(0, diag(scales²)) to the sample moments of y."""
    m, root = moments(y)
    inner = root * scales
    return float(m.square().sum() + scales.square().sum() + root.square().sum() - 2 * torch.linalg.svdvals(inner).sum())


@pytest.mark.parametrize("count", [40, 48, 64, 96, 128])
def test_a_distance_of_few_samples_for_its_features_has_a_value_and_a_reason(count):
    """64 features that vary alike: the line in 1/N ends at -7 for 66 samples and at 0.6 for 128, where the truth is 1.3."""
    x, y = normal(0, count, 64), normal(1, 1000, 64)
    found = frechet_distance(x, y, jackknife_blocks(count))
    assert isinstance(found, NoInterval) and found.value == frechet_distance(x, y)
    would_do = int(re.search(r"([\d,]+)( samples would| might) do$", found.reason)[1].replace(",", ""))
    assert count < would_do < 6 * 64 and (
        "too few for features that vary in about 63 directions" in found.reason
        or "does not fall as 1/N" in found.reason
    )


def test_the_number_of_samples_that_would_do_does():
    y = normal(1, 1000, 64)
    assert enough_samples(64) == 310 and isinstance(
        frechet_distance(normal(2, 310, 64), y, jackknife_blocks(310)), Jackknife
    )
    steep = spread(2)
    assert isinstance(frechet_distance(normal(3, 48, 64) * steep, y * steep, jackknife_blocks(48)), Jackknife), (
        "fewer samples than features will do"
    )


@pytest.mark.parametrize(("power", "count"), [(0, 140), (1, 110), (2, 40)])
def test_an_interval_that_is_given_holds_the_truth_and_its_middle_is_not_biased(power, count):
    """32 features. The line alone ends four standard errors of this mean too low at i^0 and at i^-1."""
    scales = spread(power, 32)
    y = normal(1, 512, 32) * scales
    found = [frechet_distance(normal(100 + r, count, 32) * scales, y, jackknife_blocks(count)) for r in range(60)]
    given = [f for f in found if isinstance(f, Jackknife)]
    values = np.array([f.debiased for f in given])
    assert len(given) >= 40 and abs(values.mean() - truth(y, scales)) < 3.5 * values.std() / len(given) ** 0.5
    assert sum(f.low <= truth(y, scales) <= f.high for f in given) >= 0.87 * len(given)


def test_a_bias_that_is_a_parabola_in_1_over_n_goes_entirely():
    """θ(N) = D + a/N + b/N² to the last digit, and no interval where b is large for the error."""

    def theta(size, b):
        return 3.0 + 0.5 / size + b / size**2

    wobble = 0.01 * (torch.arange(20.0, dtype=D64) - 9.5)
    for b in (0.0, 0.004):
        found = extrapolated(theta(1, b), theta(0.95, b) + wobble, torch.full((38,), theta(0.5, b), dtype=D64), 400)
        assert found.debiased == pytest.approx(3.0, abs=1e-9) and found.low < 3.0 < found.high
    assert jackknife(theta(1, 0.004), theta(0.95, 0.004) + wobble).debiased == pytest.approx(
        3.0 - 0.004 / 0.95, abs=1e-9
    )
    refused = extrapolated(theta(1, 2.0), theta(0.95, 2.0) + wobble, torch.full((38,), theta(0.5, 2.0), dtype=D64), 400)
    assert isinstance(refused, NoInterval) and "the bias of 400 samples does not fall as 1/N" in refused.reason


def test_a_squared_mean_is_freed_of_its_bias_exactly_and_its_interval_reaches_further_up():
    """|mean|² of N samples is too large by s²/N: without it, it is the mean over pairs of different blocks, whatever the samples are."""
    x, blocks = normal(0, 200, 3), jackknife_blocks(200)
    found = jackknifed(lambda kept: float(x[kept].mean(0).square().sum()), blocks, 200)
    means = torch.stack([x[blocks == j].mean(0) for j in range(20)])
    pairs = means @ means.T
    assert found.debiased == pytest.approx(float(pairs.sum() - pairs.trace()) / 380, abs=1e-12)
    assert found.high - found.debiased > found.debiased - found.low > 0


def test_halves_are_balanced():
    table = halves()
    assert table.shape == (38, 20) and table.sum(1).unique().tolist() == [10] and torch.equal(table[19:], ~table[:19])
    same = (table[:19, :, None] == table[:19, None, :]).sum(0)
    assert torch.equal(same, torch.where(torch.eye(20, dtype=torch.bool), 19, 9))


def test_effective_features_of_known_spectra():
    assert effective_features(torch.eye(64, dtype=D64)) == pytest.approx(64)
    assert effective_features(torch.diag(torch.tensor([3.0, 1.0, 0.0], dtype=D64))) == pytest.approx(16 / 10)
    assert effective_features(torch.zeros(2, 3, dtype=D64)) == 0.0


@pytest.mark.parametrize(
    ("count", "classes", "has_blocks"),
    [
        (400, 10, True),
        (410, 10, True),
        (100, 10, False),
        (300, 10, False),
        (400, 100, False),
        (1000, 100, False),
        (2000, 100, True),
        (4000, 1000, False),
        (400, 1, True),
    ],
)
def test_blocks_that_cannot_hold_each_class_in_its_share_are_none(count, classes, has_blocks):
    labels = torch.arange(count) % classes
    found = blocks_of(evidence(torch.zeros(count, 2), labels))
    assert isinstance(found, torch.Tensor) == has_blocks
    assert has_blocks or f"{classes:,} classes do not fill 20 blocks" in found and f"{20 * classes:,} would do" in found
    assert isinstance(blocks_of(evidence(torch.zeros(count, 2), labels), is_biased=False), torch.Tensor)
    at_random = torch.from_numpy(np.random.default_rng(0).integers(0, classes, count))
    assert isinstance(blocks_of(evidence(torch.zeros(count, 2), at_random)), torch.Tensor), (
        "shares that were drawn are part of the error"
    )


def test_uneven_shares_that_were_fixed_need_more_samples():
    shares = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])
    for count in (100, 750):
        labels = torch.repeat_interleave(torch.arange(5), (shares * count).round().long())
        reason = why_no_blocks(len(labels), labels)
        assert not reason if count == 750 else reason.endswith(": 640 would do"), (
            "1/4 of 100/0.06 for each unit of 1 - the sum of squared shares, 0.66"
        )


def test_unevenness_is_0_for_exact_shares_and_about_1_at_random():
    labels = torch.arange(1000) % 5
    assert (
        unevenness(labels, jackknife_blocks(1000, labels))
        == 0.0
        == unevenness(torch.zeros(1000, dtype=torch.int64), jackknife_blocks(1000))
    )
    blocks = jackknife_blocks(1000)[torch.from_numpy(np.random.default_rng(0).permutation(1000))]
    assert 0.7 < unevenness(labels, blocks) < 1.3


@pytest.mark.parametrize("name", BIASED)
def test_four_samples_a_class_give_no_interval_of_what_has_a_bias(name):
    """400 samples of 100 classes: 20 blocks took the distance from 0.967 to 0.480 where the truth is 0.859, and held it in 15 of 40 draws."""
    labels = torch.arange(400) % 100
    means = 3 * normal(0, 100, 8)
    x, y = 0.9 * means[labels] + normal(1, 400, 8), means[labels] + normal(2, 400, 8)
    found = REGISTRY.create("metric", name).measure(evidence(x, labels, logits=x), against(y))[""]
    assert (
        isinstance(found, NoInterval)
        and found.reason
        == "400 samples of 100 classes do not fill 20 blocks with each class in its share: 2,000 would do"
    )
    assert math.isfinite(found.value)


def test_shares_need_no_blocks_and_means_of_samples_keep_theirs():
    labels = torch.arange(400) % 100
    found = REGISTRY.create("metric", "prdc").measure(evidence(normal(0, 400, 4), labels), against(normal(1, 300, 4)))
    assert all(isinstance(f, Jackknife) for f in found.values())
    few = jackknifed_share(torch.tensor([True, False, True]), "too few")
    assert few.value == pytest.approx(2 / 3) and 0 < few.low < few.value < few.high < 1 and few.left_out == ()


def test_no_interval_is_without_width():
    """100 copies of 10 points cover as many balls whichever block is left out; it is no proof that others of the model would."""
    y = normal(0, 60, 3)
    found = REGISTRY.create("metric", "prdc").measure(evidence(y[:10].repeat(10, 1)), against(y))
    assert (
        isinstance(found["coverage"], NoInterval)
        and "leaving out any of 20 blocks of samples gives the same number" in found["coverage"].reason
    )
    assert found[""].value == 1.0 and found[""].low < 1.0 == found[""].high and found[""].left_out == (), (
        "a share has Wilson's interval"
    )
    constant = evidence(torch.ones(60, 3, dtype=D64))
    for name in ("fid", "kid", "sliced_wasserstein"):
        assert isinstance(REGISTRY.create("metric", name).measure(constant, against(y))[""], NoInterval)
    assert isinstance(jackknife(0.1 + 0.2, torch.full((20,), 0.3, dtype=D64)), NoInterval), "equal but for rounding"


def test_a_number_without_an_interval_gives_its_reason_and_nothing_to_compare_by():
    told = as_columns(
        {
            "": NoInterval(2.5, "too few"),
            "_x": 1.0,
            "share": jackknifed_share(torch.ones(50, dtype=torch.bool), jackknife_blocks(50)),
        }
    )
    assert told["values"][""] == 2.5 and told["no_interval"] == {"": "too few"} and told["left_out"] == {}
    assert not {"_debiased", "_low", "_high"} & set(told["values"]) and told["values"]["share_low"] < 1.0
    a, b = (number_of({"fd": value}, "fd") for value in (2.5, 3.0))
    assert all(math.isnan(n.standard_error) for n in differences({(0, 0): a}, {(0, 0): b}).values())


def test_probes_are_1_or_minus_1_also_where_the_noise_is_exactly_0(monkeypatch):
    probes = []
    monkeypatch.setattr(
        likelihood.noise,
        "normal",
        lambda seeds, shape, step, draw, device: torch.tensor([[0.0, -0.0], [2.0, -1.0]]).expand(len(seeds), *shape),
    )
    monkeypatch.setattr(
        likelihood,
        "flow_log_density",
        lambda denoise, schedule, x, z, *rest: (probes.extend(z), (torch.zeros(len(x)), 1, 0.1))[1],
    )
    likelihood.flow_likelihood(
        None, None, torch.zeros(3, 1, 2, 2, dtype=torch.uint8), [1, 2, 3], tolerance=1e-3, least_noise=1e-3, probes=2
    )
    assert [sorted(z.unique().tolist()) for z in probes] == [[-1.0, 1.0]] * 2
