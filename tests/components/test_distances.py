"""KID, precision and recall, density and coverage, sliced Wasserstein: known values, two libraries, and who is not fooled."""

import time

import pytest
import torch
from diffbench_components.metrics.features import nearest, squared_distances
from diffbench_components.metrics.kid import kernel_distance
from diffbench_components.metrics.sliced_wasserstein import squared_distance
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric

from diffbench import DataError, Diverged, Evidence, Jackknife, NoInterval, Real, jackknife_blocks
from diffbench.stages.evaluate import as_columns
from tests.conftest import REGISTRY, all_of

D64 = torch.float64
COPIED = [m for m in all_of("metric") if m.values[0].looks_at == "samples" and m.values[0].prefers_copies]


def normal(seed, *shape):
    return torch.randn(*shape, dtype=D64, generator=torch.Generator().manual_seed(seed))


def of(features, labels=None):
    return Evidence(images=None, labels=labels, features=features, predicted=None)


def real(features):
    return Real(reference=of(features), held_out=of(features))


def values(metric, x, y):
    return as_columns(metric.measure(of(x), real(y)))["values"]


def test_kid_of_constructed_sets_is_its_definition():
    """By loops over pairs, on 7 and 5 samples of 3 features."""
    x, y = normal(0, 7, 3), normal(1, 5, 3) + 0.5

    def k(a, b):
        return (float(a @ b) / 3 + 1) ** 3
    xx = sum(k(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / 42
    yy = sum(k(y[i], y[j]) for i in range(5) for j in range(5) if i != j) / 20
    xy = sum(k(a, b) for a in x for b in y) / 35
    assert kernel_distance(x, y)[0] == pytest.approx(xx + yy - 2 * xy, rel=1e-12)


def test_kid_has_no_bias():
    """Of one distribution it is 0 on average, whatever the number of samples; of shifted ones it is a polynomial of the shift."""
    for count in (5, 40):
        found = torch.tensor([kernel_distance(normal(2 * r, count, 4), normal(2 * r + 1, count, 4))[0] for r in range(400)])
        assert abs(float(found.mean())) < 4 * float(found.std()) / 20
    # x ~ N(0, 1), y = N(0, 1) + m in one dimension: E k(a, b) = E (ab + 1)³ with E (ab)² = E a² E b², E (ab)³ = E a³ E b³.
    m = 0.7
    def expected(mean_a, mean_b):
        def moments(c):
            return c, c * c + 1, c**3 + 3 * c
        (a1, a2, a3), (b1, b2, b3) = moments(mean_a), moments(mean_b)
        return a3 * b3 + 3 * a2 * b2 + 3 * a1 * b1 + 1
    truth = expected(0, 0) + expected(m, m) - 2 * expected(0, m)
    found = torch.tensor([kernel_distance(normal(2 * r, 200, 1), normal(2 * r + 1, 200, 1) + m)[0] for r in range(200)])
    assert float(found.mean()) == pytest.approx(truth, abs=4 * float(found.std()) / 200**0.5)


def test_kid_without_a_block_is_kid_of_the_others():
    x, y, blocks = normal(0, 203, 6), normal(1, 90, 6) + 0.2, jackknife_blocks(203)
    left_out = kernel_distance(x, y, blocks)[1]
    assert left_out.tolist() == pytest.approx([kernel_distance(x[blocks != j], y)[0] for j in range(20)], rel=1e-9)


def test_kid_is_torch_fidelitys_on_one_subset_of_everything():
    x, y = normal(0, 300, 64), normal(1, 300, 64) + 0.1
    peer = kid_features_to_metric(x, y, kid_subsets=1, kid_subset_size=300, kid_kernel="poly", kid_kernel_poly_degree=3, kid_kernel_poly_coef0=1.0,
                                  kid_kernel_poly_gamma=None, rng_seed=0, verbose=False)
    assert kernel_distance(x, y)[0] == pytest.approx(peer["kernel_inception_distance_mean"], rel=1e-9)


def test_precision_and_recall_are_torch_fidelitys():
    x, y = normal(0, 400, 8), 0.8 * normal(1, 500, 8) + 0.3
    peer = prc_features_to_metric(x, y, prc_neighborhood=3, prc_batch_size=10000, save_cpu_ram=False, verbose=False)
    ours = values(REGISTRY.create("metric", "prdc", k=3), x, y)
    assert (ours[""], ours["recall"]) == pytest.approx((peer["precision"], peer["recall"]), rel=1e-7)       # it gives shares in float32
    assert 0 < ours[""] < 1 and 0 < ours["recall"] < 1


def test_prdc_on_lines_of_points_has_the_values_one_counts():
    """Reference 0, 1, 2, ... 9 on a line, k = 1: balls of radius 1. Generated points in the middle of pairs, far away, and on the points."""
    prdc = REGISTRY.create("metric", "prdc", k=1)
    line = torch.arange(10.0, dtype=D64)[:, None]
    same = values(prdc, line, line)
    # A point lies in its own ball and its neighbours' (on their edge): 2 balls at the ends, 3 elsewhere.
    assert (same[""], same["recall"], same["density"], same["coverage"]) == (1.0, 1.0, pytest.approx((2 * 2 + 8 * 3) / 10), 1.0)
    far = values(prdc, line + 1000, line)
    assert (far[""], far["recall"], far["density"], far["coverage"]) == (0.0, 0.0, 0.0, 0.0)
    half = values(prdc, torch.cat([line[:5] + 0.25, line[:5] + 1000]), line)
    assert half[""] == 0.5 and half["density"] == pytest.approx(5 * 2 / 10) and half["coverage"] == 0.6, "0.25 to 4.25 lie in two balls each, of 0 to 5"


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_prdc_without_a_block_is_prdc_of_the_others(spread):
    """spread 0: blocks lie far apart, so that the neighbours of a sample are all in its own block."""
    blocks = jackknife_blocks(203)
    x, y, prdc = normal(0, 203, 3), normal(1, 120, 3) + 0.2, REGISTRY.create("metric", "prdc", k=4)
    if not spread:
        x = x + 50 * blocks[:, None]
    found = prdc.measure(of(x), real(y))
    for name, jackknifed in found.items():
        direct = [values(prdc, x[blocks != j], y)[name] for j in range(20)]
        assert jackknifed.left_out == pytest.approx(direct, abs=1e-12), name


def test_collapse_is_precise_and_covers_nothing():
    y, x = normal(0, 500, 4), (0.01 * normal(1, 500, 4))
    found = values(REGISTRY.create("metric", "prdc"), x, y)
    assert found[""] == 1.0 and found["recall"] < 0.05 and found["coverage"] < 0.2


def test_copies_of_the_reference_lie_on_edges_and_count_as_inside():
    """Each lies in its own ball and, as the k-th neighbour, on the edge of k others on average: (k + 1)/k, to the last one, in any order."""
    y = normal(0, 300, 7) + 1e4
    found = values(REGISTRY.create("metric", "prdc", k=4), y.flip(0), y)
    assert (found[""], found["recall"], found["density"], found["coverage"]) == (1.0, 1.0, pytest.approx(5 / 4, rel=1e-12), 1.0)
    assert 0 < found["_low"] < found["_high"] == 1.0
    assert all(0 <= found[f"{name}_low"] < found[f"{name}_high"] <= 1 for name in ("recall", "coverage") if f"{name}_low" in found)


def test_a_generator_that_gives_one_image_costs_no_more_than_others():
    """All its distances are 0, which differences of squares do not give: worked out pair by pair they took 8 GB."""
    x, y = normal(0, 1, 1024).expand(300, -1).clone(), normal(1, 300, 1024)
    start = time.process_time()                           # of the processor: what others do there is not in it
    found = values(REGISTRY.create("metric", "prdc"), x, y)
    took = time.process_time() - start
    start = time.process_time()
    values(REGISTRY.create("metric", "prdc"), normal(2, 300, 1024), y)
    assert found["recall"] == 0.0 and found["coverage"] <= 1.0 and took < 10 * (time.process_time() - start) + 1


def test_sliced_wasserstein_without_a_block_is_that_of_the_others():
    x, y, metric = normal(0, 203, 3), normal(1, 120, 3) + 0.2, REGISTRY.create("metric", "sliced_wasserstein", directions=8)
    blocks = jackknife_blocks(203)
    assert metric.measure(of(x), real(y))[""].left_out == pytest.approx([values(metric, x[blocks != j], y)[""] for j in range(20)], rel=1e-9)


def test_sliced_wasserstein_in_one_dimension_is_the_distance_of_quantiles():
    x, y = normal(0, 1, 3).sort(1).values, normal(1, 1, 5).sort(1).values
    levels = (torch.arange(15, dtype=D64) + 0.5) / 15                     # steps of 1/3 and 1/5 are constant between multiples of 1/15
    by_hand = sum(float(x[0, int(q * 3)] - y[0, int(q * 5)]) ** 2 for q in levels) / 15
    assert float(squared_distance(x, y)) == pytest.approx(by_hand, rel=1e-12)
    from scipy.stats import wasserstein_distance
    moved = squared_distance(x, x + 2.5)
    assert float(moved) == pytest.approx(2.5**2, rel=1e-12) and wasserstein_distance(x[0], x[0] + 2.5) == pytest.approx(2.5)


def test_sliced_wasserstein_of_a_shift_is_its_square_over_the_dimensions():
    x, shift = normal(0, 60, 12), torch.tensor([3.0, *[0.0] * 11], dtype=D64)
    found = values(REGISTRY.create("metric", "sliced_wasserstein", directions=4000), x + shift, x)[""]
    assert found == pytest.approx(9 / 12, rel=0.05)
    same = values(REGISTRY.create("metric", "sliced_wasserstein"), x, x)
    assert same[""] == 0.0


def test_distances_keep_their_digits():
    x = normal(0, 40, 6) + 1e6
    assert torch.equal(squared_distances(x, x).diagonal(), torch.zeros(40, dtype=D64))
    assert torch.allclose(squared_distances(x, x + 1e-3).diagonal(), torch.full((40,), 6e-6, dtype=D64), rtol=1e-5)
    near, which = nearest(x, x, 2, is_same=True)
    apart = torch.cdist(x - 1e6, x - 1e6) + torch.diag(torch.full((40,), torch.inf, dtype=D64))
    assert torch.allclose(near.sqrt(), apart.topk(2, largest=False).values, rtol=1e-4) and torch.equal(which[:, 0], apart.argmin(1))


@pytest.mark.parametrize("metric", COPIED)
def test_features_that_are_not_finite_or_do_not_fit_are_refused(metric):
    x = normal(0, 60, 4)
    faulty = x.clone()
    faulty[3, 1] = float("nan")
    for a, b in ((faulty, x), (x, faulty)):
        with pytest.raises(Diverged, match="not finite"):
            metric.measure(of(a), real(b))
    for a, b in ((x, x[:, :3]), (x[:1], x)):
        with pytest.raises(DataError):
            metric.measure(of(a), real(b))


@pytest.mark.parametrize("metric", COPIED)
def test_nobody_draws_from_the_global_generator_and_float32_is_enough(metric):
    x, y = normal(0, 200, 4), normal(1, 150, 4) + 0.3
    before = torch.random.get_rng_state()
    found = values(metric, x, y)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(1)
    assert values(metric, x, y) == found
    assert values(metric, x.float(), y.float())[""] == pytest.approx(found[""], rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("metric", COPIED)
@pytest.mark.parametrize("count", [12, 39, 40])
def test_few_samples_have_a_value_and_from_forty_on_an_interval(metric, count):
    found = metric.measure(of(normal(0, count, 3)), real(normal(1, 100, 3)))
    kinds = {type(v) for v in found.values()}
    assert kinds == {Jackknife} if count >= 40 else NoInterval in kinds
