"""Network evaluations stand beside the name of what was measured, and a comparison of unequal ones says so."""

import re

import pytest

from diffbench.report import effects, exports, page, tables
from diffbench.report.layout import laid_out, with_nfe
from diffbench.report.reading import ReportedRun, read
from diffbench.results import comparing, nfe
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.made_rows import FD


@pytest.mark.parametrize(("values", "said"), [([19.0], "NFE 19"), ([38.0, 19.0, 38.0], "NFE 19 to 38"), ([float("nan")], ""), ([], ""), ([19.5, float("nan")], "NFE 19.5")])
def test_numbers_of_evaluations_in_words(values, said):
    assert nfe.spelt(values) == said


@pytest.mark.parametrize(("compared", "said"), [
    ([(19.0, 20.0)], "compares unequal NFE: 19 against 20"), ([(20.0, 20.0), (40.0, 40.0)], ""), ([], ""), ([(float("nan"), 20.0)], ""),
    ([(10.0, 20.0), (20.0, 40.0)], "compares unequal NFE: 10 to 20 against 20 to 40")])
def test_unequal_evaluations_are_told_pair_by_pair(compared, said):
    assert nfe.unequal(compared) == said


def test_they_join_the_heads_or_the_lines_whichever_tells_them():
    entries = {("ddim", "10", "unet"): "a", ("pndm", "10", "unet"): "b"}
    heads = with_nfe(entries, ["backbone"], ["scheduler", "steps"], {key: [20.0 if key[0] == "ddim" else 19.0] for key in entries})
    assert "| backbone   | ddim 10 · NFE 20   | pndm 10 · NFE 19   |" in laid_out(*heads)
    turned = {(key[2], *key[:2]): entry for key, entry in entries.items()}
    lines = with_nfe(turned, ["scheduler", "steps"], ["backbone"], {key: [20.0 if key[1] == "ddim" else 19.0] for key in turned})
    assert "| scheduler   | steps   | NFE   | unet   |" in laid_out(*lines) and "| pndm        | 10      | 19    | b      |" in laid_out(*lines)
    guided = {("ddim", "10", "none"): "a", ("ddim", "10", "cfg"): "b", ("pndm", "10", "none"): "c"}
    mixed = with_nfe(guided, ["conditioning"], ["scheduler", "steps"], {key: [10.0 + 10 * (key[2] == "cfg") + (key[0] == "pndm")] for key in guided})
    assert "ddim 10 · NFE 10 to 20" in laid_out(*mixed)
    assert with_nfe(entries, ["backbone"], ["scheduler", "steps"], {}) == (entries, ["backbone"], ["scheduler", "steps"])


def rows():
    """PNDM at 10 steps makes 19 evaluations, guided 38; DDIM at 20 makes 20, guided 40."""
    made = made_rows.rows(schedulers=(("ddim", 20), ("pndm", 10)), others=False)
    return [row | {"nfe": {"ddim": 40.0, "pndm": 38.0}[row["scheduler"]]} for row in made]


@pytest.fixture
def run(tmp_path):
    found = ReportedRun(made_rows.folder(tmp_path / "run", rows()))
    facts = tables.Facts(name="t", real=tables.RealImages(), machine={}, columns=found.columns, records=found.records)
    tables.write(found.folder, found.rows, found.layout.rows, found.layout.columns, facts)
    return found


def test_every_head_that_compares_has_them(run, tmp_path):
    for name in ("fid.md", "throughput.md"):
        assert "pndm 10 · NFE 38" in (run.folder / name).read_text(), name
    exports.write(run.folder, ["md", "latex"])
    assert "pndm 10 · NFE 38" in (run.folder / "exports" / f"{FD}.md").read_text()
    for name in (FD, "throughput"):
        assert "{c}{NFE 38}" in (run.folder / "exports" / f"{name}.tex").read_text().replace("& NFE 38", "& {c}{NFE 38}"), name
    store = Store(tmp_path / "store")
    store.prepare()
    shown = page.html(read([run.folder]), store)
    assert re.search(r"Best by <code>[^<]*</code> \([^)]*\): <strong>[^<]*pndm, steps 10 · NFE 38|Best by <code>[^<]*</code> \([^)]*\): <strong>[^<]*ddim, steps 20 · NFE 40", shown)
    assert re.search(r"<strong>(ddim, steps 20</strong> · NFE 40|pndm, steps 10</strong> · NFE 38)", shown)
    assert re.search(r"compares unequal NFE: (38 against 40|40 against 38)", shown)


def test_differences_axes_and_compare_say_where_they_are_unequal(run):
    text = (run.folder / "fid.md").read_text().partition("### Differences")[2]
    assert re.search(r"^This compares unequal NFE: 38 to 40 against (38|40)\.$", text, re.MULTILINE) and "| NFE" in text
    sheet, part = run.sheets[0]
    found = {axis.name: axis for axis in effects.axes(part, sheet.quantity, "lower", run.records)}
    assert [e.unequal_nfe for e in found["backbone"].effects] == [""], "each configuration meets one of its own cost"
    (unequal,) = (e.unequal_nfe for e in found["scheduler"].effects)
    assert unequal in ("compares unequal NFE: 38 against 40", "compares unequal NFE: 40 against 38")
    made = comparing.ComparedRun(run.folder)
    assert "B compares unequal NFE: 38 against 40" in comparing.compare(made, "scheduler=ddim", "scheduler=pndm").notes
    assert not any("NFE" in note for note in comparing.compare(made, "backbone=unet", "backbone=dit").notes)


def test_sides_asked_for_other_labels_are_told(run):
    made = comparing.ComparedRun(run.folder)
    for row in made.named:
        row.made_of["sample.labels"] = "even" if row.made_of["backbone"] == "dit" else "data"
    assert any("asked for labels in different shares (sample.labels)" in note for note in comparing.compare(made, "backbone=unet", "backbone=dit").notes)
    assert not any("labels" in note for note in comparing.compare(made, "scheduler=ddim", "scheduler=pndm").notes)
