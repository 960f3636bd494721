"""What a paper takes from a run: tables as Markdown and LaTeX, numbers as CSV and parquet, figures as SVG and PDF; and notebooks to go on in."""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas

from diffbench import results
from diffbench.durable import make_folders
from diffbench.errors import DiffbenchError, unknown_name
from diffbench.report import cost, notebook_files, quality, tables
from diffbench.report.layout import layout, named
from diffbench.report.paper import Entry, Table
from diffbench.report.reading import Run, Source
from diffbench.store import Store, write_atomically

FORMATS = ("md", "latex", "csv", "parquet", "svg", "pdf")
FOLDER = "exports"                    # in the folder of a run
MODULES = ("figures.py", "paired.py", "pictures.py")      # what notebooks import, copied beside them
TRAJECTORIES = 4                      # drawn for the notebook of samples


@dataclass
class Written:
    """The files that were written, and what is not among them and why."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(run: str | Path | Source, formats: Sequence[str], out: str | Path | None = None) -> Written:
    """Exports a folder of results, or what was read from several, into `out`, by default the (first) run's folder exports/.

    Raises DiffbenchError where it holds no results.

    md, latex: a file for each column of quality, one of throughput, one of the cost of a network. csv, parquet: results, means and differences,
    unrounded. svg, pdf: figures of the first column of quality.
    """
    for name in formats:
        if name not in FORMATS:
            raise DiffbenchError(unknown_name("format", name, FORMATS))
    read, done = Run(folder=Path(run)) if isinstance(run, str | Path) else run, Written()
    folder = Path(out) if out is not None else read.folder / FOLDER
    files: dict[str, bytes] = {}
    for name in dict.fromkeys(formats):
        if name in ("md", "latex"):
            made = tables_of(read)
            files |= {f"{t.name}.tex": t.latex().encode() for t in made} if name == "latex" else {f"{t.name}.md": t.markdown().encode() for t in made}
        elif name in ("csv", "parquet"):
            files |= {f"{kind}.{name}": _as_csv(frame) if name == "csv" else _as_parquet(frame) for kind, frame in _frames(read).items()}
        else:
            files |= dict(_drawn(read, name, done.notes))
    if not files:
        raise DiffbenchError(f"{run}: there is nothing to export yet: {'; '.join(done.notes) or 'no row has a measured value'}")
    make_folders(folder)
    for name, data in files.items():
        write_atomically(folder / name, data)
        done.files.append(folder / name)
    return done


def notebooks() -> list[str]:
    """The notebooks there are."""
    return sorted(path.stem for path in notebook_files.folder().glob("*.ipynb"))


def copy_notebook(name: str, run: str | Path) -> Written:
    """Copies a notebook, its path filled in, and the modules it imports to the folder notebooks/ of a run.

    run: a folder of results, or a results file. For `samples`, also draws trajectories of a few cells where the store has their weights. What lies
    there already and is not the same is never written over: raises DiffbenchError.
    """
    if name not in notebooks():
        raise DiffbenchError(unknown_name("notebook", name, notebooks()))
    run, done = Path(run).resolve(), Written()
    results.load(run)                                     # refused here where there is nothing to read
    folder = (run if run.is_dir() else run.parent) / notebook_files.FOLDER
    content = json.loads((notebook_files.folder() / f"{name}.ipynb").read_bytes())
    cell = next(cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", []))
    cell["source"] = [f"RESULTS = {str(run)!r}"]
    files = {module: (notebook_files.folder() / module).read_bytes() for module in MODULES} | {
        f"{name}.ipynb": (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()}
    for file, data in files.items():
        if (folder / file).exists() and (folder / file).read_bytes() != data:
            raise DiffbenchError(f"{folder / file} is there already and is not the same, perhaps by your work: move it away to have it anew")
    make_folders(folder)
    for file, data in files.items():
        write_atomically(folder / file, data)
    done.files.append(folder / f"{name}.ipynb")
    if name == "samples" and run.is_dir():
        draw_trajectories(Run(folder=run), done)
    return done


def draw_trajectories(run: Run, done: Written) -> None:
    """One cell of each scheduler, that of the best value in the lowest seed, as long as there are no more than four; where the store has their weights."""
    from diffbench.registry import load_registry
    from diffbench.report import trajectories

    rows, sheets, stages, store = run.rows, run.sheets, run.stages(), Store.default()
    if not sheets:
        done.notes.append("no trajectories: no row has a measured value")
        return
    column, is_higher = sheets[0][0].column, sheets[0][0].better == "higher"
    there = rows[(rows["status"] == "ok") & rows[column].notna()]
    best = there[there["seed"] == there["seed"].min()].sort_values(column, ascending=not is_higher).drop_duplicates("scheduler")
    for cell_id in best["cell_id"].head(TRAJECTORIES):
        path, key = run.folder / "samples" / f"{cell_id}-trajectory.png", stages[cell_id]["sample"]
        try:
            trajectories.write(store, key, path, load_registry())
        except (DiffbenchError, FileNotFoundError) as error:
            done.notes.append(f"no trajectory of {cell_id}: {error}")
        else:
            done.files.append(path)


def tables_of(run: Source) -> list[Table]:
    """Every table of a run: of each column of quality, of throughput, of what a network costs."""
    found = [_of_quality(sheet, rows, i) for i, (sheet, rows) in enumerate(run.sheets)]
    rows, asked = run.rows, run.layout
    if rows["sample_images_per_second"].notna().any():
        found += [_of_throughput(rows, asked.rows, asked.columns), _of_networks(rows)]
    seen: dict[str, int] = {}
    unique = []
    for table in found:                                   # rows that do not compare are on sheets of their own
        seen[table.name] = seen.get(table.name, 0) + 1
        again = f"{table.name}-{seen[table.name]}" if seen[table.name] > 1 else table.name
        unique.append(Table(name=again, caption=table.caption, down=table.down, across=table.across, entries=table.entries))
    return unique


def _of_quality(sheet: quality.Sheet, rows: pandas.DataFrame, place: int) -> Table:
    best = None if sheet.better is None or sheet.are_equal else quality.best_of(sheet.means, sheet.better)
    entries = {key: Entry(value=m.value, low=m.low if not math.isnan(m.standard_error) else math.nan, high=m.high, is_best=key == best,
                          mark="≈" if key in sheet.may_be_best else "") for key, m in sheet.means.items()}
    first = rows.iloc[0]
    said = [f"{sheet.column}, {tables.BETTER[sheet.better][0]}: {first['dataset']}, {first['sample_count']} samples a row."]
    if all(m.design == "one" for m in sheet.means.values()):
        said.append("One seed, and 95 % intervals over its samples")
    else:
        said.append(f"Means over seeds, and 95 % intervals ({'; '.join(dict.fromkeys(m.basis for m in sheet.means.values()))})")
    said[-1] += " of the value without the bias of finitely many samples." if rows.get(f"{sheet.column}_debiased") is not None else "."
    if sheet.column.startswith("fd_"):
        said.append(f"This is not FID: features of {first['extractor']} (weights {first['extractor_key']}).")
    if best is not None:
        said.append("Bold: the best." + (" ≈: cannot be told from it." if sheet.may_be_best else ""))
    return Table(name=_file_name(sheet.column), caption=" ".join(said), down=sheet.down, across=sheet.across, entries=entries)


def _of_throughput(rows: pandas.DataFrame, down_asked: tuple[str, ...], across_asked: tuple[str, ...]) -> Table:
    column = "sample_images_per_second"
    down, across = layout(rows, down_asked, across_asked)
    down = [*_of_runs(rows), *down]
    timed = named(rows[rows[column].notna()], across + down).drop_duplicates(across + down)       # one timing serves all seeds
    ranks = "run" not in rows                             # figures of different machines do not compare
    noisy = timed["sample_noisy"].fillna(False).astype(bool)
    entries = {tuple(row[name] for name in across + down): Entry(value=row[column], low=row[f"{column}_low"], high=row[f"{column}_high"], form="{:.4g}",
                                                                 is_best=ranks and row[column] == timed[column].max(), mark="†" if is_noisy else "")
               for row, is_noisy in zip(timed.to_dict("records"), noisy, strict=True)}
    sizes = ", ".join(str(size) for size in sorted(timed["throughput_batch_size"].dropna().unique()))
    caption = (f"Images per second of whole sampler runs, higher is better, guidance included, in batches of {sizes}; in brackets the quartiles of repeated "
               "laps." + (" †: the timing was noisy." if noisy.any() else ""))
    return Table(name="throughput", caption=caption, down=down, across=across, entries=entries)


def _of_networks(rows: pandas.DataFrame) -> Table:
    measured = rows[rows["parameters"].notna()]
    naming = [*_of_runs(rows), "backbone", *(c for c in measured.columns if c.startswith("backbone."))]
    shown = named(measured, naming)
    entries = {(*key, title): Entry(value=value, form=form) for key, title, value, form in cost.network_numbers(shown, naming)}
    return Table(name="networks", caption="Cost of a network; the median over the rows it was timed in.", down=["cost"], across=naming, entries=entries)


def _of_runs(rows: pandas.DataFrame) -> list[str]:
    """The column that tells runs apart, where there are several."""
    return ["run"] if "run" in rows else []


def _frames(run: Source) -> dict[str, pandas.DataFrame]:
    """results, and where something was measured means and differences."""
    means, differences = quality.as_frames([sheet for sheet, _ in run.sheets])
    return {"results": run.rows} | {name: frame for name, frame in (("means", means), ("differences", differences)) if len(frame)}


def _as_csv(frame: pandas.DataFrame) -> bytes:
    return results.csv_of(frame) if "reason" in frame else frame.to_csv(index=False).encode()


def _as_parquet(frame: pandas.DataFrame) -> bytes:
    data = io.BytesIO()
    frame.to_parquet(data, index=False, write_page_checksum=True)
    return data.getvalue()


def _drawn(run: Source, kind: str, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each figure; a figure whose data were not measured is noted."""
    figures = _figures()
    matplotlib, paired = importlib.import_module("matplotlib"), importlib.import_module("paired")
    ranked = next((sheet for sheet, _ in run.sheets if sheet.better is not None), None)
    if ranked is None:
        notes.append("no figures: no column of quality that ranks was measured")
        return
    rows, column, is_higher = run.rows, ranked.column, ranked.better == "higher"
    wanted: dict[str, Callable[[], Any]] = {
        "quality_against_nfe": lambda: figures.quality_against_nfe(rows, column, is_higher),
        "quality_against_cost": lambda: figures.quality_against_cost(rows, column, is_higher),
        "effects": lambda: figures.differences(paired.effects(rows, column), column, not is_higher),
        "by_seed": lambda: figures.by_seed(rows, column, is_higher), "resolution": lambda: figures.resolution(rows, column, is_higher)}
    if "run" in rows:
        del wanted["quality_against_cost"]
        notes.append("no figure quality_against_cost: timings of different runs do not compare")
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "diffbench"}):        # TrueType, as publishers ask; the same bytes each time
        for name, draw in wanted.items():
            try:
                figure = draw()
            except figures.NothingToDraw as error:
                notes.append(f"no figure {name}: {error}")
                continue
            data = io.BytesIO()
            figure.savefig(data, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None})
            importlib.import_module("matplotlib.pyplot").close(figure)
            yield f"{name}.{kind}", data.getvalue()


def _figures() -> ModuleType:
    """The notebooks' figures, drawn without a window, whatever the machine has."""
    if importlib.util.find_spec("matplotlib") is None:
        raise DiffbenchError("figures need matplotlib: pip install 'diffbench[notebooks]'")
    if "matplotlib.pyplot" not in sys.modules:
        importlib.import_module("matplotlib").use("Agg")
    return notebook_files.module("figures")


def _file_name(column: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", column)
