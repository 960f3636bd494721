"""What numbers over seeds say: closed forms, how often intervals hold the truth, and how often nothing is found in nothing."""

import math

import numpy
import pytest
from scipy.stats import ttest_1samp, ttest_rel

from diffbench.comparing import Estimate, Number, Seeds, Spread, averaged, design_of, differences, estimate, holm, may_be_best, number_of, pooled, t_quantile

T19 = 2.0930240544


def numbers(values):
    """{(training, sampling): value} as numbers without a jackknife."""
    return {Seeds(*seeds): Number(v, v) for seeds, v in values.items()}


def grid(y):
    return numbers({(i, j): float(v) for i, row in enumerate(y) for j, v in enumerate(row)})


def test_both_seeds_at_once_is_the_paired_t_test():
    a, b = [5.0, 5.3, 4.9, 5.6], [5.2, 5.9, 5.0, 5.9]
    found = estimate(differences(*(numbers({(s, s): v for s, v in enumerate(some)}) for some in (a, b))))
    test = ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    assert (found.debiased, found.p, found.low, found.high) == pytest.approx((numpy.mean(b) - numpy.mean(a), test.pvalue, interval.low, interval.high))
    assert found.design == "together" and found.basis == "4 seeds" and found.half_width == pytest.approx(test.confidence_interval().high - found.debiased)


def test_one_seed_is_the_jackknife_of_the_difference():
    """What both rows have in common cancels block by block."""
    shared, own = numpy.random.default_rng(0).normal(size=(2, 20)) * [[3.0], [0.01]]
    a, b = (Number(v, v - 0.5, tuple(v + some)) for v, some in ((5.0, shared), (6.0, shared + own)))
    found = estimate(differences({Seeds(0, 0): a}, {Seeds(0, 0): b}))
    error = math.sqrt(19 / 20 * ((own - own.mean()) ** 2).sum())
    assert (found.debiased, found.standard_error, found.half_width) == pytest.approx((1.0, error, T19 * error), rel=1e-9)
    assert found.basis == "block jackknife over samples" and found.degrees == 19


def test_shares_without_left_out_values_add_their_intervals_in_squares():
    """Zou & Donner 2008, p. 1695: each bound from the two nearest sides."""
    a, b = Number(0.2, 0.2, (), 0.15, 0.27), Number(0.5, 0.5, (), 0.42, 0.57)
    (d,) = differences({Seeds(0, 0): a}, {Seeds(0, 0): b}).values()
    assert (d.low, d.high) == pytest.approx((0.3 - math.hypot(0.08, 0.07), 0.3 + math.hypot(0.07, 0.05)))
    assert estimate({Seeds(0, 0): d}).basis == "intervals of both shares, unpaired"


def test_nothing_known_is_nothing_claimed():
    found = estimate(numbers({(0, 0): 1.0}))
    assert math.isnan(found.standard_error) and math.isnan(found.p) and found.basis == "one number, no interval"
    same = estimate(numbers({(s, s): 0.0 for s in range(3)}))
    assert (same.p, same.low, same.high) == (1.0, 0.0, 0.0)


def test_the_design_is_read_from_the_seeds():
    cases = {"one": [(0, 0)], "together": [(0, 0), (1, 1), (2, 5)], "training": [(0, 7), (1, 7)], "sampling": [(3, 0), (3, 1)],
             "crossed": [(t, s) for t in range(2) for s in range(3)]}
    for name, seeds in cases.items():
        assert design_of([Seeds(*s) for s in seeds]) == (name, tuple(Seeds(*s) for s in seeds))
    assert design_of([Seeds(*s) for s in [*cases["crossed"], (9, 0)]])[1] == tuple(Seeds(*s) for s in cases["crossed"]), "the largest complete part"
    assert design_of([Seeds(0, 0), Seeds(0, 1), Seeds(1, 0)]) == ("training", (Seeds(0, 0), Seeds(1, 0))), "of equal ones that with more trainings"


def test_variance_components_of_crossed_seeds():
    """Exact for constructed effects, right on average for random ones, pooled or not."""
    exact = estimate(grid([[r + c for c in (0.0, 3.0, 6.0)] for r in (0.0, 1.0, 2.0)])).spread
    assert exact == pytest.approx((1.0, 9.0, 0.0), abs=1e-12)
    assert pooled([exact, exact]) == pytest.approx((1.0, 3.0, 0.0), abs=1e-7)
    generator = numpy.random.default_rng(0)
    found = [estimate(grid(crossed(generator, 5, 4, 0.25, 0.41, 0.1))).spread for _ in range(400)]
    assert numpy.mean(found, axis=0) == pytest.approx([0.25**2, 0.41**2, 0.1**2], rel=0.15)
    assert pooled(found) == pytest.approx([0.25, 0.41, 0.1], rel=0.1)
    assert math.isnan(pooled([Spread(sampling=1.0)]).training)


def crossed(generator, a, b, training, sampling, rest):
    return training * generator.normal(size=(a, 1)) + sampling * generator.normal(size=(1, b)) + rest * generator.normal(size=(a, b))


@pytest.mark.parametrize("spread", [(1.0, 0.3, 0.3), (0.3, 1.0, 0.3), (1.0, 1.0, 0.2), (0.0, 0.0, 1.0)], ids=str)
@pytest.mark.parametrize("shape", [(3, 3), (4, 3), (2, 5)], ids=str)
def test_intervals_of_crossed_seeds_hold_the_truth(shape, spread):
    generator = numpy.random.default_rng(7)
    held = sum(found.low <= 0 <= found.high for found in (estimate(grid(crossed(generator, *shape, *spread))) for _ in range(1000)))
    assert 900 <= held <= 990                             # 95 % nominal; 91 to 98 % documented, and three standard errors of 1,000 repeats are 2 %


def test_intervals_of_trainings_that_share_their_noise_hold_the_truth():
    """20 blocks of samples, whose part in each number all trainings have in common: the spread over trainings alone would miss it."""
    generator, held, without = numpy.random.default_rng(3), 0, 0
    for _ in range(1000):
        noise, of_training = generator.normal(size=20), 0.1 * generator.normal(size=4)
        some = {}
        for i, own in enumerate(of_training):
            blocks = noise + own
            some[Seeds(i, 0)] = Number(blocks.mean(), blocks.mean(), tuple((blocks.sum() - blocks) / 19))
        found = estimate(some)
        assert found.design == "training"
        held += found.low <= 0 <= found.high
        alone = ttest_1samp([n.debiased for n in some.values()], 0).confidence_interval(0.95)
        without += alone.low <= 0 <= alone.high
    assert 925 <= held <= 975 and without < 600


def test_equal_rows_are_told_apart_one_time_in_twenty_and_the_resolvable_difference_is_found_four_times_in_five():
    """5 seeds whose own spread is ten times that of the difference, which has an SD of 0.14: sqrt(0.02 / 5) is its standard error."""
    generator, told, found_so_often = numpy.random.default_rng(1), 0, 0
    exact = Estimate(value=0.0, debiased=0.0, standard_error=math.sqrt(0.02 / 5), degrees=4.0, low=0.0, high=0.0, design="together", seeds=(), spread=Spread())
    for _ in range(2000):
        seed, (x, y) = generator.normal(size=5), 0.1 * generator.normal(size=(2, 5))
        a, b, c = (numbers({(s, s): v for s, v in enumerate(some)}) for some in (seed + x, seed + y, seed + y + exact.resolvable))
        told += estimate(differences(a, b)).p < 0.05
        found_so_often += estimate(differences(a, c)).p < 0.05
    assert 71 <= told <= 129 and 1546 <= found_so_often <= 1654       # 5 % and 80 %, three standard errors each


def test_holm():
    assert holm([0.01, 0.04, 0.03, math.nan]) == pytest.approx([0.03, 0.06, 0.06, math.nan], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_the_truly_best_row_is_among_those_that_may_be_it():
    """8 rows over 5 seeds with close means; whichever the data put first, the truly best is called surely worse in at most 5 % of cases."""
    generator, kept, sizes = numpy.random.default_rng(5), 0, []
    truth = numpy.array([0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    for _ in range(400):
        y = truth[:, None] + generator.normal(size=5) + 0.1 * generator.normal(size=(8, 5))
        rows = [numbers({(s, s): v for s, v in enumerate(row)}) for row in y]
        first = int(numpy.argmin(y.mean(1)))
        others = [i for i in range(8) if i != first]
        may = may_be_best([estimate(differences(rows[first], rows[i])) for i in others], False)
        kept += first == 0 or may[others.index(0)]
        sizes.append(sum(may))
    assert kept >= 380 - 13 and numpy.mean(sizes) < 5


def test_a_mean_over_configurations_keeps_what_their_noise_has_in_common():
    blocks = numpy.random.default_rng(2).normal(size=20)
    one, two = ({Seeds(0, 0): Number(v, v, tuple(v + k * blocks)), Seeds(1, 1): Number(v, v)} for v, k in ((1.0, 1.0), (3.0, 2.0)))
    found = averaged([one, two | {Seeds(5, 5): Number(0.0, 0.0)}])
    assert list(found) == [Seeds(0, 0), Seeds(1, 1)] and found[Seeds(0, 0)].left_out == pytest.approx(2 + 1.5 * blocks)
    shares = averaged([{Seeds(0, 0): Number(0.5, 0.5, (), 0.4, 0.7)}] * 4)[Seeds(0, 0)]
    assert (shares.low, shares.high) == pytest.approx((0.45, 0.6)) and averaged([]) == {}


def test_a_number_is_read_with_its_error():
    record = {"fd": 2.0, "fd_debiased": 1.5, "fd_low": 1.0, "fd_high": None, "left_out": {"fd": [1.0] * 20}, "share": 0.5}
    assert number_of(record, "fd")[:3] == (2.0, 1.5, (1.0,) * 20) and math.isnan(number_of(record, "fd").high)
    assert number_of(record, "share")[:3] == (0.5, 0.5, ())


def test_quantiles_are_students():
    assert (t_quantile(19), t_quantile(1), t_quantile(math.inf)) == pytest.approx((T19, 12.7062047362, 1.9599639845))
