"""Runs read from their folders: their rows, what the columns mean, how a matrix wants tables laid out;
several of them as one.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from diffbench.errors import DiffbenchError
from diffbench.matrix import selection
from diffbench.matrix.settings import Report
from diffbench.report import quality, tables
from diffbench.results import columns
from diffbench.results import frame as frames
from diffbench.results.environment import Change, differences
from diffbench.results.folder import RunFolder

Sheets = list[tuple[quality.Sheet, pandas.DataFrame]]


class ReportedRun(RunFolder):
    """A folder of results, as its matrix wants it shown."""

    @cached_property
    def layout(self) -> Report:
        """Layout of tables that the matrix asks for."""
        options = self.matrix.get("report") or {}
        return Report(**{name: tuple(value) if isinstance(value, list) else value if name == "baseline" else (value,)
                         for name, value in options.items()})

    @cached_property
    def sheets(self) -> Sheets:
        """Means and differences of each column of quality, the Fréchet distance first, with the rows behind each."""
        return _sheets(self, self.baseline())

    @property
    def labels(self) -> list[str]:
        """Its name."""
        return [self.name]

    @property
    def kept(self) -> dict[str, ReportedRun]:
        """By cell id, the run whose row is shown."""
        return dict.fromkeys(self.records, self)

    def notes(self) -> Iterator[str]:
        """Nothing: it is one run."""
        return iter(())

    @property
    def runs(self) -> tuple[ReportedRun, ...]:
        """Itself, as `MergedRuns` has several."""
        return (self,)

    @property
    def real(self) -> tables.RealImages:
        """Values of real images in the columns of quality; none where the run has not ended."""
        there = self._part(tables.REAL) if (self.folder / tables.REAL).is_file() else {}
        return tables.RealImages(held_out=there.get("held_out", {}), training=there.get("training", {}))

    def stages_of_cells(self) -> dict[str, dict[str, str]]:
        """By cell id, the keys of its stages by role."""
        return {cell["cell_id"]: cell.get("stages", {}) for cell in self.plan["cells"]}

    def baseline(self) -> list[str]:
        """Ids of the cells that the matrix wants others compared with."""
        return selection.selected_ids(self.made_of(), self.layout.baseline)


@dataclass(frozen=True, kw_only=True)
class MergedRuns:
    """Several runs as one. Their rows stand together, each with the label of its run in the column `run`.

    A cell that several runs hold is taken from the first of them in which it is ok. Rows of one configuration with
    other seeds are averaged, whichever run they come from; what a run says of time is never averaged with what another
    says. Laid out as the first run's matrix says.
    """

    runs: tuple[ReportedRun, ...]

    @property
    def folder(self) -> Path:
        """Of the first run."""
        return self.runs[0].folder

    @property
    def name(self) -> str:
        """All their names."""
        return " + ".join(self.labels)

    @cached_property
    def labels(self) -> list[str]:
        """Labels that tell the runs apart: their names, and where those are the same, their folders."""
        counts = Counter(run.name for run in self.runs)
        return [run.name if counts[run.name] == 1 else str(run.folder) for run in self.runs]

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """One row per cell, with every option in which cells of different runs differ."""
        kept = self.kept
        parts = [run.rows[run.rows["cell_id"].map(lambda i, run=run: kept[i] is run)].assign(run=label)
                 for run, label in zip(self.runs, self.labels, strict=True)]
        made_of = {i: row for run in self.runs for i, row in run.made_of().items() if kept.get(i) is run}
        whole = pandas.concat([part.dropna(axis="columns", how="all") for part in parts], ignore_index=True)
        leading = frames.with_more(dict.fromkeys(kind for part in parts for kind in frames.more_kinds(part)))
        whole = whole.reindex(columns=list(dict.fromkeys([*leading, *(name for part in parts for name in part)])))
        for name in _varying_options(made_of.values()):
            whole[name] = frames.column(name, [made_of[i].get(name) for i in whole["cell_id"]])
        return whole

    @cached_property
    def columns(self) -> columns.Columns:
        """Of all runs; raises DiffbenchError where a column means one thing in one run and another in another."""
        meanings: columns.Columns = {}
        for run in self.runs:
            for name, facts in run.columns.items():
                if meanings.setdefault(name, facts)["metric"] != facts["metric"]:
                    raise DiffbenchError(f"the column {name} is {meanings[name]['metric']} in one run and "
                                         f"{facts['metric']} in {run.folder}: report them apart")
        return meanings

    @property
    def real(self) -> tables.RealImages:
        """Of all runs; what several say of one data set is told as the first says it."""
        parts = [run.real for run in reversed(self.runs)]
        return tables.RealImages(held_out={k: v for part in parts for k, v in part.held_out.items()},
                                 training={k: v for part in parts for k, v in part.training.items()})

    @cached_property
    def records(self) -> dict[str, columns.Record]:
        """By cell id, as its run has it."""
        return {i: run.records[i] for i, run in self.kept.items()}

    @property
    def layout(self) -> Report:
        """As the first run's matrix says."""
        return self.runs[0].layout

    @cached_property
    def sheets(self) -> Sheets:
        """As of one run."""
        return _sheets(self, (i for i in self.runs[0].baseline() if self.kept.get(i) is self.runs[0]))

    def notes(self) -> Iterator[str]:
        """Notes on what was found in several runs, and on what else than their matrices the runs differ in."""
        for run, label in zip(self.runs, self.labels, strict=True):
            elsewhere = sum(self.kept[i] is not run for i in run.records)
            if elsewhere:
                yield (f"{elsewhere} of the {len(run.records)} cells of {label} are also in another run, and shown as "
                       "that one has them.")
        for label, changes in self.differences().items():
            values = ", ".join(f"{c.name or c.what} {c.then} and {c.now}" for c in changes[:6])
            more = f" and {len(changes) - 6} more" if len(changes) > 6 else ""
            yield f"{self.labels[0]} and {label} differ in what may change bits: {values}{more}."

    def differences(self) -> dict[str, list[Change]]:
        """By label of a later run, what its environment has otherwise than the first run's and may change bits."""
        first = self.runs[0].environment
        by_label = {label: differences(first, run.environment)
                    for run, label in zip(self.runs[1:], self.labels[1:], strict=True)}
        return {label: changes for label, changes in by_label.items() if changes}

    @cached_property
    def kept(self) -> dict[str, ReportedRun]:
        """By cell id, the run whose row is shown."""
        by_cell: dict[str, ReportedRun] = {}
        for run in self.runs:
            for i, record in run.records.items():
                if i not in by_cell or by_cell[i].records[i]["status"] != "ok" == record["status"]:
                    by_cell[i] = run
        return by_cell


Source = ReportedRun | MergedRuns


def read(folders: Sequence[str | os.PathLike[str]]) -> Source:
    """One run, or several merged. A folder named twice counts once."""
    runs = tuple(ReportedRun(folder) for folder in dict.fromkeys(map(Path, folders)))
    return runs[0] if len(runs) == 1 else MergedRuns(runs=runs)


def _sheets(source: Source, baseline: Iterable[str]) -> Sheets:
    rows = source.rows                                    # refused here where there is nothing to read
    facts = tables.Facts(name=source.name, real=source.real, machine={}, columns=source.columns, records=source.records,
                         baseline=frozenset(baseline))
    return list(tables.sheets(rows, source.layout.rows, source.layout.columns, facts))


def _varying_options(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """'<owner>.<option>' for each option in which components of one class differ."""
    seen: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        for name, value in row.items():
            owner = name.rpartition(".")[0]
            if owner:
                seen.setdefault(name, set()).add((str(row.get(owner)), json.dumps(value, sort_keys=True)))
    return [name for name, values in seen.items() if len(values) > len({component for component, _ in values})]
