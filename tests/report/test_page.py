"""report.html: its numbers are those of the parquet file, nothing in it is markup that was not meant to be, and it stays small."""

import base64
import json
import re
import time
from html.parser import HTMLParser

import pandas
import pytest

import diffbench
from diffbench.errors import DiffbenchError
from diffbench.report import grids, page
from diffbench.report.reading import ReportedRun, read
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

HOSTILE = "<img src=x onerror=alert(1)>"


def html(*folders, store, **options):
    return page.html(read(folders), store, **options)


def data(text):
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


class Tables(HTMLParser):
    """The texts of each table's body, by data-table."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.name = {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        said = dict(attributes)
        if tag == "table":
            self.name = said.get("data-table")
            self.tables.setdefault(self.name, [])
        elif tag == "tr" and self.name:
            self.tables[self.name].append([])
        elif tag in ("td", "th") and self.name:
            self.tables[self.name][-1].append("")

    def handle_endtag(self, tag):
        if tag == "table":
            self.name = None

    def handle_data(self, text):
        if self.name and self.tables[self.name] and self.tables[self.name][-1]:
            self.tables[self.name][-1][-1] += text


class TestNumbers:
    def test_the_table_of_quality_has_the_means_of_the_parquet_file(self, run, store):
        rows = pandas.read_parquet(run / "results.parquet")
        naming = ["backbone", "conditioning.scale", "scheduler", "steps"]
        shown = [f"{FD}_debiased", FD, "class_accuracy"]
        means = rows[rows["status"] == "ok"].groupby(naming)[shown].mean()
        head, *body = Tables(html(run, store=store)).tables["quality"]
        titles = [re.split(r"lower|higher|not ranked", title)[0].strip() for title in head]
        assert titles == [*naming, "NFE", f"{FD}_debiased", f"{FD} (conventional, biased)", "class_accuracy"] and len(body) == len(means)
        for line in body:
            expected = means.loc[(line[0], float(line[1]), line[2], int(line[3]))]
            assert [float(text.split()[0]) for text in line[5:8]] == [float(f"{v:.3g}") for v in expected]

    def test_the_embedded_data_are_those_of_means_csv_and_differences_csv(self, run, store):
        source = read([run])
        found, lines = data(html(run, store=store)), page.data.configurations(source)
        from diffbench.report.quality import as_frames
        means, told = as_frames([sheet for sheet, _ in source.sheets])
        by_column = {s["column"]: s for s in found["sheets"]}
        for frame, of in ((means, lambda e: e), (told, lambda e: e["versus"])):
            for row in frame.to_dict("records"):
                place = lines.keys[tuple(row[name] for name in lines.naming)]
                entry = of(by_column[row["column"]]["entries"][str(place)])
                assert entry["difference" if frame is told else "value"] == row["difference" if frame is told else "mean"]
                assert (entry["low"], entry["high"]) == (row["low"], row["high"])

    def test_throughput_is_that_of_the_rows_and_the_fastest_is_bold(self, run, store):
        rows = pandas.read_parquet(run / "results.parquet").drop_duplicates(["backbone", "conditioning.scale", "scheduler", "steps"]).query("status == 'ok'")
        text = html(run, store=store)
        head, *body = Tables(text).tables["throughput"]
        at = [re.split(r"lower|higher", title)[0].strip() for title in head].index("images per second")
        assert [float(line[at].split()[0]) for line in body] == [float(f"{v:.4g}") for v in rows["sample_images_per_second"]]
        assert text.count("<strong>100 (") == 8 and "†" in text, "all of ten steps are as fast"
        assert [c["best"] for c in data(text)["costs"]].count(True) == 8

    def test_what_was_not_measured_stands_there_with_its_reason(self, run, store):
        text = html(run, store=store)
        assert "no socket" in text and "=1+1 raised &lt;b&gt;&amp;" in text and "<b>&" not in text

    def test_levels_that_were_never_side_by_side_are_said_to_be(self, tmp_path, store):
        made = [r for r in made_rows.rows(others=False) if (r["backbone"] == "unet") == (r["scheduler"] == "ddpm")]
        assert "never measured side by side" in html(made_rows.folder(tmp_path / "run", made), store=store)

    def test_a_run_without_a_row_has_a_page(self, tmp_path, store):
        folder = made_rows.folder(tmp_path / "run", [])
        assert "No cell has been measured yet." in html(folder, store=store)
        (folder / "columns.json").unlink()
        assert "No row has a measured value yet." in html(folder, store=store)


    def test_a_run_that_was_killed_has_a_page_of_the_rows_that_are_there(self, tmp_path, store):
        made = made_rows.rows(others=False)
        folder = made_rows.folder(tmp_path / "run", made)
        for name in ("results.parquet", "results.csv", *(f"cells/{row['cell_id']}.json" for row in made if row["backbone"] == "dit")):
            (folder / name).unlink()
        text = html(folder, store=store)
        assert len(data(text)["keys"]) == 8 and "unet" in text, "four samplers at two scales of one backbone"
        assert set(ReportedRun(folder).rows["backbone"]) == {"unet"}


class TestSafety:
    def test_a_component_with_markup_for_a_name_stays_text(self, tmp_path, store):
        folder = made_rows.folder(tmp_path / "run", made_rows.rows(backbones=(HOSTILE, "</script><script>alert(2)</script>")), name=HOSTILE, pictures=True)
        section = diffbench.Section(title=HOSTILE, body=[HOSTILE, pandas.DataFrame({HOSTILE: [HOSTILE]})])
        text = html(folder, store=store, sections=[(HOSTILE, section)])
        assert HOSTILE not in text and "alert(2)</script>" not in text and "&lt;img src=x onerror=alert(1)&gt;" in text
        assert HOSTILE in data(text)["keys"][0], "in the data it is as it was"
        assert text.count("<script") == 3

    def test_the_browser_may_run_its_two_scripts_and_ask_nobody(self, run, store):
        policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html(run, store=store))[1].replace("&#39;", "'")
        assert "default-src 'none'" in policy and policy.count("sha256-") == 2 and "connect-src 'none'" in policy and "'unsafe-eval'" not in policy
        assert "script-src 'unsafe-inline'" not in policy
        assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]', html(run, store=store).partition('id="data"')[0])

    def test_a_script_that_would_end_the_page_is_refused(self, run, store, monkeypatch):
        import plotly.offline

        monkeypatch.setattr(plotly.offline, "get_plotlyjs", lambda: "a('</script>')")
        page._plotly.cache_clear()
        with pytest.raises(DiffbenchError, match="this release of plotly has a script that cannot stand inside a page: install another one"):
            html(run, store=store)

    def test_a_picture_needs_words_and_a_section_known_parts(self):
        with pytest.raises(ValueError, match="a picture needs alternative text: say in `alt` what it shows"):
            diffbench.Picture(data=b"\x89PNG", alt=" ")
        with pytest.raises(ValueError, match="a picture is a PNG, JPEG, WebP or SVG file; this one begins with b'<html>'"):
            diffbench.Picture(data=b"<html>", alt="x")
        with pytest.raises(TypeError, match="a section holds texts, pandas.DataFrames and diffbench.Pictures, got int"):
            diffbench.Section(title="x", body=[1])

    def test_a_plug_ins_section_is_on_the_page_and_a_broken_plug_in_is_not(self, run, store):
        registry = diffbench.load_registry()

        class Good:
            @diffbench.hookimpl
            def diffbench_report_sections(self, rows, folder):
                return [diffbench.Section(title="Mine", body=[f"{len(rows)} rows", diffbench.Picture(data=b"<svg></svg>", alt="nothing")])]

        class Bad:
            @diffbench.hookimpl
            def diffbench_report_sections(self):
                return ["no section"]

        registry.hooks.register(Good(), "good")
        registry.hooks.register(Bad(), "bad")
        found = registry.report_sections(ReportedRun(run).rows, run)
        assert [name for name, _ in found] == ["good"] and any("gives diffbench.Sections" in problem.message for problem in registry.problems)
        text = html(run, store=store, sections=found)
        assert "50 rows" in text and "By the plug-in good." in text and 'alt="nothing"' in text


def test_a_run_of_500_cells_stays_small_and_is_made_in_seconds(tmp_path, store):
    made = made_rows.rows(backbones=[f"b{i}" for i in range(21)], schedulers=made_rows.SCHEDULERS, scales=(1.0, 3.0), seeds=((0, 0), (1, 1), (2, 2)))
    assert len(made) > 500
    folder = made_rows.folder(tmp_path / "run", made, pictures=True)
    since = time.process_time()
    text = html(folder, store=store)
    assert time.process_time() - since < 20 and len(text.encode()) < 15e6
    assert text.count('alt="Generated images of') == 168


def test_grids_are_cut_between_lines_and_the_budget_is_kept(tmp_path, store, monkeypatch):
    import numpy

    folder = made_rows.folder(tmp_path / "run", made_rows.rows())
    noise = numpy.random.default_rng(0)
    for path in (folder / "cells").glob("0*.json"):
        store_key = "a" * 64
        store.publish("sample", store_key, {}, {"images.safetensors": _tensors(noise.integers(0, 256, (80, 3, 40, 40), numpy.uint8))})
        grids.write(store, store_key, folder / "samples" / f"{path.stem}.png")
    pictures = re.findall(r'<img src="data:image/webp;base64,([^"]*)" width="(\d+)" height="(\d+)"', html(folder, store=store))
    assert len(pictures) == 16 and {(int(w), int(h)) for _, w, h in pictures} == {(422, 3 * 42 + 2)}
    assert sum(len(picture) for picture, _, _ in pictures) <= page.pictures.BUDGET
    found = []
    for budget in (16 * 60_000, 16 * 15_000, 16 * 1_000):
        monkeypatch.setattr(page.pictures, "BUDGET", budget)
        text = html(folder, store=store)
        uris = re.findall(r'data:image/webp;base64,[^"]*', text)
        assert sum(map(len, uris)) <= budget
        found.append((len(uris), "16 configurations are left out to keep the page small" in text))
    assert found == [(16, False), (16, False), (0, True)], "first in a lower quality, then smaller, then not at all, which is said"


def _tensors(images):
    from safetensors.numpy import save

    return save({"images": images})


def test_losses_of_the_store_are_drawn(tmp_path, store):
    folder = made_rows.folder(tmp_path / "run", made_rows.rows())
    plan = json.loads((folder / "plan.json").read_text())
    keys = ["1" * 64, "2" * 64, "3" * 64]
    plan["stages"] = {key: {"name": "train", "label": "unet, linear", "parents": {}} for key in keys}
    (folder / "plan.json").write_text(json.dumps(plan))
    for key, losses in zip(keys, ([1.0, 0.5, 0.25], [float(i) for i in range(301)]), strict=False):
        store.publish("train", key, {}, {
            "facts.json": json.dumps({"losses": losses, "steps_per_loss": 10, "train_loss": losses[-1], "compiled": False}).encode()})
    found = data(html(folder, store=store))["curves"]
    assert [c["label"] for c in found] == ["unet, linear (111111111111)", "unet, linear (222222222222)"], "the third is not there any more"
    assert (found[0]["steps"], found[0]["loss"]) == ([10, 20, 30], [1.0, 0.5, 0.25])
    assert found[1]["steps"][:2] == [30, 60] and found[1]["loss"][:2] == [1.0, 4.0] and found[1]["steps"][-1] == 3010


def test_data_inside_are_the_matrix_and_the_packages(run, store):
    text = html(run, store=store)
    link = re.search(r'href="data:application/json;base64,([^"]*)"', text)[1]
    assert json.loads(base64.b64decode(link)) == json.loads((run / "matrix.json").read_text())
