"""The page of whole runs: several merged into one, the command that writes it, and what a finished run keeps beside its rows."""

import json

import pandas
import pytest
from click.testing import CliRunner

from diffbench.api import running
from diffbench.cli import report as command
from diffbench.errors import DiffbenchError
from diffbench.report import page
from diffbench.report.reading import ReportedRun, read
from diffbench.results import columns
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.made_rows import FD
from tests.report.test_page import data, html


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
        assert read([first, first]).rows.shape == ReportedRun(first).rows.shape

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
    from diffbench.report import trajectories, written_files

    place = tmp_path_factory.mktemp("page")
    matrix = {"diffbench": 1, "name": "page", "dataset": "digits", "axes": {
        "backbone": [{"unet": {"channels": 16, "multipliers": [1], "blocks": 1}}], "noise_schedule": ["linear", "cosine"], "parameterization": ["epsilon"], "objective": ["mse"],
        "conditioning": ["none"], "spacing": ["uniform"], "scheduler": [{"ddim": {"steps": 3}}]}, "train": {"steps": 4, "batch_size": 8}, "sample": {"count": 40},
        "extractor": "pixels", "metrics": ["fid"]}
    store = Store(place / "store")
    done = running.run(matrix, out=place / "run", store=store, device="cpu")
    assert done.is_complete and (place / "run" / "report.html").is_file(), "a run ends with its page"
    drawn = written_files.Written()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIFFBENCH_HOME", str(place / "store"))
        trajectories.write_best(ReportedRun(place / "run"), drawn)
    assert not drawn.notes
    return place / "run", store


def test_the_page_decides_nothing_about_whether_a_run_is_done_but_that_it_is_there(tiny_run_of_page):
    folder, store = tiny_run_of_page
    matrix = json.loads((folder / "matrix.json").read_text())
    before = (folder / "results.parquet").stat().st_mtime_ns
    (folder / "report.html").write_text("changed by somebody")
    running.run(matrix, out=folder, store=store, device="cpu")
    assert (folder / "report.html").read_text() == "changed by somebody" and (folder / "results.parquet").stat().st_mtime_ns == before
    (folder / "report.html").unlink()
    running.run(matrix, out=folder, store=store, device="cpu")
    assert (folder / "report.html").stat().st_size > 1e6


def test_real_images_are_kept_beside_the_rows_and_told(tiny_run_of_page):
    folder, store = tiny_run_of_page
    run = ReportedRun(folder)
    assert run.real.held_out and "held-out real images of digits" in html(folder, store=store)
    assert data(html(folder, store=store))["sheets"][0]["floor"] is not None
