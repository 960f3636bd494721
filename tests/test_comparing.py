"""Differences seed by seed: closed forms, how often they are right, and what is refused."""

import json
import math

import numpy
import pytest
from click.testing import CliRunner
from scipy.stats import ttest_rel

from diffbench import comparing
from diffbench.cli import compare as command
from diffbench.errors import DiffbenchError

FD = "fd_x"


def row(cell_id, value, *, scheduler="ddim", seed=0, left_out=None, **changes):
    found = {"cell_id": cell_id, "status": "ok", "reason": "", "dataset": "digits", "backbone": "unet", "noise_schedule": "cosine", "parameterization": "epsilon",
             "objective": "mse", "conditioning": "film", "spacing": "uniform", "scheduler": scheduler, "steps": 10, "guidance_scale": None, "seed": seed,
             "noise_seed": seed, FD: value, "train_key": f"t{seed}", "extractor": "x", "extractor_key": "k", "reference_count": 100, "sample_count": 50,
             "threads": 1, "started_at": "now"} | changes
    return found | ({"left_out": {FD: left_out}} if left_out else {})


def run(folder, rows, columns=None, machine="m"):
    (folder / "cells").mkdir(parents=True)
    for each in rows:
        (folder / "cells" / f"{each['cell_id']}.json").write_text(json.dumps(each))
    (folder / "columns.json").write_text(json.dumps(columns or {FD: False}))
    (folder / "environment.json").write_text(json.dumps({"machine": {"cpu": machine}}))
    return comparing.Run(folder)


def two(folder, a, b, **changes):
    """Two schedulers, a value for each seed."""
    rows = [row(f"a{s}", v, seed=s, **changes) for s, v in enumerate(a)] + [row(f"b{s}", v, seed=s, scheduler="ddpm", **changes) for s, v in enumerate(b)]
    return run(folder, rows)


def test_over_seeds_it_is_the_paired_t_test(tmp_path):
    a, b = [5.0, 5.3, 4.9, 5.6], [5.2, 5.9, 5.0, 5.9]
    (found,) = comparing.compare(two(tmp_path, a, b), "scheduler=ddim", "scheduler=ddpm").differences
    test = ttest_rel(b, a)
    interval = test.confidence_interval(0.95)
    assert (found.mean, found.p, found.low, found.high) == pytest.approx((numpy.mean(b) - numpy.mean(a), test.pvalue, interval.low, interval.high))
    assert found.differences == pytest.approx((0.2, 0.6, 0.1, 0.3)) and found.a == pytest.approx(numpy.mean(a)) and found.pairs == 4
    assert "4 pairs" in found.how and found.resolvable > (found.high - found.low) / 2


def test_with_one_seed_it_is_the_jackknife_of_the_difference(tmp_path):
    noise = numpy.random.default_rng(0).normal(size=(2, 20))
    shared = 3 * noise[0]                                         # what both sides have in common cancels
    made = run(tmp_path, [row("a", 5.0, left_out=list(5 + shared)), row("b", 6.0, scheduler="ddpm", left_out=list(6 + shared + 0.01 * noise[1]))])
    (found,) = comparing.compare(made, "a", "b").differences
    own = 0.01 * noise[1]
    error = math.sqrt(19 / 20 * ((own - own.mean()) ** 2).sum())
    assert (found.mean, (found.high - found.low) / 2) == pytest.approx((1.0, 2.093024 * error), rel=1e-5)
    assert found.is_worse and "paired jackknife" in found.how


def test_one_pair_without_a_jackknife_claims_nothing(tmp_path):
    (found,) = comparing.compare(run(tmp_path, [row("a", 5.0), row("b", 9.0, scheduler="ddpm")]), "a", "b").differences
    assert math.isnan(found.p) and not found.is_worse and "nothing is known" in found.how


def test_intervals_hold_the_truth_and_equal_sides_are_seldom_told_apart(tmp_path):
    """400 comparisons of 5 seeds whose own spread is ten times that of the difference."""
    generator = numpy.random.default_rng(1)
    held = told = 0
    for _ in range(400):
        seed, noise = generator.normal(size=5), 0.1 * generator.normal(size=(2, 5))
        pairs = [(row(f"a{s}", seed[s] + noise[0, s], seed=s), row(f"b{s}", seed[s] + noise[1, s] + 0.3, seed=s, scheduler="ddpm")) for s in range(5)]
        found = comparing._difference(FD, False, pairs, None, None)
        held += found.low <= 0.3 <= found.high
        same = [(x, y | {FD: y[FD] - 0.3}) for x, y in pairs]
        told += comparing._difference(FD, False, same, None, None).p < 0.05
    assert 368 <= held <= 392 and 8 <= told <= 32                 # 95 % and 5 %, three standard errors each


def test_p_is_adjusted_for_the_number_of_columns(tmp_path):
    columns = {FD: False, "kid_x": False, "precision": True}
    a, b = [5.0, 5.3, 4.9, 5.6], [5.2, 5.9, 5.0, 5.9]
    rows = [row(f"a{s}", v, seed=s, kid_x=v, precision=v) for s, v in enumerate(a)] + [
        row(f"b{s}", v, seed=s, scheduler="ddpm", kid_x=v, precision=v) for s, v in enumerate(b)]
    found = comparing.compare(run(tmp_path, rows, columns), "scheduler=ddim", "scheduler=ddpm")
    alone = ttest_rel(b, a).pvalue
    assert [d.p for d in found.differences] == pytest.approx([3 * alone] * 3) and "3 columns compared" in found.notes[-1]
    assert [d.column for d in comparing.compare(comparing.Run(tmp_path), "scheduler=ddim", "scheduler=ddpm", columns=["kid_x"]).differences] == ["kid_x"]


def test_direction_decides_what_is_worse(tmp_path):
    for higher, name in ((True, "up"), (False, "down")):
        made = two(tmp_path / name, [1.0, 1.1, 0.9], [2.0, 2.11, 1.9])
        made.columns = {FD: higher}
        (found,) = comparing.compare(made, "scheduler=ddim", "scheduler=ddpm").differences
        assert found.is_worse != higher


def test_pairs_agree_in_everything_else_and_sides_must_be_clear(tmp_path):
    made = two(tmp_path / "one", [1.0, 2.0], [1.5, 2.5])
    assert comparing.compare(made, "scheduler=ddim,seed=1", "scheduler=ddpm,seed=1").differences[0].differences == (0.5,)
    for a, b, said in (("scheduler=heun", "a0", "no cell of .* is 'scheduler=heun'"), ("colour=red", "a0", "no column 'colour'"), ("a", "b0", "begins the ids of 2 cells"),
                       ("a0", "b1", "compared"), ("a0", "a0", "name the same cells"), ("dataset=digits", "scheduler=ddpm", "")):
        if said == "compared":                                    # another seed and another scheduler: both are named
            assert "seed 0 (A) against 1 (B)" in comparing.compare(made, a, b).notes[0]
        elif said:
            with pytest.raises(DiffbenchError, match=said):
                comparing.compare(made, a, b)
    with pytest.raises(DiffbenchError, match="not a column with a known direction"):
        comparing.compare(made, "scheduler=ddim", "scheduler=ddpm", columns=["seed"])
    failed = run(tmp_path / "two", [row("a", 1.0, status="failed", reason="the sky fell"), row("b", 1.0)])
    with pytest.raises(DiffbenchError, match="none is ok: the sky fell"):
        comparing.compare(failed, "a", "b")


def test_numbers_of_another_identity_are_refused_and_speeds_of_other_machines_left_out(tmp_path):
    columns = {FD: False, "sample_images_per_second": True}
    mine = run(tmp_path / "mine", [row(f"c{s}", 1.0 + s, seed=s, sample_images_per_second=10.0 + s) for s in range(3)], columns)
    other = run(tmp_path / "other", [row(f"d{s}", 1.2 + s, seed=s, sample_images_per_second=20.0 + s, threads=2) for s in range(3)], columns, machine="n")
    found = comparing.compare_runs(mine, other)
    assert [d.column for d in found.differences] == [FD] and any("different machines" in note for note in found.notes)
    assert any("to the bit" in note for note in found.notes)
    foreign = run(tmp_path / "foreign", [row(f"e{s}", 1.2 + s, seed=s, extractor_key="z", sample_images_per_second=20.0) for s in range(3)], columns)
    with pytest.raises(DiffbenchError, match="fd_x cannot be compared: extractor_key differ"):
        comparing.compare_runs(mine, foreign)
    assert comparing.compare_runs(mine, foreign, columns=["sample_images_per_second"]).differences[0].mean == pytest.approx(9.0)


def test_variance_components_of_crossed_seeds(tmp_path):
    """Searle's balanced layout: exact for constructed effects, right on average for random ones."""
    exact = comparing.spread([[r + c for c in (0.0, 3.0, 6.0)] for r in (0.0, 1.0, 2.0)])
    assert (exact.training, exact.sampling, exact.rest) == pytest.approx((1.0, 3.0, 0.0), abs=1e-7)
    generator, found = numpy.random.default_rng(0), []
    for _ in range(300):
        effects = 0.25 * generator.normal(size=(5, 1)) + 0.41 * generator.normal(size=(1, 4)) + 0.1 * generator.normal(size=(5, 4))
        found.append(comparing.spread(effects.tolist()))
    assert numpy.mean([f.training**2 for f in found]) == pytest.approx(0.25**2, rel=0.15)
    assert numpy.mean([f.sampling**2 for f in found]) == pytest.approx(0.41**2, rel=0.2)
    assert numpy.mean([f.rest**2 for f in found]) == pytest.approx(0.1**2, rel=0.1)


def test_from_the_command_line(tmp_path):
    two(tmp_path / "run", [1.0, 1.1, 0.9], [2.0, 2.11, 1.9])

    def ask(*arguments):
        return CliRunner().invoke(command.command, [str(tmp_path / "run"), *arguments], catch_exceptions=False)
    worse, better = ask("scheduler=ddim", "scheduler=ddpm"), ask("scheduler=ddpm", "scheduler=ddim", "--json")
    assert worse.exit_code == 1 and "B is worse" in worse.output and "compared: scheduler ddim (A) against ddpm (B)" in worse.output
    assert better.exit_code == 0 and json.loads(better.output)["differences"][0]["is_worse"] is False
    assert ask("scheduler=ddim,seed=0", "scheduler=ddpm,seed=0").exit_code == 0, "one pair without an interval proves nothing"
