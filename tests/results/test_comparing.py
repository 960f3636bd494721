"""`diffbench compare`: who is paired with whom, what is refused, and what a program gets."""

import json
import math

import pytest
from click.testing import CliRunner
from scipy.stats import ttest_rel

from diffbench.cli import compare as command
from diffbench.errors import DiffbenchError
from diffbench.results import comparing

FD = "fd_x"
MEANING = {FD: {"metric": "fid", "better": "lower", "interval": True, "same": ["dataset", "extractor_key", "sample_count"]}}


def row(cell_id, value, *, scheduler="ddim", seed=0, eta=None, steps=10, left_out=None, **changes):
    """(the cell as a plan describes it, its record)"""
    options = {"steps": steps} | ({} if eta is None else {"eta": eta})
    cell = {"dataset": {"component": "digits", "options": {}}, "backbone": {"component": "unet", "options": {"channels": 8}},
            "scheduler": {"component": scheduler, "options": options}, "train": {"steps": 5, "lr": 1e-3}, "sample": {"count": 50, "seed": "cell"}, "seed": seed}
    record = {"cell_id": cell_id, "status": "ok", "reason": "", "dataset": "digits", "seed": seed, "noise_seed": seed, FD: value, "train_key": f"{cell_id}-t",
              "extractor_key": "k", "sample_count": 50, "threads": 1} | changes
    return cell, record | ({"left_out": {FD: left_out}} if left_out else {})


def run(folder, rows, meaning=MEANING, machine="m"):
    (folder / "cells").mkdir(parents=True)
    for _, record in rows:
        (folder / "cells" / f"{record['cell_id']}.json").write_text(json.dumps(record))
    (folder / "plan.json").write_text(json.dumps({"cells": [{"cell_id": record["cell_id"], "cell": cell} for cell, record in rows]}))
    (folder / "columns.json").write_text(json.dumps(meaning))
    (folder / "environment.json").write_text(json.dumps({"machine": {"cpu": machine}}))
    return comparing.ComparedRun(folder)


def two(folder, a, b, **changes):
    """Two schedulers, a value for each seed."""
    return run(folder, [row(f"a{s}", v, seed=s, eta=0.0, **changes) for s, v in enumerate(a)]
               + [row(f"b{s}", v, seed=s, scheduler="ddpm", **changes) for s, v in enumerate(b)])


def test_over_seeds_it_is_the_paired_t_test(tmp_path):
    a, b = [5.0, 5.3, 4.9, 5.6], [5.2, 5.9, 5.0, 5.9]
    found = comparing.compare(two(tmp_path, a, b), "scheduler=ddim", "scheduler=ddpm")
    (d,) = found.differences
    assert d.p == pytest.approx(ttest_rel(b, a).pvalue) and found.pairs == 4 and d.a == pytest.approx(5.2) and list(d.by_seed.values()) == pytest.approx([0.2, 0.6, 0.1, 0.3])
    assert found.notes == ("compared: scheduler ddim (A) against ddpm (B), scheduler.eta 0.0 (A) against - (B)",)


def test_direction_decides_what_is_worse_and_a_flag_is_never_a_loss(tmp_path):
    for better, verdict in (("lower", "B is worse"), ("higher", "B is better"), (None, "differs")):
        made = run(tmp_path / str(better), [row(f"{n}{s}", v + s / 10, seed=s, scheduler=name) for n, name, v in (("a", "ddim", 1.0), ("b", "ddpm", 2.0)) for s in range(3)],
                   {FD: MEANING[FD] | {"better": better}})
        made.named[0].record[FD] += 0.01
        (d,) = comparing.compare(made, "scheduler=ddim", "scheduler=ddpm").differences
        assert (d.verdict, d.is_worse) == (verdict, better == "lower")


def test_rows_are_averaged_over_what_is_not_compared_before_seeds_are(tmp_path):
    """Two numbers of steps share their seeds: four differences are no four independent ones."""
    rows = [row(f"{n}{steps}{s}", 1.0 + shift * (1 + s) + steps, seed=s, scheduler=name, steps=steps)
            for n, name, shift in (("a", "ddim", 0.0), ("b", "ddpm", 0.5)) for steps in (10, 20) for s in (0, 1)]
    found = comparing.compare(run(tmp_path, rows), "scheduler=ddim", "scheduler=ddpm")
    (d,) = found.differences
    assert found.pairs == 4 and dict(d.by_seed) == {(0, 0): pytest.approx(0.5), (1, 1): pytest.approx(1.0)} and d.estimate.degrees == 1
    assert d.p == pytest.approx(ttest_rel([0.5, 1.0], [0.0, 0.0]).pvalue)


def test_p_is_of_all_columns(tmp_path):
    a, b, meaning = [5.0, 5.3, 4.9, 5.6], [5.2, 5.9, 5.0, 5.9], {name: MEANING[FD] for name in (FD, "kid_x", "third")}
    rows = [row(f"{n}{s}", v, seed=s, scheduler=name, kid_x=v, third=v) for n, name, some in (("a", "ddim", a), ("b", "ddpm", b)) for s, v in enumerate(some)]
    made = run(tmp_path, rows, meaning)
    assert [d.p for d in comparing.compare(made, "scheduler=ddim", "scheduler=ddpm").differences] == pytest.approx([3 * ttest_rel(b, a).pvalue] * 3)
    assert [d.column for d in comparing.compare(made, "scheduler=ddim", "scheduler=ddpm", only=["kid_x"]).differences] == ["kid_x"]
    with pytest.raises(DiffbenchError, match="colour: no column to compare; there are fd_x, kid_x, third, train_images"):
        comparing.compare(made, "scheduler=ddim", "scheduler=ddpm", only=["colour"])


@pytest.mark.parametrize(("a", "b", "said"), [
    ("zz", "b0", "no cell of .* is 'zz'"), ("a", "b0", "begins the ids of 2 cells"), ("colour=red", "b0", "no cell has 'colour'"),
    ("scheduler=heun", "b0", "no cell has scheduler=heun; there are \"ddim\", \"ddpm\""), ("a0", "a0", "name the same cells"),
    ("seed=[0,1]", "b0", "or several values of what is compared: give each side one value"), ("scheduler=ddim,oops", "b0", "write KEY=VALUE")])
def test_unclear_sides_are_refused(tmp_path, a, b, said):
    made = two(tmp_path, [1.0, 2.0], [1.5, 2.5])
    with pytest.raises(DiffbenchError, match=said):
        comparing.compare(made, a, b)


def test_another_seed_is_a_factor_that_is_named_and_failed_rows_are_left_out(tmp_path):
    made = two(tmp_path / "one", [1.0, 2.0], [1.5, 2.5])
    assert "seed 0 (A) against 1 (B)" in comparing.compare(made, "a0", "b1").notes[0]
    rows = [row(f"a{s}", 1.0 + s, seed=s) for s in (0, 1)] + [row("b0", 2.0, scheduler="ddpm"), row("b1", 9.0, scheduler="ddpm", seed=1, status="failed", reason="the sky fell")]
    failed = run(tmp_path / "two", rows)
    assert "left out: 1 rows of A, 0 of B" in comparing.compare(failed, "scheduler=ddim", "scheduler=ddpm").notes[1]
    with pytest.raises(DiffbenchError, match="none is ok, the first for: the sky fell"):
        comparing.compare(failed, "a0", "b1")


def test_two_runs_numbers_of_another_identity_are_refused_and_costs_of_other_machines_left_out(tmp_path):
    def made(name, shift, machine="m", **changes):
        return run(tmp_path / name, [row(f"{name}{s}", 1.0 + s + shift, seed=s, sample_images_per_second=10.0 + shift, peak_memory_bytes=5,
                                       train_images_per_second=7.0, sample_noisy=s == 0, train_noisy=False, **changes) for s in range(3)],
                   machine=machine)
    mine, same, other, foreign = made("mine", 0), made("same", 1), made("other", 0.1, "n", threads=2), made("foreign", 0, extractor_key="z")
    found = comparing.compare_runs(mine, same)
    # The sampling of one row is noisy: its rate is marked, and neither the rate of its training nor memory.
    assert [(r.column, r.ratio, r.is_noisy) for r in found.ratios] == [
        ("train_images_per_second", 1.0, False), ("sample_images_per_second", pytest.approx(1.1), True), ("peak_memory_bytes", 1.0, False)]
    found = comparing.compare_runs(mine, other)
    assert not found.ratios and any("measured on different machines" in note for note in found.notes) and any("to the bit: threads" in note for note in found.notes)
    found = comparing.compare_runs(mine, foreign)
    assert not found.differences and "not compared: fd_x: extractor_key differ between the sides, so it is another number" in found.notes
    with pytest.raises(DiffbenchError, match="these cannot be compared: fd_x: extractor_key differ"):
        comparing.compare_runs(mine, foreign, only=[FD])


def test_shared_trainings_are_said(tmp_path):
    made = two(tmp_path, [1.0, 2.0], [1.5, 2.5], train_key="t")
    assert "share their trained networks" in comparing.compare(made, "scheduler=ddim", "scheduler=ddpm").notes[1]


@pytest.mark.parametrize(("file", "content", "said"), [("columns.json", '{"fd_x": false}', "does not say what columns mean"), ("plan.json", "{", "cannot be read"),
                                                       ("columns.json", None, "holds no columns.json")])
def test_a_damaged_run_is_said(tmp_path, file, content, said):
    two(tmp_path, [1.0], [1.5])
    (tmp_path / file).unlink() if content is None else (tmp_path / file).write_text(content)
    with pytest.raises(DiffbenchError, match=said):
        comparing.ComparedRun(tmp_path)
    with pytest.raises(DiffbenchError, match="holds no results of a run"):
        comparing.ComparedRun(tmp_path / "nowhere")


def test_from_the_command_line(tmp_path):
    two(tmp_path / "run", [1.0, 1.1, 0.9], [2.0, 2.11, 1.9])

    def ask(*arguments):
        return CliRunner().invoke(command.command, [str(tmp_path / "run"), *arguments], catch_exceptions=False)
    worse, better = ask("scheduler=ddim", "scheduler=ddpm"), ask("scheduler=ddpm", "scheduler=ddim", "--json")
    assert worse.exit_code == 1 and "B is worse" in worse.output and "compared: scheduler ddim (A) against ddpm (B)" in worse.output and "by 3 seeds" in worse.output
    (d,) = json.loads(better.output)["differences"]
    assert better.exit_code == 0 and not d["is_worse"] and d["low"] < d["difference"] < d["high"] < 0
    one = ask("scheduler=ddim,seed=0", "scheduler=ddpm,seed=0", "--json")
    assert one.exit_code == 0 and json.loads(one.output)["differences"][0]["p_holm"] is None, "one pair without an interval proves nothing"
    assert math.isclose(json.loads(one.output)["differences"][0]["difference"], 1.0)
