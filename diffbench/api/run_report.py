"""Files that show a run: tables, pictures of samples and the page, written anew as its rows come. Used by `running`."""

from __future__ import annotations

import functools
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from diffbench.errors import Damaged
from diffbench.machine.fingerprint import fingerprint
from diffbench.matrix import selection
from diffbench.matrix.describing import describe_cell
from diffbench.planning.plan import CellPlan, Plan
from diffbench.results import columns, columns_of_plan
from diffbench.results.rows import Rows, of_real_images, write_tables
from diffbench.results.run_files import RunFiles
from diffbench.running.engine import Engine
from diffbench.store.artefacts import Store, write_atomically

if TYPE_CHECKING:
    from diffbench.report import tables

SHARE = 0.03                          # of a run's time that its driver may spend on writing them before it ends


class RunReport:
    """The files of one run. After each writing, `answer` is its result in a few lines, and `problems` names what could
    not be written, and why.
    """

    def __init__(self, plan: Plan, store: Store, engine: Engine, rows: Rows, folder: Path):
        self.plan, self.store, self.engine, self.rows, self.folder = plan, store, engine, rows, folder
        self.answer: list[str] = []
        self.problems: list[str] = []
        self.pictures: set[str] = set()                   # cells whose picture is there
        self.due, self.shown = 0.0, 0                     # when they may be written again; rows that they show

    def follow(self) -> None:
        """Writes them again where rows have joined since, as often as takes a small share of the time.

        Not while a speed is measured: it would be measured against this.
        """
        now = time.monotonic()
        if now >= self.due and not self.engine.is_measuring and self._measured() > self.shown:
            self.write()
            ended = time.monotonic()
            self.due = ended + (ended - now) / SHARE

    def write(self) -> None:
        """Writes all of what there is, also after an interruption."""
        from diffbench.report import answer, page, tables
        from diffbench.report.reading import ReportedRun

        if not self.rows.written:
            return
        self.shown = self._measured()
        files, plan = RunFiles(self.folder), self.plan
        meaning = files.write(columns.FILE, lambda: columns_of_plan.describe(plan, self.store, self.engine.outcomes))
        table = files.write(columns.FILE, lambda: write_tables(self.folder, meaning or {}, files.write))
        if table is not None:
            facts = files.write(tables.REAL, lambda: self._facts(meaning or {}))
            layout = plan.matrix.report.rows, plan.matrix.report.columns
            if facts is not None:
                files.write("fid.md, fid.csv, means.csv, differences.csv",
                            lambda: tables.write_quality(self.folder, table, *layout, facts))
                files.write("throughput.md, throughput.csv",
                            lambda: tables.write_throughput(self.folder, table, *layout, facts))
        for planned in plan.cells:
            path = self.folder / "samples" / f"{planned.cell_id}.png"
            if self._has_samples(planned) and not (planned.cell_id in self.pictures and path.exists()):
                files.write(f"samples/{path.name}", functools.partial(self._write_grid, planned, path))
        run = ReportedRun(self.folder)
        files.write(page.FILE, lambda: page.write(run, self.folder / page.FILE, self.store,
                                                  plan.registry.report_sections(run.rows, self.folder)))
        self.answer = files.write("the result in a few lines", lambda: answer.lines(run)) or []
        self.problems = files.problems

    def _measured(self) -> int:
        return sum(row["status"] != "skipped" for row in self.rows.written.values())

    def _has_samples(self, planned: CellPlan) -> bool:
        outcome = self.engine.outcomes.get(planned.stages.get("sample", ""))
        return (outcome is not None and outcome.status == "ok"
                and self.rows.written.get(planned.cell_id, {}).get("status") == "ok")

    def _write_grid(self, planned: CellPlan, path: Path) -> None:
        """The picture of a cell's samples. Those that nobody can read are set aside; the next run draws them again."""
        from diffbench.report import grids

        key = planned.stages["sample"]
        try:
            grids.write(self.store, key, path)
        except Damaged:                                   # its hashes are right, or it would not have been found done
            self.store.set_aside("sample", key)
            raise
        self.pictures.add(planned.cell_id)

    def _facts(self, meaning: columns.Columns) -> tables.Facts:
        """Facts that the tables give besides the rows; the values of real images are also written to the folder."""
        from diffbench.report import tables

        plan, conditions = self.plan, self.plan.matrix.report.baseline
        cells = {p.cell_id: selection.values_of(describe_cell(p.cell, plan.names)) for p in plan.cells if conditions}
        baseline = frozenset(selection.selected_ids(cells, conditions))
        real = tables.RealImages(held_out=of_real_images(plan.floors, self.store, self.engine),
                                 training=of_real_images(plan.copies, self.store, self.engine))
        write_atomically(self.folder / tables.REAL, json.dumps(asdict(real)).encode())
        return tables.Facts(name=plan.matrix.name, real=real, machine=fingerprint(plan.device), columns=meaning,
                            records=self.rows.written, baseline=baseline)
