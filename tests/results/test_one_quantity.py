"""One quantity for a column: what tables, page, exports, `compare` and notebooks show is ranked, and stands beside its own interval."""

import json
import re

import pandas
import pytest
from click.testing import CliRunner

from diffbench.cli import compare as command
from diffbench.report import exports, notebook_files, page, quality, tables
from diffbench.report.reading import ReportedRun, read
from diffbench.results.quantity import quantity_of
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

ENDS = ("debiased", "low", "high")
REASON = "40 samples for 512 features: 1,024 would do"
INTERVAL = re.compile(r"(-?\d+(?:\.\d+)?(?:e[+-]\d+)?) \((-?\d+(?:\.\d+)?(?:e[+-]\d+)?) to (-?\d+(?:\.\d+)?(?:e[+-]\d+)?)\)")


def rows(lacks=lambda row: False, **options):
    """Rows whose conventional value lies outside of the interval of the debiased one; those that lack that one give the reason."""
    made = made_rows.rows(others=False, **options)
    for row in made:
        row |= {f"{FD}_debiased": row[FD] - 2, f"{FD}_low": row[FD] - 2.5, f"{FD}_high": row[FD] - 1.5}
        if lacks(row):
            row |= {f"{FD}_{end}": None for end in ENDS} | {f"{FD}_no_interval": REASON}
    return made


def written(path, made, real=None, baseline=frozenset()):
    """(the run's folder, its fid.md)"""
    run = ReportedRun(made_rows.folder(path, made))
    facts = tables.Facts(name="t", real=real or tables.RealImages(), machine={}, columns=run.columns, records=run.records, baseline=baseline)
    tables.write(run.folder, run.rows, run.layout.rows, run.layout.columns, facts)
    return run.folder, (run.folder / "fid.md").read_text()


def html(folder, tmp_path):
    store = Store(tmp_path / "store")
    store.prepare()
    return page.html(read([folder]), store)


def sheet_of(folder):
    return next(sheet for sheet, _ in ReportedRun(folder).sheets if sheet.column == FD)


@pytest.mark.parametrize("seeds", [((0, 0),), ((0, 0), (1, 1), (2, 2))])
def test_no_value_stands_beside_an_interval_that_is_not_its_own(tmp_path, seeds):
    folder, text = written(tmp_path / "run", rows(seeds=seeds))
    exports.write(folder, ["md", "latex"])
    shown = [text, html(folder, tmp_path).partition('id="data"')[0], *(path.read_text() for path in (folder / "exports").glob("*.md"))]
    found = [tuple(map(float, match)) for part in shown for match in INTERVAL.findall(part)]
    assert len(found) > 50 and all(low <= value <= high for value, low, high in found)
    tex = (folder / "exports" / f"{FD}.tex").read_text()
    values, lows = (re.findall(pattern, tex) for pattern in (r"\$(?:\\mathbf\{)?([\d.]+)\}?(?:\^\{\\approx\})?\$", r"\[([\d.]+),\\,([\d.]+)\]"))
    assert len(values) == len(lows) and all(float(low) <= float(value) <= float(high) for value, (low, high) in zip(values, lows, strict=True))
    means = pandas.read_csv(folder / "means.csv").query(f"column == '{FD}'")
    assert set(means["quantity"]) == {f"{FD}_debiased"} and ((means["low"] <= means["mean"]) & (means["mean"] <= means["high"])).all()
    assert means["conventional"].to_numpy() == pytest.approx(means["mean"].to_numpy() + 2)
    lines = pandas.read_csv(folder / "fid.csv")
    assert lines[f"{FD} (conventional, biased)"].to_numpy() == pytest.approx(lines[f"{FD}_debiased"].to_numpy() + 2) and len(lines) == len(means)


def test_headline_table_figure_and_compare_say_the_same_number(tmp_path):
    folder, text = written(tmp_path / "run", rows(seeds=((0, 0),)))
    best = min(ReportedRun(folder).rows[f"{FD}_debiased"])
    shown = html(folder, tmp_path)
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', shown, re.DOTALL)[1])
    drawn = min(entry["value"] for entry in data["sheets"][0]["entries"].values())
    assert drawn == best and re.search(rf"Best by <code>{FD}_debiased</code>.*, at {best:.3g} \(", shown) and f"**{best:.3g} (" in text
    sides = [row["cell_id"] for row in rows(seeds=((0, 0),))[:2]]
    done = CliRunner().invoke(command.command, [str(folder), *sides, "--metric", FD], catch_exceptions=False)
    (d,) = json.loads(CliRunner().invoke(command.command, [str(folder), *sides, "--metric", FD, "--json"]).output)["differences"]
    assert d["quantity"] == f"{FD}_debiased" and d["b"] - d["a"] == pytest.approx(d["difference"]) and d["conventional"] == pytest.approx([d["a"] + 2, d["b"] + 2])
    assert f"{FD} (conventional, biased)" in done.output and "as published elsewhere, not compared" in done.output


def test_a_row_without_a_debiased_value_is_shown_and_not_ranked(tmp_path):
    def lacks(row):
        return row["scheduler"] == "ddpm" and row["backbone"] == "unet"

    folder, text = written(tmp_path / "run", rows(lacks, seeds=((0, 0),)))
    sheet = sheet_of(folder)
    assert len(sheet.lacking) == 2 and not set(sheet.lacking) & {*sheet.means, *sheet.to_reference, *sheet.may_be_best} and sheet.best not in sheet.lacking
    assert f"2 of 16 rows have no `{FD}_debiased` (—) and are not ranked: {REASON}." in text and f"has the best `{FD} (conventional, biased)`." in text
    assert text.partition("###")[0].count("| —") == 2 and f"### `{FD} (conventional, biased)`" in text
    shown = html(folder, tmp_path)
    assert shown.count(f'<abbr title="{REASON}">—</abbr>') == 2
    assert f"Not ranked: 2 configurations without a <code>{FD}_debiased</code>." in shown
    exports.write(folder, ["latex", "md"])
    assert (folder / "exports" / f"{FD}.tex").read_text().count("& ---") == 2 and "| —" in (folder / "exports" / f"{FD}.md").read_text()


def test_where_most_rows_have_none_the_conventional_value_is_shown_for_all_without_foreign_intervals(tmp_path):
    folder, text = written(tmp_path / "run", rows(lambda row: row["backbone"] == "unet" or row["steps"] == 10, seeds=((0, 0),)))
    sheet = sheet_of(folder)
    assert sheet.quantity.name == f"{FD} (conventional, biased)" and not sheet.conventional and not INTERVAL.search(text.partition("## `class")[0])
    assert f"so that the biased one is what is shown and ranked, for all rows: {REASON}." in text and f"## `{FD} (conventional, biased)`, lower is better" in text
    assert {key: mean.debiased for key, mean in sheet.means.items()} == {key: mean.value for key, mean in sheet.means.items()}
    folder, text = written(tmp_path / "seeds", rows(lambda row: True))
    assert all(mean.low < mean.value < mean.high for mean in sheet_of(folder).means.values()), "over seeds a mean has an interval of its own"


def test_a_mean_is_of_all_seeds_or_there_is_none(tmp_path):
    folder, _ = written(tmp_path / "run", rows(lambda row: row["backbone"] == "unet" and row["scheduler"] == "ddpm" and row["seed"] == 1))
    sheet = sheet_of(folder)
    assert len(sheet.lacking) == 2 and len(sheet.conventional) == 16 and {len(mean.seeds) for mean in sheet.means.values()} == {3}


def test_a_baseline_without_the_quantity_is_no_reference(tmp_path):
    made = rows(lambda row: row["scheduler"] == "ddpm", seeds=((0, 0),))
    folder, text = written(tmp_path / "run", made, baseline=frozenset([made[0]["cell_id"]]))
    assert f"The baseline has no `{FD}_debiased`: nothing is compared with it." in text and "### Differences" not in text


def test_one_side_without_a_debiased_value_makes_both_conventional(tmp_path):
    made = rows(lambda row: row["backbone"] == "dit", seeds=((0, 0),))
    folder, _ = written(tmp_path / "run", made)
    sides = [next(row["cell_id"] for row in made if row["backbone"] == name) for name in ("unet", "dit")]
    done = CliRunner().invoke(command.command, [str(folder), *sides, "--metric", FD, "--json"], catch_exceptions=False)
    found = json.loads(done.output)
    (d,) = found["differences"]
    values = [next(row[FD] for row in made if row["cell_id"] == side) for side in sides]
    assert [d["a"], d["b"]] == values and d["difference"] == pytest.approx(values[1] - values[0]) and d["verdict"] == "no interval" and d["low"] is None
    assert f"{FD}: 1 of 2 rows have no debiased value, so that both sides are compared by the biased one: {REASON}" in found["notes"]


def test_real_images_are_given_in_the_quantity_of_the_rows(tmp_path):
    own = {FD: 1.5, f"{FD}_debiased": 0.5, f"{FD}_low": 0.1, f"{FD}_high": 0.9}
    lacking = {FD: 1.5, f"{FD}_no_interval": REASON}
    for name, made, held_out, said in (
            ("both", rows(), own, "are at 0.5 (0.1 to 0.9); 1.5 (conventional, biased)."),
            ("floor", rows(), lacking, "are at —; 1.5 (conventional, biased)."),
            ("rows", rows(lambda row: True), own, "are at 1.5 (conventional, biased).")):
        folder, text = written(tmp_path / name, made, tables.RealImages(held_out={f"digits:{FD}": held_out}))
        assert said in text
        (folder / tables.REAL).write_text(json.dumps({"held_out": {f"digits:{FD}": held_out}, "training": {}}))
        assert page.data.of_sheets(ReportedRun(folder), page.data.configurations(ReportedRun(folder)))[0]["floor"] == {"both": 0.5, "floor": None, "rows": 1.5}[name]


def test_a_metric_without_bias_has_one_column_and_its_reason(tmp_path):
    made = [row | {f"class_accuracy_{end}": row["class_accuracy"] + by for end, by in (("debiased", 0.0), ("low", -0.1), ("high", 0.1))} for row in rows()]
    assert quantity_of("class_accuracy", made).name == "class_accuracy"
    without = [{k: v for k, v in row.items() if not k.startswith("class_accuracy_")} | {"class_accuracy_no_interval": REASON} for row in made]
    _, text = written(tmp_path / "run", without)
    assert "`class_accuracy`, higher is better" in text and f"16 of 16 rows have no interval: {REASON}." in text
    assert "class_accuracy (conventional" not in text


@pytest.mark.parametrize("lacks", [lambda row: False, lambda row: row["scheduler"] == "ddpm", lambda row: True])
def test_notebooks_choose_the_quantity_as_the_tables_do(tmp_path, lacks):
    folder, _ = written(tmp_path / "run", rows(lacks))
    table, sheet, paired = ReportedRun(folder).rows, sheet_of(folder), notebook_files.module("paired")
    assert paired.quantity(table, FD) == (sheet.quantity.name if sheet.quantity.is_debiased else FD)
    means = paired.means(table, FD)
    assert sorted(means["mean"]) == pytest.approx(sorted(mean.debiased for mean in sheet.means.values()))
    assert ((means["low"] <= means["mean"]) & (means["mean"] <= means["high"])).all()
    assert ("conventional, biased" in means) == sheet.quantity.is_debiased


def test_worse_is_worse_in_both_directions(tmp_path):
    folder, text = written(tmp_path / "run", rows())
    assert "| worse by |" in re.sub(" +", " ", text)
    for sheet, _ in ReportedRun(folder).sheets:
        assert all(quality.worse_by(d, sheet.better)[0] >= 0 for d in sheet.to_reference.values())
        for d in sheet.to_reference.values():
            value, low, high = quality.worse_by(d, sheet.better)
            assert low <= value <= high and abs(value) == abs(d.debiased)


def test_one_training_each_is_said_above_the_tables(tmp_path):
    said = "One training each: says nothing of other trainings."
    folder, text = written(tmp_path / "one", rows(seeds=((0, 0), (0, 1))))
    assert text.index(f"**{said}") < text.index("## `fd") and html(folder, tmp_path).count(f'<p class="warning"><strong>{said}') == 2
    folder, text = written(tmp_path / "three", rows())
    assert said not in text and said not in html(folder, tmp_path)


def test_rows_of_labels_in_different_shares_are_told(tmp_path):
    made = [row | {"sample.labels": "even" if row["backbone"] == "dit" else "data"} for row in rows()]
    folder, text = written(tmp_path / "run", made)
    said = "Rows were asked for labels in different shares (`sample.labels`: data, even): what that changes is in their differences."
    assert said in text and said.replace("`", "") in (html(folder, tmp_path).replace("<code>", "").replace("</code>", "").replace("`", ""))
