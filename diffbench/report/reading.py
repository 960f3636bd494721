"""Runs read from their folders: their rows, what the columns mean, how a matrix wants tables laid out; several of them as one."""

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

from diffbench import columns, results, selection
from diffbench.environment import FILE as ENVIRONMENT
from diffbench.environment import Change, differences
from diffbench.errors import DiffbenchError
from diffbench.report import quality, tables
from diffbench.settings import Report

Sheets = list[tuple[quality.Sheet, pandas.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder of results. Raises DiffbenchError, when asked, for what is missing in it."""

    folder: Path

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """One row per cell, as in results.parquet."""
        return results.load(self.folder)

    @cached_property
    def columns(self) -> columns.Columns:
        """What the columns of metrics mean; nothing of a run that has no row yet."""
        return columns.read(self.folder) if self.records else {}

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
        """By cell id, what is known of a row besides the frame's columns, too: its left-out values."""
        return results.records(self.folder)

    @cached_property
    def layout(self) -> Report:
        """How the matrix wants tables laid out."""
        asked = self.matrix.get("report") or {}
        return Report(**{name: tuple(value) if isinstance(value, list) else value if name == "baseline" else (value,) for name, value in asked.items()})

    @cached_property
    def sheets(self) -> Sheets:
        """Means and differences of each column of quality, the Fréchet distance first, with the rows behind each."""
        return _sheets(self, self.baseline())

    @property
    def labels(self) -> list[str]:
        """Its name."""
        return [self.name]

    @property
    def kept(self) -> dict[str, Run]:
        """By cell id, the run whose row is shown."""
        return dict.fromkeys(self.records, self)

    def notes(self) -> Iterator[str]:
        """Nothing: it is one run."""
        return iter(())

    @property
    def runs(self) -> tuple[Run, ...]:
        """Itself, as `Merged` has several."""
        return (self,)

    @property
    def name(self) -> str:
        """As the matrix says."""
        return self.matrix.get("name", self.folder.name)

    @cached_property
    def matrix(self) -> dict[str, Any]:
        """The matrix of the run, as its file says."""
        return self._json("matrix.json")

    @property
    def real(self) -> tables.RealImages:
        """What real images have in the columns of quality; nothing where the run has not ended."""
        return tables.RealImages(**self._json(tables.REAL)) if (self.folder / tables.REAL).is_file() else tables.RealImages()

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What its numbers depend on besides the matrix."""
        return self._json(ENVIRONMENT)

    def plan(self) -> dict[str, Any]:
        """The plan as it lies beside the results."""
        return self._json("plan.json")

    def stages(self) -> dict[str, dict[str, str]]:
        """By cell id, the keys of its stages by role."""
        return {cell["cell_id"]: cell["stages"] for cell in self.plan()["cells"]}

    def made_of(self) -> dict[str, selection.Named]:
        """By cell id, all its components, options and seeds."""
        return {cell["cell_id"]: selection.named(cell["cell"]) for cell in self.plan()["cells"]}

    def baseline(self) -> Iterator[str]:
        """Ids of the cells that the matrix wants others compared with."""
        if self.layout.baseline:
            wanted = selection.conditions(self.layout.baseline)
            yield from (cell_id for cell_id, row in self.made_of().items() if selection.meets(row, wanted))

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise DiffbenchError(f"{self.folder / name} cannot be read: {error}; running the matrix again writes it anew") from None


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Several runs as one. Their rows stand together, each with the label of its run in the column `run`.

    A cell that several runs hold is taken from the first of them in which it is ok. Rows of one configuration with other seeds are averaged, whichever
    run they come from; what a run says of time is never averaged with what another says. Laid out as the first run's matrix says.
    """

    runs: tuple[Run, ...]

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
        """What tells the runs apart: their names, and where those are the same, their folders."""
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
        whole = whole.reindex(columns=list(dict.fromkeys(name for part in parts for name in part)))
        for name in _varying_options(made_of.values()):
            whole[name] = [_shown(made_of[i].get(name)) for i in whole["cell_id"]]
        return whole

    @cached_property
    def columns(self) -> columns.Columns:
        """Of all runs; raises DiffbenchError where a column means one thing in one run and another in another."""
        found: columns.Columns = {}
        for run in self.runs:
            for name, facts in run.columns.items():
                if found.setdefault(name, facts)["metric"] != facts["metric"]:
                    raise DiffbenchError(f"the column {name} is {found[name]['metric']} in one run and {facts['metric']} in {run.folder}: report them apart")
        return found

    @property
    def real(self) -> tables.RealImages:
        """Of all runs; what several say of one data set is told as the first says it."""
        parts = [run.real for run in reversed(self.runs)]
        return tables.RealImages(held_out={k: v for part in parts for k, v in part.held_out.items()},
                                 training={k: v for part in parts for k, v in part.training.items()})

    @cached_property
    def records(self) -> dict[str, dict[str, Any]]:
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
        """What was found in several runs, and in what else than their matrices the runs differ."""
        for run, label in zip(self.runs, self.labels, strict=True):
            elsewhere = sum(self.kept[i] is not run for i in run.records)
            if elsewhere:
                yield f"{elsewhere} of the {len(run.records)} cells of {label} are also in another run, and shown as that one has them."
        for label, changes in self.differences().items():
            said = ", ".join(f"{c.name or c.what} {c.then} and {c.now}" for c in changes[:6])
            more = f" and {len(changes) - 6} more" if len(changes) > 6 else ""
            yield f"{self.labels[0]} and {label} differ in what may change bits: {said}{more}."

    def differences(self) -> dict[str, list[Change]]:
        """By label of a later run, what its environment has otherwise than the first run's and may change bits."""
        first = self.runs[0].environment
        found = {label: differences(first, run.environment) for run, label in zip(self.runs[1:], self.labels[1:], strict=True)}
        return {label: changes for label, changes in found.items() if changes}

    @cached_property
    def kept(self) -> dict[str, Run]:
        """By cell id, the run whose row is shown."""
        found: dict[str, Run] = {}
        for run in self.runs:
            for i, record in run.records.items():
                if i not in found or found[i].records[i]["status"] != "ok" == record["status"]:
                    found[i] = run
        return found


Source = Run | Merged


def read(folders: Sequence[str | os.PathLike[str]]) -> Source:
    """One run, or several merged. A folder named twice counts once."""
    runs = tuple(Run(folder=folder) for folder in dict.fromkeys(map(Path, folders)))
    return runs[0] if len(runs) == 1 else Merged(runs=runs)


def _sheets(source: Source, baseline: Iterable[str]) -> Sheets:
    rows = source.rows                                    # refused here where there is nothing to read
    facts = tables.Facts(name=source.name, real=source.real, machine={}, columns=source.columns, records=source.records, baseline=frozenset(baseline))
    return list(tables.sheets(rows, source.layout.rows, source.layout.columns, facts))


def _varying_options(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """'<owner>.<option>' for each option in which components of one class differ."""
    seen: dict[str, set[tuple[str, str]]] = {}
    for row in rows:
        for name, value in row.items():
            owner = name.rpartition(".")[0]
            if owner:
                seen.setdefault(name, set()).add((str(row.get(owner)), json.dumps(value, sort_keys=True)))
    return [name for name, found in seen.items() if len(found) > len({component for component, _ in found})]


def _shown(value: Any) -> Any:
    """As a frame of results has it."""
    return "-".join(map(str, value)) if isinstance(value, list) else value
