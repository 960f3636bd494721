"""Watcher that writes one JSON record per cell, and the tables that are rebuilt from the records. Used by a run."""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.errors import Damaged
from diffbench.matrix.describing import is_necessary
from diffbench.matrix.settings import OFF
from diffbench.planning.plan import CellPlan, Plan
from diffbench.planning.stage import Stage
from diffbench.results import speed_columns, table_files
from diffbench.results.columns import FILE as MEANING
from diffbench.results.columns import LEFT_OUT, MORE_KINDS, RECORDS, Columns, Record, columns_of
from diffbench.results.columns_of_plan import check_names, describe, kinds_beside, option_value, varying_options
from diffbench.results.folder import RunFolder
from diffbench.results.records import NOT_RUN, read, storable
from diffbench.results.row_remarks import remarks
from diffbench.running.engine import Engine
from diffbench.running.outcome import Outcome
from diffbench.stats import jackknife
from diffbench.store.artefacts import Store, write_atomically
from diffbench.store.output_folder import CELL_ID

if TYPE_CHECKING:
    import pandas

# Columns in which two runs of one matrix differ: what clocks and the machine's load say.
CLOCKED = re.compile(
    r"images_per_|seconds|started_at|peak_memory|energy|lap_spread|cores_of_others|noisy|speed_remark|_compiled")


class Rows:
    """A watcher that writes the record of each cell the moment its quality is known, and again when its timings join.
    """

    def __init__(self, plan: Plan, store: Store, folder: Path, facts: Record,
                 listeners: Iterable[Callable[[Record], None]] = (),
                 early: Callable[[Record], None] = lambda row: None, on_quality: Callable[[], None] = lambda: None):
        """listeners: told each row when it has all it will have; early: told it when its quality is known and its
        timings are not;
        on_quality: called once, when every cell has its row and some wait for their timings."""
        self.plan, self.store, self.folder, self.facts, self.listeners = plan, store, folder, facts, list(listeners)
        self.outcomes: dict[str, Outcome] = {}
        self.written: dict[str, Record] = {}
        # rows of an earlier run, which stand where every stage is found done
        self.kept: dict[str, Record] = {}
        self.early, self.on_quality = early, on_quality
        self.complete: set[str] = set()                   # cells whose row has all it will have
        # whether what the store holds has been looked up: before, timings may be found at once
        self.is_settled = False
        self.told: set[str] = set()                       # names of columns whose meaning is written down
        self.are_changed = False                          # whether the folder is not as that run left it
        self.users: dict[str, list[CellPlan]] = {}
        # by the artefact that was found damaged while their rows were made
        self.interrupted: dict[str, list[CellPlan]] = {}
        self.of_real_images = {*plan.floors.values(), *plan.copies.values()}
        check_names(plan)
        self.varying = varying_options(plan)
        self.kinds_beside = kinds_beside(plan)
        self.read: dict[tuple[str, ...], Any] = {}   # what stages say, many of which serve many cells
        for planned in plan.cells:
            for key in planned.stages.values():
                self.users.setdefault(key, []).append(planned)

    def start(self, kept: dict[str, Record] | None = None) -> None:
        """Writes the rows that need no work: skipped cells.
        kept: rows of an earlier run of this plan whose files are all as it left them.
        """
        self.kept, self.are_changed = kept or {}, not kept
        (self.folder / RECORDS).mkdir(parents=True, exist_ok=True)
        names = {f"{planned.cell_id}.json" for planned in self.plan.cells}
        for stale in (self.folder / RECORDS).glob("*.json"):
            if stale.name not in names and CELL_ID.fullmatch(stale.stem):         # of cells no longer in the matrix
                stale.unlink()
                self.are_changed = True
        for planned in self.plan.cells:
            if planned.skipped is not None:
                kept = self.kept.get(planned.cell_id)
                self._tell(kept) if kept is not None else self._write(planned,
                                                                      {"status": "skipped", "reason": planned.skipped})

    def started(self, stage: Stage) -> None:
        """Nothing to do."""

    def progress(self, stage: Stage, done: int, of: int, figures: dict[str, float]) -> None:
        """Nothing to do."""

    def note(self, text: str) -> None:
        """Nothing to do."""

    def finished(self, stage: Stage, outcome: Outcome) -> None:
        """Writes the rows this stage was the last one of."""
        self.outcomes[stage.key] = outcome
        self.are_changed |= not outcome.cached
        if outcome.status == "ok" and stage.key in self.of_real_images:
            self._said("evaluate", stage.key, "values.json")                     # read here, where damage is mended
        waiting = [*self.users.get(stage.key, []), *self.interrupted.pop(stage.key, [])]
        for i, planned in enumerate(waiting):
            try:
                self._finish(planned)
            except Damaged as damaged:
                # told to who has it built again: this and the others wait for it
                self.outcomes.pop(damaged.key, None)
                self.interrupted.setdefault(damaged.key, []).extend(waiting[i:])
                raise

    def _finish(self, planned: CellPlan) -> None:
        """Writes the row of a cell whose stages have all ended, or whose quality is known, unless it is there."""
        if planned.cell_id in self.complete:
            return
        if not all(key in self.outcomes for key in planned.stages.values()):
            if self.is_settled:
                self._write_early(planned)
            return
        kept = self.kept.get(planned.cell_id)
        if kept is not None and all(self.outcomes[key].cached for key in planned.stages.values()):
            self._tell(kept)
        else:
            self._write(planned, self._measured(planned))

    def settle(self) -> None:
        """To be called when the store has been looked up: rows whose timings are missing are written without them."""
        self.is_settled = True
        for planned in self.plan.cells:
            if planned.skipped is None:
                # said again when its timings join, where what is damaged is built again
                with contextlib.suppress(Damaged):
                    self._write_early(planned)

    def _write_early(self, planned: CellPlan) -> None:
        """The row of a cell whose quality is known, without the timings that are missing."""
        missing = [role for role, key in planned.stages.items() if key not in self.outcomes]
        if planned.cell_id in self.written or not missing or not all(role.startswith("throughput:")
                                                                     for role in missing):
            return
        self._write(planned, self._measured(planned), is_early=True)
        if len(self.written) == len(self.plan.cells):
            self.on_quality()

    def end_early(self, reason: str) -> None:
        """Writes a row that says why for each cell that has none."""
        for planned in self.plan.cells:
            if planned.cell_id not in self.written:
                self._write(planned, {"status": NOT_RUN, "reason": reason})

    def counts(self) -> dict[str, int]:
        """Cells by status, of those that have their row."""
        return dict(Counter(row["status"] for row in self.written.values()))

    def _write(self, planned: CellPlan, measured: Record, *, is_early: bool = False) -> None:
        facts = {k: v for k, v in self.facts.items() if measured["status"] != "skipped"
                 or k in ("diffbench", "started_at")}
        row = storable({**self._described(planned), **measured, **facts})
        path = self.folder / RECORDS / f"{planned.cell_id}.json"
        before = _written(path)
        # A row found again as it was keeps what it says of the run that measured it.
        if {k: v for k, v in before.items() if k not in facts} == {k: v for k, v in row.items() if k not in facts}:
            row = before
        else:
            if not self.told >= row.keys():               # while a run runs, a reader of its rows knows what they mean
                self.told |= row.keys()
                _write_meaning(self.folder, describe(self.plan, self.store, self.outcomes))
            write_atomically(path, json.dumps(row, indent=1, allow_nan=False).encode())
        self.are_changed = True
        self._tell(row, is_early=is_early)

    def _tell(self, row: Record, *, is_early: bool = False) -> None:
        self.written[row["cell_id"]] = row
        if not is_early:
            self.complete.add(row["cell_id"])
        for listener in (self.early,) if is_early else self.listeners:
            listener(row)

    def _described(self, planned: CellPlan) -> Record:
        cell, registry = planned.cell, self.plan.registry
        row: Record = {"cell_id": planned.cell_id}
        more = [kind for kind in self.kinds_beside if cell.component(kind) is not None]
        named = {kind: c for kind, c in cell.components().items() if is_necessary(kind) or kind in more}
        row |= {kind: registry.ref_of(c).full_name for kind, c in named.items()}
        row |= {MORE_KINDS: more} if more else {}
        row |= {"steps": cell.scheduler.steps, "guidance_scale": cell.conditioning.guidance_scale, "seed": cell.seed,
                "noise_seed": cell.noise_seed,
                "train_steps": cell.train_steps if cell.method.trains else None}
        row |= {name: option_value(cell, name, self.plan) for name in self.varying}
        row["origins"] = ", ".join(sorted({registry.ref_of(c).origin for c in named.values()}))
        return row

    def _measured(self, planned: CellPlan) -> Record:
        outcomes = {role: self.outcomes[key] for role, key in planned.stages.items() if key in self.outcomes}
        bad = [o for o in outcomes.values() if o.status != "ok"]
        root = next((o for o in bad if o.status != "blocked"), bad[0] if bad else None)
        status = "ok" if root is None else "failed" if root.status == "blocked" else root.status
        row: Record = {"status": status, "reason": root.reason if root else "",
                               "dataset_remark": self.plan.remarks.get(self.plan.names.label(planned.cell.dataset), "")}
        for role, outcome in outcomes.items():
            if outcome.status == "ok":
                left_out = row.get(LEFT_OUT, {})
                row |= self._of_stage(role, planned.stages[role])
                row[LEFT_OUT] = left_out | row.get(LEFT_OUT, {})
        origins = self._archives(planned)
        if origins:
            row["imported_from"] = ", ".join(origins)
        if root is None:
            row["reason"] = "; ".join(remarks(row))
            if len(outcomes) < len(planned.stages):
                row["speed_remark"] = "speed is not measured yet"
            elif self.plan.matrix.throughput is None:
                row["speed_remark"] = f"speed is not measured: throughput is {OFF}"
            else:
                row |= speed_columns.judged(row)
        return row

    def _of_stage(self, role: str, key: str) -> Record:
        """The columns one finished stage gives."""
        stage = self.plan.stages[key]
        if role.startswith("evaluate:"):
            column, content = role.partition(":")[2], self._said("evaluate", key, "values.json")
            measured = columns_of(column, content["values"]) | {LEFT_OUT: columns_of(column, content["left_out"])}
            reasons = columns_of(column, content["no_interval"])
            measured |= {f"{name}{jackknife.NO_INTERVAL}": reason for name, reason in reasons.items()}
            if "reference" not in stage.parents:          # of the denoiser: no images were compared with others
                return measured
            reference = self._said("reference", stage.parents["reference"], "facts.json")
            extractor = self.plan.stages[self.plan.stages[stage.parents["reference"]].parents["extractor"]]
            return measured | {
                "reference_count": reference["reference_count"],
                "extractor": self.plan.registry.ref_of(self.plan.matrix.extractor).full_name,
                "extractor_key": extractor.key[:12],
                "extractor_weights": self._said("extractor", extractor.key, "facts.json").get("sha256", "")[:12]}
        if role == "features":
            seen, judge = self._said(stage.name, key, "facts.json"), stage.parents.get("classifier")
            return ({"judge_key": judge[:12]} if judge else {}) | {"feature_count": seen["feature_count"],
                                                                   "extractor_remark": seen["remark"]}
        facts = self._said(stage.name, key, "facts.json")
        if role == "train":
            return {"train_loss": facts["train_loss"], "train_key": key[:12], "train_compiled": facts["compiled"]}
        if role == "sample":
            return {name: facts[name] for name in ("nfe", "sample_count", "clamped_share", "distinct_count",
                                                   "flat_count", "dtype", "threads")} | {
                                                       "sample_compiled": facts["compiled"],
                                                       "sample_batch_size": facts["batch_size"],
                                                       "sample_batch_size_asked": facts["batch_size_asked"]}
        return speed_columns.columns(role, facts)

    def _archives(self, planned: CellPlan) -> list[str]:
        """The archives that the finished stages of a cell, and all they were made from, came by."""
        keys, waiting = set[str](), list(planned.stages.values())
        while waiting:
            key = waiting.pop()
            if key not in keys:
                keys.add(key)
                waiting.extend(self.plan.stages[key].parents.values())
        return sorted({name for key in keys if (name := self.store.imported_from(self.plan.stages[key].name, key))})

    def _said(self, *what: str) -> Any:
        if what not in self.read:
            self.read[what] = self.store.read_json(*what)
        return self.read[what]


def write_tables(folder: Path, meaning: Columns,
                 write: Callable[[str, Callable[[], None]], Any] = lambda name, make: make()) -> pandas.DataFrame:
    """results.parquet and results.csv, rebuilt from the records of a run, and columns.json: the meaning of their
    columns.

    write: is given the name of each table and what writes it.
    """
    table = RunFolder(folder).rows
    _write_meaning(folder, meaning)
    write("results.parquet", lambda: write_atomically(folder / "results.parquet", table_files.as_parquet(table)))
    write("results.csv", lambda: write_atomically(folder / "results.csv", table_files.as_csv(table)))
    return table


def _write_meaning(folder: Path, meaning: Columns) -> None:
    write_atomically(folder / MEANING, json.dumps(meaning, indent=1).encode())


def _written(path: Path) -> Record:
    """The record of a cell as an earlier run left it; empty where there is none that can be read."""
    try:
        return read(path)
    except (OSError, ValueError):
        return {}


def of_real_images(stages: dict[str, str], store: Store, engine: Engine) -> dict[str, dict[str, float]]:
    """The columns of each metric for a split of real images, by 'dataset:column';
    stages: `floors` or `copies` of a plan.
    """
    return {name: columns_of(name.rpartition(":")[2], store.read_json("evaluate", key, "values.json")["values"])
            for name, key in stages.items()
            if engine.outcomes.get(key, Outcome(status="blocked")).status == "ok"}
