"""The Fréchet distance against its closed form and two libraries; the jackknife against a known truth."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch_fidelity import metric_fid
from torchmetrics.image.fid import FrechetInceptionDistance

from diffbench import DataError, Diverged, frechet_distance, jackknife, jackknife_blocks, moments
from diffbench.stats.frechet import effective_features
from diffbench.stats.jackknife import BLOCKS, extrapolated, halves

D64 = torch.float64


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def gaussian(seed: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A mean [d] and the symmetric square root [d, d] of a covariance with eigenvalues from 0.1 to 3."""
    q = torch.linalg.qr(normal(seed, d, d)).Q
    return 0.3 * normal(seed + 1, d), q @ torch.diag(torch.linspace(0.1, 3, d, dtype=D64).sqrt()) @ q.T


def exact_samples(seed: int, count: int, mean: torch.Tensor, root: torch.Tensor) -> torch.Tensor:
    """Samples whose own mean and covariance are mean and root² to rounding: whitened, then coloured."""
    z = normal(seed, count, len(mean))
    return torch.linalg.qr(z - z.mean(0)).Q * (count - 1) ** 0.5 @ root + mean


def closed_form(m_x, s_x, m_y, s_y) -> float:
    """|m_x - m_y|² + tr(C_x + C_y) - 2 tr (C_x^½ C_y C_x^½)^½, from the symmetric roots."""
    inner = s_x @ s_y @ s_y @ s_x
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    return float((m_x - m_y).square().sum() + (s_x @ s_x).trace() + (s_y @ s_y).trace() - 2 * cross)


@pytest.mark.parametrize("shift", [0.0, 100.0, 1e5])
@pytest.mark.parametrize("d", [1, 16, 64])
def test_it_equals_the_closed_form_of_gaussians(d, shift):
    (m_x, s_x), (m_y, s_y) = gaussian(0, d), gaussian(5, d)
    x, y = exact_samples(10, 2000, m_x + shift, s_x), exact_samples(11, 1000, m_y + shift, s_y)
    assert frechet_distance(x, y) == pytest.approx(closed_form(m_x, s_x, m_y, s_y), rel=1e-11 if shift < 1e3 else 1e-8)


def test_it_equals_scipy_where_scipy_is_reliable():
    x, y = normal(0, 500, 16) * 1.3 + 0.2, normal(1, 400, 16)
    c_x, c_y = np.cov(x.numpy(), rowvar=False), np.cov(y.numpy(), rowvar=False)
    expected = float((x.mean(0) - y.mean(0)).square().sum()) + np.trace(c_x + c_y - 2 * scipy.linalg.sqrtm(c_x @ c_y).real)
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-10)


class Given(torch.nn.Module):
    """The 'images' are the features."""

    def __init__(self, d: int):
        super().__init__()
        self.num_features = d

    def forward(self, images):
        return images.flatten(1)


@pytest.mark.parametrize(("count", "d"), [(1000, 16), (1000, 64), (3000, 128)])
def test_it_equals_torchmetrics_and_torch_fidelity_on_the_same_features(count, d):
    x, y = normal(0, count, d).abs() * 2 + 0.1, normal(1, count // 2, d).abs() + 0.3       # skewed, as features are
    ours = frechet_distance(x, y)
    theirs = FrechetInceptionDistance(feature=Given(d)).set_dtype(D64)
    theirs.update(y[:, None, None, :], real=True)
    theirs.update(x[:, None, None, :], real=False)
    assert float(theirs.compute()) == pytest.approx(ours, rel=1e-6)
    statistics = [metric_fid.fid_features_to_statistics(features) for features in (x, y)]
    assert metric_fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"] == pytest.approx(ours, rel=1e-6)


@pytest.mark.parametrize(("count", "d"), [(500, 16), (30, 64)])
def test_it_behaves_as_a_distance(count, d):
    x, y = 3 * normal(0, count, d) + 1, normal(1, count + 7, d)
    assert 0 <= frechet_distance(x, x) < 1e-9
    assert 0 <= frechet_distance(x, x.flip(0)) < 1e-9
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x), rel=1e-12)
    rotation = torch.linalg.qr(normal(2, d, d)).Q
    assert frechet_distance(x @ rotation, y @ rotation) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(x, x + 2) == pytest.approx(4 * d, rel=1e-9)                      # a shift alone
    assert frechet_distance(2 * x, 2 * y) == pytest.approx(4 * frechet_distance(x, y), rel=1e-12)


def test_fewer_samples_than_features_and_dead_features_are_fine():
    x, y = normal(0, 50, 100), normal(1, 80, 100)
    x[:, :10] = y[:, :10] = 0.0
    assert 0 < frechet_distance(x, y, jackknife_blocks(50)).value == frechet_distance(x, y) < np.inf
    assert frechet_distance(x[:2], y[:2]) > 0


def test_what_has_no_distance_is_refused():
    x = normal(0, 50, 4)
    for fault in (float("nan"), float("inf")):
        faulty = x.clone()
        faulty[3, 1] = fault
        with pytest.raises(Diverged, match="not finite"):
            frechet_distance(faulty, x)
        with pytest.raises(Diverged, match="not finite"):
            frechet_distance(x, faulty)
    for a, b in ((x, x[:, :3]), (x[:1], x), (x, x[0])):
        with pytest.raises(DataError, match="needs features"):
            frechet_distance(a, b)
    with pytest.raises(DataError, match="at least 40"):
        frechet_distance(x[:39], x, jackknife_blocks(39))
    with pytest.raises(DataError, match="20 values"):
        jackknife(1.0, torch.ones(3, dtype=D64))


def test_moments_stand_for_the_set_they_are_of():
    x, y = normal(0, 60, 8), 2 * normal(1, 300, 8) + 1
    assert frechet_distance(x, moments(y)) == frechet_distance(x, y)
    assert frechet_distance(x, moments(y), jackknife_blocks(60)) == frechet_distance(x, y, jackknife_blocks(60))
    with pytest.raises(DataError, match="one length, got 7 and 8"):
        frechet_distance(x[:, :7], moments(y))


@pytest.mark.parametrize(("count", "d", "offset"), [(203, 8, 0.0), (203, 8, 1e4), (45, 64, 0.0)])
def test_running_sums_equal_leaving_a_block_or_a_half_out(count, d, offset):
    scales = torch.arange(1, d + 1, dtype=D64) ** -1.0                     # few directions: 45 samples of 64 features will do
    x, y = (2 * normal(0, count, d) + offset) * scales, (normal(1, 300, d) + offset) * scales
    blocks, effective = jackknife_blocks(count), effective_features(moments(y).root)
    left_out, halved = (torch.tensor([frechet_distance(x[kept], y) for kept in table[:, blocks]], dtype=D64)
                        for table in (~torch.eye(BLOCKS, dtype=torch.bool), halves()))
    fast = frechet_distance(x, y, blocks)
    slow = extrapolated(frechet_distance(x, y), left_out, halved, count, ratio=effective / count)
    assert fast[:5] == pytest.approx(slow[:5], rel=1e-6) and fast.left_out == pytest.approx(left_out.tolist(), rel=1e-7)


def test_the_jackknife_of_a_mean_is_its_textbook_error():
    """θ = mean: no bias to remove, and with blocks of equal size the error is that of the mean of block means."""
    x, blocks = normal(0, 400), jackknife_blocks(400)
    left_out = torch.stack([x[blocks != j].mean() for j in range(BLOCKS)])
    means = torch.stack([x[blocks == j].mean() for j in range(BLOCKS)])
    found = jackknife(float(x.mean()), left_out)
    assert found.debiased == pytest.approx(float(x.mean()), abs=1e-12)
    assert found.standard_error == pytest.approx(float(means.std() / BLOCKS**0.5), rel=1e-10)
    assert (found.high - found.low) / 2 == pytest.approx(2.0930240544 * found.standard_error, rel=1e-9)


def test_the_interval_covers_the_truth_and_the_debiased_value_has_no_bias():
    """Gaussian features, d = 16, N = 500, an exact reference; 95 % means 57 of 60, and 51 or fewer has probability 0.01."""
    (m_x, s_x), (m_y, s_y) = gaussian(0, 16), gaussian(0, 16)
    m_y = m_y + 0.05
    truth, y = closed_form(m_x, s_x, m_y, s_y), exact_samples(1, 1000, m_y, s_y)
    found = [frechet_distance(normal(100 + r, 500, 16) @ s_x + m_x, y, jackknife_blocks(500)) for r in range(60)]
    debiased = np.array([f.debiased for f in found])
    assert abs(debiased.mean() - truth) < 4 * debiased.std() / 60**0.5
    assert np.mean([f.value for f in found]) > truth + 10 * debiased.std() / 60**0.5         # the raw value is biased
    assert 0.85 <= np.mean([f.low <= truth <= f.high for f in found]) <= 1.0
    assert 0.7 < np.mean([f.standard_error for f in found]) / debiased.std() < 1.5


@pytest.mark.parametrize("classes", [2, 3, 10, 20])
def test_blocks_are_balanced_and_each_contains_every_class(classes):
    labels = torch.arange(1003) % classes                                  # as generated samples are asked for
    blocks = jackknife_blocks(1003, labels)
    table = torch.zeros(BLOCKS, classes, dtype=torch.int64).index_put((blocks, labels), torch.tensor(1), accumulate=True)
    assert blocks.dtype == torch.int64 and table.sum() == 1003
    assert int(table.sum(1).max() - table.sum(1).min()) <= 1
    assert int(table.min()) >= 1 and int(table.max() - table.min()) <= 2


def test_blocks_without_labels_go_round():
    assert torch.equal(jackknife_blocks(45), torch.arange(45) % 20)
    assert torch.equal(jackknife_blocks(45, torch.zeros(45, dtype=torch.int64)), torch.arange(45) % 20)
