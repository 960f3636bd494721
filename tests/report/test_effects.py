"""What each level of an axis changes: exact on an additive truth, and the difference of two rows where there are two."""
import math

from diffbench.report import effects
from diffbench.results import frame as frames
from diffbench.results.quantity import quantity_of
from diffbench.stats.numbers_of_rows import Seeds, differences, number_of
from diffbench.stats.over_seeds import estimate
from tests.helpers import made_rows
from tests.helpers.made_rows import FD


def rows_of(value):
    made = [row for row in made_rows.rows(interval=False, others=False)]
    for row in made:
        row[FD] = value(row)
    return frames.frame(made), {row["cell_id"]: row for row in made}


def test_of_an_additive_truth_they_are_exact():
    part = {"unet": 0.0, "dit": 3.0, ("ddpm", 50): 0.0, ("ddim", 20): 1.0, ("ddim", 10): 2.0, ("pndm", 10): 4.0, 1.5: 0.0, 3.0: 0.5}
    table, records = rows_of(lambda r: 7 + part[r["backbone"]] + part[r["scheduler"], r["steps"]] + part[r["conditioning.scale"]] + r["seed"])
    found = {axis.name: axis for axis in effects.axes(table, quantity_of(FD, list(records.values())), "lower", records)}
    assert {name: axis.best for name, axis in found.items()} == {"backbone": "unet", "conditioning": "cfg, scale 1.5", "scheduler": "ddpm, steps 50"}
    assert [(e.level, round(e.difference.debiased, 12), e.configurations) for e in found["scheduler"].effects] == [
        ("ddim, steps 20", 1.0, 4), ("ddim, steps 10", 2.0, 4), ("pndm, steps 10", 4.0, 4)]
    assert all(math.isnan(e.p) and e.may_be_best for axis in found.values() for e in axis.effects), "seeds that agree exactly tell nothing of their error"
    higher = {axis.name: axis.best for axis in effects.axes(table, quantity_of(FD, list(records.values())), "higher", records)}
    assert higher == {"backbone": "dit", "conditioning": "cfg, scale 3", "scheduler": "pndm, steps 10"}


def test_an_axis_of_one_pair_of_rows_is_their_difference():
    made = made_rows.rows(backbones=("unet",), schedulers=(("ddpm", 50), ("ddim", 20)), scales=(1.5,), others=False)
    records = {row["cell_id"]: row for row in made}
    (axis,) = effects.axes(frames.frame(made), quantity_of(FD, made), "lower", records)
    sides = [{Seeds(r["seed"], r["noise_seed"]): number_of(r, FD) for r in made if r["scheduler"] == name} for name in ("ddpm", "ddim")]
    expected = estimate(differences(*(sides if axis.best.startswith("ddpm") else sides[::-1])))
    assert (axis.effects[0].difference.low, axis.effects[0].difference.high) == (expected.low, expected.high)


def test_levels_that_were_never_side_by_side_have_no_difference():
    made = [r for r in made_rows.rows(others=False) if (r["backbone"] == "unet") == (r["scheduler"] == "ddpm")]
    records = {row["cell_id"]: row for row in made}
    found = {axis.name: axis for axis in effects.axes(frames.frame(made), quantity_of(FD, made), "lower", records)}
    assert [e.difference for e in found["backbone"].effects] == [None] and not found["backbone"].effects[0].may_be_best
