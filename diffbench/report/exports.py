"""Exports of a run for papers: tables as Markdown and LaTeX, numbers as CSV and parquet, figures."""

from __future__ import annotations

import importlib
import importlib.util
import io
import math
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas

from diffbench.errors import DiffbenchError
from diffbench.report import cost, notebook_files, quality, quality_text, tables, written_files
from diffbench.report.layout import Key, in_words, named, with_nfe
from diffbench.report.paper import Entry, Table
from diffbench.report.reading import ReportedRun, Source
from diffbench.report.written_files import Written
from diffbench.results.frame import counted
from diffbench.results.quantity import is_distance
from diffbench.results.table_files import as_csv, as_parquet
from diffbench.wording import unknown_name

FORMATS = ("md", "latex", "csv", "parquet", "svg", "pdf")
FOLDER = "exports"                    # in the folder of a run


def write(run: str | Path | Source, formats: Sequence[str], out: str | Path | None = None) -> Written:
    """Exports a folder of results, or what was read from several, into `out`, by default the (first) run's folder
    exports/.

    Raises DiffbenchError where it holds no results.

    md, latex: a file for each column of quality, one of throughput, one of the cost of a network. csv, parquet:
    results, means and differences, unrounded. svg, pdf: figures of the first column of quality.
    """
    for name in formats:
        if name not in FORMATS:
            raise DiffbenchError(unknown_name("format", name, FORMATS))
    read, done = ReportedRun(Path(run)) if isinstance(run, str | Path) else run, Written()
    folder = Path(out) if out is not None else read.folder / FOLDER
    files: dict[str, bytes] = {}
    for name in dict.fromkeys(formats):
        if name in ("md", "latex"):
            exported = tables_of(read)
            files |= ({f"{t.name}.tex": t.latex().encode() for t in exported} if name == "latex"
                      else {f"{t.name}.md": t.markdown().encode() for t in exported})
        elif name in ("csv", "parquet"):
            encode = as_csv if name == "csv" else as_parquet
            files |= {f"{kind}.{name}": encode(frame) for kind, frame in _frames(read).items()}
        else:
            files |= dict(_drawn(read, name, done.notes))
    if not files:
        raise DiffbenchError(f"{run}: there is nothing to export yet: "
                             f"{'; '.join(done.notes) or 'no row has a measured value'}")
    done.files += written_files.write(folder, files, is_ours=out is None)
    return done


def tables_of(run: Source) -> list[Table]:
    """Every table of a run: of each column of quality, of throughput, of what a network costs."""
    exported = [table for sheet, rows in run.sheets for table in _of_quality(sheet, rows)]
    rows, asked_for = counted(run.rows), run.layout
    if rows["sample_images_per_second"].notna().any():
        exported += [_of_throughput(rows, asked_for.rows, asked_for.columns), _of_networks(rows)]
    seen: dict[str, int] = {}
    unique = []
    for table in exported:                                   # rows that do not compare are on sheets of their own
        seen[table.name] = seen.get(table.name, 0) + 1
        again = f"{table.name}-{seen[table.name]}" if seen[table.name] > 1 else table.name
        unique.append(Table(name=again, caption=table.caption, down=table.down, across=table.across,
                            entries=table.entries))
    return unique


def _of_quality(sheet: quality.Sheet, rows: pandas.DataFrame) -> Iterator[Table]:
    """The quantity that is ranked, with its own interval;
    and the conventional value, where that is another one, as a table of its own.
    """
    entries = {
        key: Entry(value=math.nan)
        if (m := sheet.means.get(key)) is None
        else Entry(
            value=m.debiased,
            low=m.low if not math.isnan(m.standard_error) else math.nan,
            high=m.high,
            is_best=key == sheet.best,
            mark="≈" if key in sheet.may_be_best else "",
        )
        for key in sheet.configurations
    }
    first = rows.iloc[0]
    of = f"{first['dataset']}, {first['sample_count']} samples a row."
    sentences = [f"{sheet.quantity.name}, {tables.BETTER[sheet.better][0]}: {of}"]
    if all(m.design == "one" for m in sheet.means.values()):
        sentences.append("One seed, and 95 % intervals over its samples")
    else:
        sentences.append("Means over seeds, and 95 % intervals "
                         f"({'; '.join(dict.fromkeys(m.basis for m in sheet.means.values()))})")
    sentences[-1] += ", of the value without the bias of finitely many samples." if sheet.quantity.is_debiased else "."
    sentences += filter(None, [tables.caveat([sheet])])
    if is_distance(sheet.column) and sheet.column != "fid":
        sentences.append(f"This is not FID: features of {first['extractor']} (weights {first['extractor_key']}).")
    if sheet.best is not None:
        sentences.append("Bold: the best." + (" ≈: cannot be told from it." if sheet.may_be_best else ""))
    sentences += quality_text.remarks(sheet)
    yield _table(_file_name(sheet.column), " ".join(sentences).replace("`", ""), sheet, entries)
    if sheet.conventional:
        caption = f"{sheet.quantity.conventional}: {of} Its bias differs from row to row: it is not ranked."
        yield _table(
            f"{_file_name(sheet.column)}-conventional",
            caption,
            sheet,
            {key: Entry(value=value) for key, value in sheet.conventional.items()},
        )


def _table(name: str, caption: str, sheet: quality.Sheet, entries: dict[Key, Entry]) -> Table:
    with_evaluations, down, across = with_nfe(entries, sheet.down, sheet.across, sheet.nfe)
    return Table(name=name, caption=caption, down=down, across=across, entries=with_evaluations)


def _of_throughput(rows: pandas.DataFrame, down_asked: tuple[str, ...], across_asked: tuple[str, ...]) -> Table:
    times = cost.timings(rows, down_asked, across_asked, apart=_of_runs(rows))
    ranks = "run" not in rows                             # figures of different machines do not compare
    fastest = max(row[cost.RATE] for row in times.rows.values())
    entries = {
        key: Entry(
            value=row[cost.RATE],
            low=row[f"{cost.RATE}_low"],
            high=row[f"{cost.RATE}_high"],
            form="{:.4g}",
            is_best=ranks and row[cost.RATE] == fastest,
            mark=cost.mark(row, cost.RATE).strip(),
        )
        for key, row in times.rows.items()
    }
    sizes = ", ".join(str(size) for size in sorted(rows["throughput_batch_size"].dropna().unique()))
    caption = (
        f"Images per second of whole sampler runs, higher is better, guidance included, in batches of {sizes}; in "
        "brackets the quartiles of repeated laps."
        + (" †: the timing was noisy." if any(entry.mark for entry in entries.values()) else "")
        + (f" {times.remark}" if times.remark else "")
    )
    with_evaluations, down, across = with_nfe(entries, times.down, times.across, times.nfe)
    return Table(name="throughput", caption=caption, down=down, across=across, entries=with_evaluations)


def _of_networks(rows: pandas.DataFrame) -> Table:
    measured = rows[rows["parameters"].notna()]
    naming = [*_of_runs(rows), "backbone", *(c for c in measured.columns if c.startswith("backbone."))]
    entries = {
        (*number.key, number.title): Entry(
            value=number.value, form=number.form, mark=cost.MARK.strip() if number.is_noisy else ""
        )
        for number in cost.network_numbers(named(measured, naming), naming)
    }
    caption = "Cost of a network; the median over the rows it was timed in." + (
        " †: a timing was noisy." if any(e.mark for e in entries.values()) else ""
    )
    return Table(name="networks", caption=caption, down=["cost"], across=naming, entries=entries)


def _of_runs(rows: pandas.DataFrame) -> list[str]:
    """The column that tells runs apart, where there are several."""
    return ["run"] if "run" in rows else []


def _frames(run: Source) -> dict[str, pandas.DataFrame]:
    """results, and where something was measured means and differences."""
    means, differences = quality.as_frames([sheet for sheet, _ in run.sheets])
    return {"results": run.rows} | {name: frame for name, frame in (("means", means), ("differences", differences))
                                    if len(frame)}


def _drawn(run: Source, kind: str, notes: list[str]) -> Iterator[tuple[str, bytes]]:
    """(file name, content) of each figure; a figure whose data were not measured is noted."""
    figures, intervals = _figures(), notebook_files.module("intervals")
    matplotlib, paired = importlib.import_module("matplotlib"), importlib.import_module("paired")
    ranked = next((sheet for sheet, _ in run.sheets if sheet.better is not None), None)
    if ranked is None:
        notes.append("no figures: no column of quality that ranks was measured")
        return
    rows, column, is_higher = in_words(run.rows), ranked.column, ranked.better == "higher"
    drawings: dict[str, Callable[[], Any]] = {
        "quality_against_nfe": lambda: figures.quality_against_nfe(rows, column, is_higher),
        "quality_against_cost": lambda: figures.quality_against_cost(rows, column, is_higher),
        "effects": lambda: intervals.differences(paired.effects(rows, column), not is_higher),
        "by_seed": lambda: intervals.by_seed(rows, column, is_higher),
        "resolution": lambda: intervals.resolution(rows, column, is_higher)}
    if "run" in rows:
        del drawings["quality_against_cost"]
        notes.append("no figure quality_against_cost: timings of different runs do not compare")
    # TrueType, as publishers ask; the same bytes each time
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "diffbench"}):
        for name, draw in drawings.items():
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
