"""report.html: its numbers are those of the parquet file, nothing in it is markup that was not meant to be, and it stays small."""

import base64
import json
import re
import time
from html.parser import HTMLParser

import pandas
import pytest
from click.testing import CliRunner

import diffbench
from diffbench import api, columns
from diffbench.cli import report as command
from diffbench.errors import DiffbenchError
from diffbench.report import grids, page
from diffbench.report.reading import Run, read
from diffbench.store import Store
from tests import made_rows
from tests.made_rows import FD

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


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path / "store")
    found.prepare()
    return found


@pytest.fixture
def run(tmp_path):
    return made_rows.folder(tmp_path / "run", made_rows.rows(), pictures=True)


class TestNumbers:
    def test_the_table_of_quality_has_the_means_of_the_parquet_file(self, run, store):
        rows = pandas.read_parquet(run / "results.parquet")
        naming = ["backbone", "conditioning.scale", "scheduler", "steps"]
        means = rows[rows["status"] == "ok"].groupby(naming)[[FD, "class_accuracy"]].mean()
        head, *body = Tables(html(run, store=store)).tables["quality"]
        titles = [re.split(r"lower|higher", title)[0].strip() for title in head]
        assert titles == [*naming, "NFE", FD, "class_accuracy"] and len(body) == len(means)
        for line in body:
            expected = means.loc[(line[0], float(line[1]), line[2], int(line[3]))]
            assert [float(line[5].split()[0]), float(line[6].split()[0])] == [float(f"{v:.3g}") for v in expected]

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
                assert entry[("difference" if frame is told else "debiased")] == row["debiased"]
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
        found = registry.report_sections(Run(folder=run).rows, run)
        assert [name for name, _ in found] == ["good"] and any("gives diffbench.Sections" in problem.message for problem in registry.problems)
        text = html(run, store=store, sections=found)
        assert "50 rows" in text and "By the plug-in good." in text and 'alt="nothing"' in text


def test_a_run_of_500_cells_stays_small_and_is_made_in_seconds(tmp_path, store):
    made = made_rows.rows(backbones=[f"b{i}" for i in range(21)], schedulers=made_rows.SCHEDULERS, scales=(1.0, 3.0), seeds=((0, 0), (1, 1), (2, 2)))
    assert len(made) > 500
    folder = made_rows.folder(tmp_path / "run", made, pictures=True)
    since = time.perf_counter()
    text = html(folder, store=store)
    assert time.perf_counter() - since < 20 and len(text.encode()) < 15e6
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
        store.publish("train", key, {}, {"facts.json": json.dumps({"losses": losses, "steps_per_loss": 10}).encode()})
    found = data(html(folder, store=store))["curves"]
    assert [c["label"] for c in found] == ["unet, linear (111111111111)", "unet, linear (222222222222)"], "the third is not there any more"
    assert (found[0]["steps"], found[0]["loss"]) == ([10, 20, 30], [1.0, 0.5, 0.25])
    assert found[1]["steps"][:2] == [30, 60] and found[1]["loss"][:2] == [1.0, 4.0] and found[1]["steps"][-1] == 3010


class TestMerged:
    def two(self, tmp_path, change=lambda row: row, other_seeds=((3, 3), (4, 4)), **environment):
        first = made_rows.folder(tmp_path / "a", made_rows.rows(others=False), name="a", environment={"machine": {"cpu": "one"}, "python": "3.11"})
        more = [change(dict(row, cell_id=f"b{row['cell_id'][1:]}")) for row in made_rows.rows(others=False, seeds=other_seeds)]
        second = made_rows.folder(tmp_path / "b", more, name="b", environment={"machine": {"cpu": "two"}, "python": "3.12"})
        return first, second

    def test_seeds_of_one_configuration_are_averaged_and_times_are_not(self, tmp_path, store):
        source = read(self.two(tmp_path))
        (sheet, _), *_ = source.sheets
        assert {len(mean.seeds) for mean in sheet.means.values()} == {5}
        text = page.html(source, store)
        found = data(text)
        assert {c["run"] for c in found["costs"]} == {"a", "b"} and len(found["costs"]) == 32
        assert len(found["keys"]) == 16 and "a and b differ in what may change bits: python 3.11 and 3.12" in text

    def test_an_option_that_differs_between_runs_keeps_their_rows_apart(self, tmp_path):
        source = read(self.two(tmp_path, change=lambda row: row | {"lr": 0.02}))
        assert set(source.rows["train.lr"]) == {0.01, 0.02}
        (sheet, _), *_ = source.sheets
        assert "train.lr" in sheet.naming and {len(mean.seeds) for mean in sheet.means.values()} == {3, 2}

    def test_a_cell_of_both_is_taken_from_the_first_that_has_it_ok(self, tmp_path, store):
        made = made_rows.rows(others=False)
        first = made_rows.folder(tmp_path / "a", [made[0] | {"status": "failed", "reason": "no memory"}, *made[1:]], name="same")
        second = made_rows.folder(tmp_path / "b", [row | {FD: -1.0} for row in made], name="same")
        source = read([first, second])
        assert len(source.rows) == len(made) and source.labels == [str(first), str(second)]
        assert list(source.rows[source.rows[FD] == -1.0]["cell_id"]) == [made[0]["cell_id"]]
        assert f"47 of the 48 cells of {second} are also in another run, and shown as that one has them." in list(source.notes())
        assert read([first, first]).rows.shape == Run(folder=first).rows.shape

    def test_a_column_that_means_two_things_is_refused(self, tmp_path):
        first, second = self.two(tmp_path)
        meaning = columns.read(second)
        meaning[FD]["metric"] = "fid(other=1)"
        (second / columns.FILE).write_text(json.dumps(meaning))
        with pytest.raises(DiffbenchError, match=rf"the column {FD} is fid in one run and fid\(other=1\) in .*b: report them apart"):
            assert read([first, second]).sheets

    def test_the_command_merges_pages_and_exports(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
        first, second = map(str, self.two(tmp_path))
        done = CliRunner().invoke(command.command, [first, second])
        assert done.exit_code == 2 and "say where the merged report goes: --out FOLDER" in done.output
        done = CliRunner().invoke(command.command, [first, second, "--notebook", "cost", "--out", str(tmp_path)])
        assert done.exit_code == 2 and "a notebook is copied beside one run: name one" in done.output
        done = CliRunner().invoke(command.command, [first, second, "--out", str(tmp_path / "both")])
        assert done.exit_code == 0 and "note: a and b differ" in done.output and (tmp_path / "both" / "report.html").is_file(), done.output
        done = CliRunner().invoke(command.command, [first, second, "--out", str(tmp_path / "both"), "--format", "parquet", "--format", "md"])
        assert done.exit_code == 0, done.output
        assert len(pandas.read_parquet(tmp_path / "both" / "results.parquet")) == 80
        text = (tmp_path / "both" / "throughput.md").read_text()
        assert "run" in text and "**" not in text, "timings of two machines have no best"


class TestCommand:
    def test_one_run_has_its_page_beside_it(self, run, tmp_path, monkeypatch):
        monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "store"))
        done = CliRunner().invoke(command.command, [str(run)])
        assert done.exit_code == 0 and (run / "report.html").stat().st_size > 1e6, done.output
        for more in (["--format", "md"], ["--out", "x"], ["--notebook", "cost"]):
            done = CliRunner().invoke(command.command, [str(run), "--live", *more])
            assert done.exit_code == 2 and "--live serves one run and writes nothing" in done.output

    def test_trajectories_are_films(self, tmp_path, store, tiny_run_of_page):
        folder, store = tiny_run_of_page
        text = html(folder, store=store)
        assert 'class="film"' in text and 'data-frames="' in text and data(text)["curves"]


@pytest.fixture(scope="module")
def tiny_run_of_page(tmp_path_factory):
    from diffbench.report import exports

    place = tmp_path_factory.mktemp("page")
    matrix = {"diffbench": 1, "name": "page", "dataset": "digits", "axes": {
        "backbone": [{"unet": {"channels": 16, "multipliers": [1], "blocks": 1}}], "noise_schedule": ["linear", "cosine"], "parameterization": ["epsilon"], "objective": ["mse"],
        "conditioning": ["none"], "spacing": ["uniform"], "scheduler": [{"ddim": {"steps": 3}}]}, "train": {"steps": 4, "batch_size": 8}, "sample": {"count": 40},
        "extractor": "pixels", "metrics": ["fid"]}
    store = Store(place / "store")
    done = api.run(matrix, out=place / "run", store=store, device="cpu")
    assert done.is_complete and (place / "run" / "report.html").is_file(), "a run ends with its page"
    drawn = exports.Written()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFBENCH_HOME", str(place / "store"))
        exports.draw_trajectories(Run(folder=place / "run"), drawn)
    assert not drawn.notes
    return place / "run", store


def test_the_page_decides_nothing_about_whether_a_run_is_done_but_that_it_is_there(tiny_run_of_page):
    folder, store = tiny_run_of_page
    matrix = json.loads((folder / "matrix.json").read_text())
    before = (folder / "results.parquet").stat().st_mtime_ns
    (folder / "report.html").write_text("changed by somebody")
    api.run(matrix, out=folder, store=store, device="cpu")
    assert (folder / "report.html").read_text() == "changed by somebody" and (folder / "results.parquet").stat().st_mtime_ns == before
    (folder / "report.html").unlink()
    api.run(matrix, out=folder, store=store, device="cpu")
    assert (folder / "report.html").stat().st_size > 1e6


def test_real_images_are_kept_beside_the_rows_and_told(tiny_run_of_page):
    folder, store = tiny_run_of_page
    run = Run(folder=folder)
    assert run.real.held_out and "held-out real images of digits" in html(folder, store=store)
    assert data(html(folder, store=store))["sheets"][0]["floor"] is not None


def test_data_inside_are_the_matrix_and_the_packages(run, store):
    text = html(run, store=store)
    link = re.search(r'href="data:application/json;base64,([^"]*)"', text)[1]
    assert json.loads(base64.b64decode(link)) == json.loads((run / "matrix.json").read_text())
