"""Every notebook in reports/ runs on a results file and is stored without outputs; what it shows are the numbers of the parquet file."""
import ast
import json
import math
import sys
from pathlib import Path

import matplotlib
import numpy
import pandas
import pytest
import scipy.stats

from diffbench.results import frame as frames
from diffbench.stats import numbers_of_rows, over_seeds
from diffbench.stats.jackknife import wilson
from diffbench.stats.numbers_of_rows import Number, Seeds
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

matplotlib.use("Agg")
REPORTS = Path(__file__).resolve().parents[2] / "reports"
NOTEBOOKS = sorted(REPORTS.glob("*.ipynb"))
sys.path.insert(0, str(REPORTS))

import drawing  # noqa: E402
import figures  # noqa: E402
import intervals  # noqa: E402
import paired  # noqa: E402
import pictures  # noqa: E402

ONE_SEED = {"seeds": ((0, 0),)}
FRAMES = {"three seeds": {}, "one seed": ONE_SEED, "without intervals": {**ONE_SEED, "interval": False}, "not timed": {"timed": False},
          "one configuration": {"backbones": ("unet",), "schedulers": (("ddim", 10),), "scales": (1.5,)},
          "one row": {**ONE_SEED, "backbones": ("unet",), "schedulers": (("ddim", 10),), "scales": (1.5,), "others": False},
          "crossed seeds": {"seeds": tuple((t, n) for t in (0, 1) for n in (0, 1, 2))}, "strange names": {"backbones": ("a$b$c_d", "<img src=x>^{2}")},
          "many": {**ONE_SEED, "schedulers": made_rows.SCHEDULERS[:2], "scales": tuple(1 + i / 4 for i in range(11))}}


def cells_of(notebook):
    return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]


def is_parameters(cell):
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_runs_in_a_kernel(notebook, tmp_path):
    import nbclient
    import nbformat

    run = made_rows.folder(tmp_path / "run", made_rows.rows(), pictures=notebook.stem == "samples")
    content = nbformat.read(notebook, as_version=4)
    next(c for c in content.cells if is_parameters(c)).source = f"RESULTS = {str(run)!r}"
    done = nbclient.NotebookClient(content, timeout=120, resources={"metadata": {"path": str(REPORTS)}}).execute()
    outputs = [o for c in done.cells if c.cell_type == "code" for o in c.outputs]
    assert any("text/html" in o.get("data", {}) for o in outputs), "tables are shown"
    assert any("image/png" in o.get("data", {}) for o in outputs), "a figure is shown"


@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_its_cells_run_whatever_was_measured(notebook, frame, tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(**FRAMES[frame]), pictures=notebook.stem == "samples")
    names = {"display": lambda shown: shown}
    try:
        for cell in cells_of(notebook):
            exec(f"RESULTS = {str(run)!r}" if is_parameters(cell) else "".join(cell["source"]), names)
    except figures.NothingToDraw as error:
        assert (notebook.stem, frame) in {("cost", "not timed"), ("ablation", "one configuration"), ("ablation", "one row"), ("seeds", "one configuration"),
                                          ("seeds", "one row")}, error
    finally:
        for number in figures.plt.get_fignums():
            figures.plt.figure(number).canvas.draw()
        figures.plt.close("all")


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_is_stored_without_outputs(notebook):
    for cell in cells_of(notebook):
        assert not cell["outputs"] and cell["execution_count"] is None
    assert sum(map(is_parameters, cells_of(notebook))) == 1


def test_they_need_pandas_and_matplotlib_only():
    own = {path.stem for path in REPORTS.glob("*.py")}
    for text in [p.read_text() for p in REPORTS.glob("*.py")] + ["\n".join("".join(c["source"]) for c in cells_of(p)) for p in NOTEBOOKS]:
        imported = {module.partition(".")[0] for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)
                    for module in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])}
        assert imported <= {"pandas", "matplotlib"} | own | set(sys.stdlib_module_names)


def test_what_they_read_is_the_parquet_file(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows())
    parquet = pandas.read_parquet(run / "results.parquet")
    pandas.testing.assert_frame_equal(figures.read(run), parquet)
    from_csv = figures.read(run / "results.csv")
    assert list(from_csv[FD].dropna()) == list(parquet[FD].dropna()) and list(from_csv["status"]) == list(parquet["status"])
    ok = parquet[parquet["status"] == "ok"]
    shown = figures.table(parquet, FD)
    for (backbone, scale), line in shown.iterrows():
        for (scheduler, steps, nfe), value in line.items():
            same = ok[(ok["backbone"] == backbone) & (ok["conditioning.scale"] == scale) & (ok["scheduler"] == scheduler) & (ok["steps"] == steps)]
            assert len(same) == 3 and value == pytest.approx(same[f"{FD}_debiased"].mean(), rel=1e-15) and nfe == f"{same['nfe'].mean():g}"
    assert sorted(paired.means(parquet, FD)["mean"]) == pytest.approx(sorted(shown.to_numpy().ravel()), abs=1e-12)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 7, 10, 31])
def test_students_t_is_scipys(degrees):
    assert paired.t_quantile(degrees) == pytest.approx(scipy.stats.t.ppf(0.975, degrees), rel=1e-12)
    for t in (0.0, 0.1, 1.0, 3.5, 20.0):
        assert paired.t_two_sided(-t, degrees) == pytest.approx(2 * scipy.stats.t.sf(t, degrees), abs=1e-14)


def of_harness(part, *, has_intervals=True):
    return {Seeds(r.seed, r.noise_seed): Number(r.conventional, r.value, (), *((r.low, r.high) if has_intervals else ())) for r in part.itertuples()}


@pytest.mark.parametrize("seeds", [((0, 0),), ((0, 0), (1, 1)), ((0, 0), (1, 1), (2, 2)), ((5, 0), (5, 1), (5, 2))])
@pytest.mark.parametrize("column", [FD, "class_accuracy"])
def test_effects_are_those_of_diffbench_compare(seeds, column):
    """Intervals of single rows hold what their noise has in common, so those of a distance say nothing of differences over several seeds."""
    frame = pandas.DataFrame(made_rows.rows(seeds=seeds))
    if column != FD:
        frame = frame[frame[column].notna()]
        ends = [wilson(round(100 * share), 100) for share in frame[column]]
        frame = frame.assign(**{column: frame[column].round(2), f"{column}_low": [low for low, _ in ends], f"{column}_high": [high for _, high in ends]})
    found, axes = paired.numbers(frame, column)
    assert axes == ["backbone", "conditioning", "scheduler"]
    effects = paired.effects(frame, column, reference={"scheduler": "ddim, steps 20"})
    assert {(e.level, e.versus) for e in effects.itertuples() if e.axis == "scheduler"} == {(f"{s}, steps {n}", "ddim, steps 20") for s, n in made_rows.SCHEDULERS if n != 20}
    for effect in effects.itertuples():
        others = [a for a in axes if a != effect.axis]
        sides = [dict(list(found[found[effect.axis] == side].groupby(others))) for side in (effect.versus, effect.level)]
        d = over_seeds.estimate(numbers_of_rows.averaged([numbers_of_rows.differences(*(of_harness(side[key], has_intervals=len(seeds) == 1 or column != FD) for side in sides)) for key in sides[0]]))
        assert [effect.mean, effect.low, effect.high, effect.p] == pytest.approx([d.debiased, d.low, d.high, d.p], abs=1e-12, nan_ok=True)
        assert effect.configurations == len(sides[0])
    assert list(effects["p_holm"]) == pytest.approx(over_seeds.holm(list(effects["p"])), abs=1e-12)
    assert paired.holm(pandas.Series([0.02, math.nan, 0.03])).to_list() == pytest.approx([0.04, math.nan, 0.04], nan_ok=True)


def test_levels_that_share_nothing_else_have_no_difference():
    frame = pandas.DataFrame([r for r in made_rows.rows(others=False) if (r["backbone"] == "unet") == (r["conditioning.scale"] == 1.5)])
    effects = paired.effects(frame, FD).set_index("axis")
    assert effects.loc["backbone", "basis"] == "no pairs" and math.isnan(effects.loc["backbone", "mean"])
    assert (effects.loc["scheduler", "configurations"] == 2).all()
    with pytest.raises(ValueError, match="no row has backbone = 'vit'; there are 'unet', 'dit'"):
        paired.effects(frame, FD, reference={"backbone": "vit"})


def test_best_value_is_what_no_other_beats(tmp_path):
    points = figures.cost(made_rows_frame(), FD)
    for i, point in points.iterrows():
        beaten = any(o.ms <= point["ms"] and o.mean <= point["mean"] and (o.ms < point["ms"] or o.mean < point["mean"]) for j, o in enumerate(points.itertuples()) if j != i)
        assert point["is_best_value"] == (not beaten)
    assert points["is_best_value"].any() and not points["is_best_value"].all()


def test_figures_draw_the_numbers_of_the_results():
    frame = made_rows_frame()
    means = paired.means(frame, FD)
    drawn = sorted(y for panel in figures.quality_against_nfe(frame).axes for bars in panel.containers for y in bars.lines[0].get_ydata())
    assert drawn == pytest.approx(sorted(means["mean"]), abs=1e-12)
    drawn = sorted(bars.lines[0].get_xdata().tolist() for bars in intervals.by_seed(frame).axes[0].containers)
    assert sorted(drawn[0]) == pytest.approx(sorted(means["mean"]), abs=1e-12)
    figures.plt.close("all")


def test_levels_are_told_apart_without_colour():
    styles = list(drawing.styles(range(9)).values())
    assert len({s["marker"] for s in styles}) == 9 and len({(s["color"], s["marker"]) for s in styles}) == 9
    assert len({str(s["ls"]) for s in styles[:5]}) == 5


def test_enough_evaluations():
    frame = made_rows_frame()
    ok = frame[frame["status"] == "ok"]
    shown = figures.enough(frame, FD, within=0.0)
    for (backbone, scale), part in ok.groupby(["backbone", "conditioning.scale"]):
        means = part.groupby(["scheduler", "nfe"])[f"{FD}_debiased"].mean()
        line = shown.loc[f"{backbone}; cfg, scale {scale:g}"].dropna()
        assert dict(line) == {means.idxmin()[0]: means.idxmin()[1]}


def test_the_first_line_of_a_grid_is_cut_where_it_ends(tmp_path):
    made_rows.write_grid(tmp_path / "grid.png", shade=100)
    picture = pictures.plt.imread(tmp_path / "grid.png")
    line = pictures.first_line(picture)
    assert line.shape == (36, picture.shape[1]) and numpy.allclose(line[2:34, 2:34].max(), 1.0)


def made_rows_frame():

    return frames.frame(made_rows.rows())
