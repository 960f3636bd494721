"""Exports for papers: the numbers of the parquet file, in tables that compile, with every text escaped; and notebooks beside a run."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pandas
import pytest
from click.testing import CliRunner

from diffbench.api import running
from diffbench.cli import report as command
from diffbench.errors import DiffbenchError
from diffbench.report import exports, notebook_files, paper, trajectories
from diffbench.report.reading import ReportedRun
from diffbench.results import columns, unchanged
from diffbench.store.artefacts import Store
from tests.conftest import REGISTRY
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

ROOT = Path(__file__).resolve().parents[2]
STRANGE = r"""a\b{c}_50% & #1 $x$ ^2 ~y <img src=x onerror=alert(1)> |"quoted" 'it' `tick` -- --- [z] * ?` ÀñØ \input{/etc/passwd}"""
needs_tex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: apt-get install texlive-latex-recommended")


@pytest.fixture
def run(tmp_path):
    return made_rows.folder(tmp_path / "run", made_rows.rows())


def means_of(run, column):
    """By backbone, scale, scheduler, steps: the mean over seeds, from the parquet file."""
    rows = pandas.read_parquet(run / "results.parquet")
    return rows[rows["status"] == "ok"].groupby(["backbone", "conditioning.scale", "scheduler", "steps"])[column].mean()


@pytest.mark.parametrize(("file", "column"), [(FD, f"{FD}_debiased"), (f"{FD}-conventional", FD), ("class_accuracy", "class_accuracy")])
def test_numbers_of_markdown_and_latex_are_those_of_the_parquet_file(run, file, column):
    exports.write(run, ["md", "latex"])
    means = means_of(run, column)
    text = (run / "exports" / f"{file}.md").read_text()
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    heads, body = lines[0], lines[2:]
    assert heads[:2] == ["backbone", "conditioning.scale"] and len(body) == 4
    found = {(line[0], float(line[1]), *(head.split()[0], int(head.split()[1]))): float(cell.strip("*").split()[0])
             for line in body for head, cell in zip(heads[2:], line[2:], strict=True)}
    assert found == {key: float(f"{value:.3g}") for key, value in means.items()}

    tex = (run / "exports" / f"{file}.tex").read_text()
    schedulers = [(name, int(span)) for span, name in re.findall(r"\\multicolumn\{(\d)\}\{c\}\{(\w+)\}", tex)]
    steps = re.findall(r"\{steps (\d+)\}", tex.partition("\\midrule")[0])
    assert re.findall(r"NFE (\d+)", tex.partition("\\midrule")[0]) == [str(2 * int(n)) for n in steps], "what each head costs stands below it"
    across = list(zip([name for name, span in schedulers for _ in range(span)], map(int, steps), strict=True))
    assert schedulers == [("ddpm", 1), ("ddim", 2), ("pndm", 1)], "columns of one scheduler stand side by side"
    found, backbone = {}, ""
    for line in tex.partition("\\midrule\n")[2].partition("\\bottomrule")[0].splitlines():
        cells = line.removesuffix(" \\\\").split(" & ")
        if "scriptsize" not in line and len(cells) == 6:
            backbone = cells[0] or backbone
            found |= {(backbone, float(cells[1]), *head): float(re.search(r"[\d.]+", cell)[0]) for head, cell in zip(across, cells[2:], strict=True)}
    assert found == {key: float(f"{value:.3g}") for key, value in means.items()}
    bold = re.findall(r"\\mathbf\{([\d.]+)\}", tex)
    best = {f"{FD}_debiased": [means.min()], FD: [], "class_accuracy": [means.max()]}[column]
    assert list(map(float, bold)) == [float(f"{value:.3g}") for value in best], "the conventional value is not ranked"


def test_csv_and_parquet_hold_the_same_unrounded_numbers(run):
    exports.write(run, ["csv", "parquet"])
    for name in ("results", "means", "differences"):
        parquet = pandas.read_parquet(run / "exports" / f"{name}.parquet")
        csv = pandas.read_csv(run / "exports" / f"{name}.csv", keep_default_na=False, na_values=[""], dtype=str)
        assert list(csv.columns) == list(parquet.columns)
        for column in parquet.select_dtypes("float"):
            assert csv[column].astype(float).equals(parquet[column]), column
    rows = pandas.read_parquet(run / "results.parquet")
    pandas.testing.assert_frame_equal(pandas.read_parquet(run / "exports" / "results.parquet"), rows)
    means = pandas.read_parquet(run / "exports" / "means.parquet").query(f"column == '{FD}'")
    assert sorted(means["mean"]) == pytest.approx(sorted(means_of(run, f"{FD}_debiased")), abs=1e-12)
    assert sorted(means["conventional"]) == pytest.approx(sorted(means_of(run, FD)), abs=1e-12)
    assert "'=1+1 raised" in (run / "exports" / "results.csv").read_text(), "no spreadsheet runs a reason"


def test_throughput_and_networks(run):
    exports.write(run, ["md", "latex"])
    text = (run / "exports" / "throughput.md").read_text()
    assert "**100 (95 to 110)**" in text and "50 (47.5 to 55) †" in text and "†: the timing was noisy." in text
    assert "All rows:" in (run / "exports" / "networks.tex").read_text() or "unet" in (run / "exports" / "networks.tex").read_text()
    assert "$1{,}000$" in (run / "exports" / "networks.tex").read_text()


def test_what_is_the_same_everywhere_is_in_the_caption(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(backbones=("unet",), scales=(1.5,)))
    exports.write(run, ["latex"])
    tex = (run / "exports" / f"{FD}.tex").read_text()
    assert "All rows: noise schedule linear, conditioning cfg." in tex and "(3 seeds)" in tex and "This is not FID: features of dataset\\_classifier" in tex


def test_rows_that_do_not_compare_are_in_files_of_their_own(tmp_path):
    two = made_rows.rows(others=False) + [{**r, "cell_id": f"m{r['cell_id']}"} for r in made_rows.rows(others=False, dataset="mnist")]
    exports.write(made_rows.folder(tmp_path / "run", two), ["md"])
    assert "digits" in (tmp_path / "run" / "exports" / f"{FD}.md").read_text() and "mnist" in (tmp_path / "run" / "exports" / f"{FD}-2.md").read_text()


@pytest.mark.parametrize(("number", "shown"), [(12.34, "12.3"), (-0.5, "-0.5"), (123456.0, r"1.23{\times}10^{5}"), (1.5e-7, r"1.5{\times}10^{-7}")])
def test_numbers_are_set_as_mathematics(number, shown):
    table = paper.Table(name="t", caption="c", down=["a"], across=["b"], entries={("x", "y"): paper.Entry(value=number)})
    assert f"${shown}$" in table.latex()


def compiled(folder, text):
    """The text of the pages pdflatex makes of a document's body, and its log."""
    (folder / "all.tex").write_text("\\documentclass{article}\\usepackage[a4paper,margin=2.5cm]{geometry}\\usepackage{booktabs,longtable,textcomp}"
                                    f"\\begin{{document}}\n{text}\n\\end{{document}}\n")
    done = subprocess.run(["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "all.tex"], cwd=folder, capture_output=True, timeout=600)
    log = done.stdout.decode("latin-1")
    assert done.returncode == 0, log[-1500:]
    return log


@needs_tex
@pytest.mark.slow
def test_every_table_compiles_and_none_is_too_wide(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(schedulers=[(f"s{i}_x", n) for i in range(5) for n in (10, 20)], scales=[i / 4 for i in range(11)]))
    done = exports.write(run, ["latex"])
    log = compiled(tmp_path, "\n".join(f"\\input{{run/exports/{path.name}}}" for path in done.files) + "\n\\listoftables")
    assert "longtable" in (run / "exports" / f"{FD}.tex").read_text() and "Overfull" not in log, "22 rows of 10 columns break over pages"


@needs_tex
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext here: apt-get install poppler-utils")
def test_texts_are_printed_as_they_are(tmp_path):
    table = paper.Table(name="t", caption=STRANGE, down=[STRANGE], across=["b"], entries={(f"{STRANGE}日\n", STRANGE): paper.Entry(value=1.0)})
    compiled(tmp_path, "\\usefont{T1}{cmtt}{m}{n}\n" + paper.escape(STRANGE) + "\n\n\\clearpage " + table.latex() + paper.escape("".join(sorted(paper._LETTERS))))
    subprocess.run(["pdftotext", "-l", "1", "all.pdf"], cwd=tmp_path, check=True, timeout=600)
    page = (tmp_path / "all.txt").read_text().partition("\f")[0]
    assert re.sub(r"\s", "", page).removesuffix("1") == re.sub(r"\s", "", STRANGE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["svg", "pdf"])
def test_figures_are_whole_and_the_same_each_time(kind, tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(backbones=("a$b$_c", "<script>alert(1)</script>&"), schedulers=made_rows.SCHEDULERS[1:3], scales=(1.5,)))
    done = exports.write(run, [kind])
    assert {path.stem for path in done.files} == {"quality_against_nfe", "quality_against_cost", "effects", "by_seed", "resolution"} and not done.notes
    first = {path: path.read_bytes() for path in done.files}
    exports.write(run, [kind], tmp_path / "again")
    assert all((tmp_path / "again" / path.name).read_bytes() == data for path, data in first.items())
    for data in first.values():
        if kind == "svg":
            assert not [e for e in ElementTree.fromstring(data).iter() if e.tag.rpartition("}")[2] == "script"]
        else:
            assert data.startswith(b"%PDF") and b"/Type3" not in data


def test_a_figure_without_data_is_noted(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(seeds=((0, 0),), timed=False))
    done = exports.write(run, ["svg"])
    assert [note.partition(":")[0] for note in done.notes] == ["no figure quality_against_cost", "no figure resolution"]


def test_what_cannot_be_exported_is_said(tmp_path, run):
    with pytest.raises(DiffbenchError, match="no format named 'tex'.* Known: csv, latex, md, parquet, pdf, svg"):
        exports.write(run, ["tex"])
    with pytest.raises(DiffbenchError, match="is not there: give the folder of a run"):
        exports.write(tmp_path / "nowhere", ["md"])
    assert not (tmp_path / "nowhere").exists()
    empty = made_rows.folder(tmp_path / "empty", made_rows.rows()[-2:])
    with pytest.raises(DiffbenchError, match="there is nothing to export yet"):
        exports.write(empty, ["md"])


def test_without_matplotlib_tables_are_exported_and_figures_refused(run, monkeypatch):
    find = exports.importlib.util.find_spec
    monkeypatch.setattr(exports.importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    exports.write(run, ["md"])
    with pytest.raises(DiffbenchError, match=r"figures need matplotlib: pip install 'diffbench\[notebooks\]'"):
        exports.write(run, ["svg"])


def test_a_folder_that_lacks_a_file_is_said(run):
    (run / "matrix.json").write_text("{")
    with pytest.raises(DiffbenchError, match=r"matrix\.json cannot be read: .*; running the matrix again writes it anew"):
        exports.write(run, ["md"])


def test_tables_follow_the_matrix(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(), report={"rows": ["scheduler", "scheduler.steps"], "columns": ["backbone"]})
    assert ReportedRun(run).layout.columns == ("backbone",)
    exports.write(run, ["md"], tmp_path / "elsewhere")
    assert "| scheduler   |   steps |".replace(" ", "") in (tmp_path / "elsewhere" / f"{FD}.md").read_text().replace(" ", "")
    assert not (run / "exports").exists()


@pytest.mark.parametrize("name", notebook_files.names())
def test_a_notebook_lies_beside_its_run_with_its_path(name, run, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    done = notebook_files.copy(name, run)
    copied = run / "notebooks" / f"{name}.ipynb"
    assert done.files == [copied]
    content = json.loads(copied.read_text())
    code = ["".join(c["source"]) for c in content["cells"] if c["cell_type"] == "code"]
    assert code[0] == f"RESULTS = {str(run.resolve())!r}"
    original = json.loads((ROOT / "reports" / f"{name}.ipynb").read_text())
    assert [c["source"] for c in content["cells"]][2:] == [c["source"] for c in original["cells"]][2:]
    script = "\n".join([f"import sys; sys.path[:] = [p for p in sys.path if p not in ('', {str(ROOT)!r})]", *code[:2]])
    subprocess.run([sys.executable, "-c", script], cwd=run.parent, check=True, timeout=600, env={"MPLBACKEND": "Agg", "PATH": ""})


def test_a_notebook_with_work_in_it_is_never_written_over(run):
    notebook_files.copy("quickstart", run)
    notebook_files.copy("quickstart", run)
    notebook_files.copy("seeds", run)
    copied = run / "notebooks" / "quickstart.ipynb"
    copied.write_text(copied.read_text().replace("Throughput", "My own"))
    with pytest.raises(DiffbenchError, match=r"quickstart\.ipynb is there already and is not the same"):
        notebook_files.copy("quickstart", run)
    assert "My own" in copied.read_text()
    with pytest.raises(DiffbenchError, match="no notebook named 'sedes'. Did you mean 'seeds'\\?"):
        notebook_files.copy("sedes", run)


def test_a_results_file_is_enough_for_a_notebook(run, tmp_path):
    shutil.copy(run / "results.parquet", tmp_path / "alone.parquet")
    notebook_files.copy("ablation", tmp_path / "alone.parquet")
    assert str(tmp_path / "alone.parquet") in (tmp_path / "notebooks" / "ablation.ipynb").read_text()


def test_what_people_add_to_a_run_is_none_of_its_results(run):
    unchanged.note(run, "x")
    (run / "report.html").touch()
    exports.write(run, ["csv"])
    notebook_files.copy("quickstart", run)
    assert not {"exports", "notebooks"} & {Path(name).parts[0] for name in unchanged._files(run)}
    assert unchanged.records(run, "x")


def test_the_command(run):
    done = CliRunner().invoke(command.command, [str(run), "--format", "csv", "--notebook", "cost"])
    assert done.exit_code == 0 and "results.csv" in done.output and "cost.ipynb" in done.output
    nothing = CliRunner().invoke(command.command, [])
    assert nothing.exit_code == 2 and "RUN [RUN...]" in nothing.output


@pytest.mark.slow
def test_a_trajectory_ends_in_the_images_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    matrix = {"diffbench": 1, "name": "t", "dataset": "digits", "axes": {"backbone": [{"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}],
              "conditioning": [{"cfg": {"inner": "film", "scale": 2.0}}], "scheduler": [{"heun": {"steps": 4}}, {"ddpm": {"steps": 3}}]},
              "train": {"steps": 2, "batch_size": 4}, "sample": {"count": 4}, "extractor": "pixels", "metrics": ["fid"]}
    done = running.run(matrix, out=tmp_path / "run", device="cpu", jobs=1)
    assert done.counts == {"ok": 2}
    store, run = Store.default(), ReportedRun(tmp_path / "run")
    for cell_id, stages in run.stages_of_cells().items():
        found = trajectories.frames(store, stages["sample"], REGISTRY, count=3)
        images = store.read_tensors("sample", stages["sample"], "images.safetensors")["images"][:3]
        assert (trajectories.to_pixels(found[-1].x_t).int() - images.int()).abs().max() <= 1
        nfe = run.rows.set_index("cell_id").loc[cell_id, "nfe"]
        assert len(found) == nfe / 2 + 1 and found[0].t == 1.0 and [f.t for f in found] == sorted((f.t for f in found), reverse=True)
        assert trajectories.strip(found).shape == (3 * 2 * 34 + 2, (len(found)) * 34 + 2)
    written = notebook_files.copy("samples", tmp_path / "run")
    assert len(written.files) == 3 and not written.notes and all(path.exists() for path in written.files)
    shutil.rmtree(tmp_path / "home" / "store" / "train")
    for path in written.files[1:]:
        path.unlink()
    again = notebook_files.copy("samples", tmp_path / "run")
    assert len(again.files) == 1 and len(again.notes) == 2 and "no trajectory of" in again.notes[0]
    assert columns.read(tmp_path / "run")
