"""Results: one JSON record per cell, written at once and atomically; the tables are rebuilt from the records."""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench import costs
from diffbench.columns import FILE as MEANING
from diffbench.columns import LEFT_OUT, RECORDS, Columns, columns_of, describe, option_value, varying_options
from diffbench.engine import Engine, Outcome
from diffbench.errors import DiffbenchError
from diffbench.planning import CellPlan, Plan, Stage
from diffbench.store import Store, write_atomically

if TYPE_CHECKING:
    import pandas

LEADING = ("cell_id", "status", "reason", "dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing",
           "scheduler", "steps", "guidance_scale", "seed", "noise_seed")
MEASURED = ("nfe", "parameters", "gmac_per_nfe", "train_steps", "train_loss", *costs.COLUMNS)
PROVENANCE = ("train_key", "dataset_remark", "extractor", "extractor_key", "extractor_weights", "extractor_remark", "judge_key", "reference_count",
              "sample_count", "feature_count", "sample_batch_size", "sample_batch_size_asked", "clamped_share", "distinct_count", "flat_count",
              "train_compiled", "sample_compiled", *costs.FLAGS, "speed_remark", "device", "dtype", "threads", "cores", "torch", "diffbench", "origins",
              "git_commit", "started_at")
NOTABLE = 0.05                        # share of clamped pixels, of repeated and of flat samples, above which a row says so
# Columns in which two runs of one matrix differ: what clocks and the machine's load say.
CLOCKED = re.compile(r"images_per_|seconds|started_at|peak_memory|energy|lap_spread|cores_of_others|noisy|speed_remark|_compiled")
COUNTS = ("noise_seed", "reference_count", "sample_count", "feature_count", "sample_batch_size", "sample_batch_size_asked", "distinct_count", "flat_count",
          "threads", "cores", "parameters", "train_steps", "throughput_batch_size")


class Rows:
    """A watcher that writes the record of each cell the moment its last stage has ended."""

    def __init__(self, plan: Plan, store: Store, folder: Path, facts: dict[str, Any], listeners: Iterable[Callable[[dict[str, Any]], None]] = ()):
        """listeners: told each row when it is written."""
        self.plan, self.store, self.folder, self.facts, self.listeners = plan, store, folder, facts, list(listeners)
        self.outcomes: dict[str, Outcome] = {}
        self.written: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, dict[str, Any]] = {}         # rows of an earlier run, which stand where every stage is found done
        self.told: set[str] = set()                       # names of columns whose meaning is written down
        self.are_changed = False                          # whether the folder is not as that run left it
        self.users: dict[str, list[CellPlan]] = {}
        self.varying = varying_options(plan)
        self.read: dict[tuple[str, ...], Any] = {}   # what stages say, many of which serve many cells
        for planned in plan.cells:
            for key in planned.stages.values():
                self.users.setdefault(key, []).append(planned)

    def start(self, kept: dict[str, dict[str, Any]] | None = None) -> None:
        """Writes the rows that need no work: skipped cells. kept: rows of an earlier run of this plan whose files are all as it left them."""
        self.kept, self.are_changed = kept or {}, not kept
        (self.folder / RECORDS).mkdir(parents=True, exist_ok=True)
        wanted = {f"{planned.cell_id}.json" for planned in self.plan.cells}
        for stale in (self.folder / RECORDS).glob("*.json"):
            if stale.name not in wanted:                  # of cells that are no longer in the matrix
                stale.unlink()
                self.are_changed = True
        for planned in self.plan.cells:
            if planned.skipped is not None:
                kept = self.kept.get(planned.cell_id)
                self._tell(kept) if kept is not None else self._write(planned, {"status": "skipped", "reason": planned.skipped})

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
        for planned in self.users.get(stage.key, []):
            if planned.cell_id not in self.written and all(key in self.outcomes for key in planned.stages.values()):
                kept = self.kept.get(planned.cell_id)
                if kept is not None and all(self.outcomes[key].cached for key in planned.stages.values()):
                    self._tell(kept)
                else:
                    self._write(planned, self._measured(planned))

    def counts(self) -> dict[str, int]:
        """Cells by status, of those that have their row."""
        return dict(Counter(row["status"] for row in self.written.values()))

    def _write(self, planned: CellPlan, measured: dict[str, Any]) -> None:
        facts = {k: v for k, v in self.facts.items() if measured["status"] != "skipped" or k in ("diffbench", "started_at")}
        row = {**self._described(planned), **measured, **facts}
        path = self.folder / RECORDS / f"{planned.cell_id}.json"
        before = _record(path)
        # A row found again as it was keeps what it says of the run that measured it.
        if {k: v for k, v in before.items() if k not in facts} == {k: v for k, v in row.items() if k not in facts}:
            row = before
        else:
            if not self.told >= row.keys():               # while a run runs, a reader of its rows knows what they mean
                self.told |= row.keys()
                _write_meaning(self.folder, describe(self.plan, self.store, self.outcomes))
            write_atomically(path, json.dumps(row, indent=1, allow_nan=False).encode())
        self.are_changed = True
        self._tell(row)

    def _tell(self, row: dict[str, Any]) -> None:
        self.written[row["cell_id"]] = row
        for told in self.listeners:
            told(row)

    def _described(self, planned: CellPlan) -> dict[str, Any]:
        cell, registry = planned.cell, self.plan.registry
        row: dict[str, Any] = {"cell_id": planned.cell_id}
        row |= {kind: registry.ref_of(c).full_name for kind, c in cell.components().items()}
        row |= {"steps": cell.scheduler.steps, "guidance_scale": cell.conditioning.guidance_scale, "seed": cell.seed, "noise_seed": cell.noise_seed,
                "train_steps": cell.train.steps}
        row |= {name: option_value(cell, name, self.plan) for name in self.varying}
        row["origins"] = ", ".join(sorted({registry.ref_of(c).origin for c in cell.components().values()}))
        return row

    def _measured(self, planned: CellPlan) -> dict[str, Any]:
        outcomes = {role: self.outcomes[key] for role, key in planned.stages.items()}
        bad = [o for o in outcomes.values() if o.status != "ok"]
        root = next((o for o in bad if o.status != "blocked"), bad[0] if bad else None)
        status = "ok" if root is None else "failed" if root.status == "blocked" else root.status
        row: dict[str, Any] = {"status": status, "reason": root.reason if root else "",
                               "dataset_remark": self.plan.remarks.get(self.plan.names.label(planned.cell.dataset), "")}
        for role, key in planned.stages.items():
            if outcomes[role].status == "ok":
                left_out = row.get(LEFT_OUT, {})
                row |= self._of_stage(role, key)
                row[LEFT_OUT] = left_out | row.get(LEFT_OUT, {})
        if root is None:
            row |= {"reason": "; ".join(remarks(row)), **costs.judged(row)}
        return row

    def _of_stage(self, role: str, key: str) -> dict[str, Any]:
        """The columns one finished stage gives."""
        stage = self.plan.stages[key]
        if role.startswith("evaluate:"):
            column, said = role.partition(":")[2], self._said("evaluate", key, "values.json")
            measured = columns_of(column, said["values"]) | {LEFT_OUT: columns_of(column, said["left_out"])}
            if "reference" not in stage.parents:          # of the denoiser: no images were compared with others
                return measured
            reference = self._said("reference", stage.parents["reference"], "facts.json")
            extractor = self.plan.stages[self.plan.stages[stage.parents["reference"]].parents["extractor"]]
            return measured | {
                "reference_count": reference["reference_count"], "extractor": self.plan.registry.ref_of(self.plan.matrix.extractor).full_name,
                "extractor_key": extractor.key[:12],
                "extractor_weights": self._said("extractor", extractor.key, "facts.json").get("sha256", "")[:12]}
        if role == "features":
            seen, judge = self._said(stage.name, key, "facts.json"), stage.parents.get("classifier")
            return ({"judge_key": judge[:12]} if judge else {}) | {"feature_count": seen["feature_count"], "extractor_remark": seen["remark"]}
        facts = self._said(stage.name, key, "facts.json")
        if role == "train":
            return {"train_loss": facts["train_loss"], "train_key": key[:12], "train_compiled": facts["compiled"]}
        if role == "sample":
            return {name: facts[name] for name in ("nfe", "sample_count", "clamped_share", "distinct_count", "flat_count", "dtype", "threads")} | {
                "sample_compiled": facts["compiled"], "sample_batch_size": facts["batch_size"], "sample_batch_size_asked": facts["batch_size_asked"]}
        return costs.columns(role, facts)

    def _said(self, *what: str) -> Any:
        if what not in self.read:
            self.read[what] = self.store.read_json(*what)
        return self.read[what]


def remarks(row: dict[str, Any]) -> list[str]:
    """What a reader should know of a row that is ok."""
    said = []
    if row["sample_batch_size"] < row["sample_batch_size_asked"]:
        said.append(f"sampled in batches of {row['sample_batch_size']} instead of {row['sample_batch_size_asked']} after running out of memory")
    if row.get("feature_count") and row["sample_count"] <= row["feature_count"]:
        said.append(f"{row['sample_count']} samples for {row['feature_count']} features: the distance rests on a covariance that is rank-deficient")
    if row.get("extractor_remark"):
        said.append(row["extractor_remark"])
    if row["clamped_share"] > NOTABLE:
        said.append(f"{row['clamped_share']:.0%} of all pixels lay outside of the range of images and were clamped")
    repeats, flat, count = row["sample_count"] - row["distinct_count"], row["flat_count"], row["sample_count"]
    if repeats > NOTABLE * count:
        said.append(f"{repeats} of {count} samples repeat another one to the last pixel")
    if flat > NOTABLE * count:
        said.append(f"{flat} of {count} samples are one flat colour")
    if row.get("dataset_remark"):
        said.append(f"data: {row['dataset_remark']}")
    return said


def _record(path: Path) -> dict[str, Any]:
    """The record of a cell as an earlier run left it; empty where there is none that can be read."""
    try:
        row = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def load(path: str | Path) -> pandas.DataFrame:
    """The results of a run as a frame, one row per cell: from its folder, or from its results.parquet or results.csv.

    CSV is read with the name `none` kept as a name. Raises DiffbenchError where there are no results.
    """
    import pandas

    path = Path(path)
    if path.suffix == ".csv":
        return pandas.read_csv(path, keep_default_na=False, na_values=[""])
    if path.suffix == ".parquet":
        return pandas.read_parquet(path)
    if (path / RECORDS).is_dir():
        return frame(list(records(path).values()), order=_order(path))
    if (path / "results.parquet").is_file():
        return pandas.read_parquet(path / "results.parquet")
    raise DiffbenchError(f"{path} holds no results: neither {RECORDS}/ nor results.parquet is there")


def records(folder: str | Path) -> dict[str, dict[str, Any]]:
    """The records of a run by cell id, with what is no column of the frame: `left_out`, {column: its 20 values without one block of samples}."""
    return {path.stem: _read_record(path) for path in sorted((Path(folder) / RECORDS).glob("*.json"))}


def _read_record(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise DiffbenchError(f"{path} is no record of a cell: {error}. Running the matrix again writes it anew") from None


def frame(rows: list[dict[str, Any]], order: list[str] | None = None) -> pandas.DataFrame:
    """Rows as a frame with the columns in their order; `order` is the order of cell ids."""
    import pandas

    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in (LEFT_OUT, *costs.RAW)]
    metrics = [n for n in names if n not in (*LEADING, *MEASURED, *PROVENANCE) and "." not in n]
    options = [n for n in names if "." in n]
    columns = [*LEADING, *options, *MEASURED, *metrics, *PROVENANCE]
    table = pandas.DataFrame(rows, columns=columns)
    for name in columns:                                  # a column nothing was measured for is empty, not of unknown type
        if name in (*MEASURED, *metrics) or name in ("guidance_scale", "clamped_share"):
            table[name] = table[name].astype("float64")
        if name in COUNTS:
            table[name] = table[name].astype("Int64")
        if name in costs.FLAGS:
            table[name] = table[name].astype("boolean")
        if name in options and table[name].map(lambda v: isinstance(v, list)).any():
            table[name] = table[name].map(lambda v: "-".join(map(str, v)) if isinstance(v, list) else v)
    if order:
        place = {cell_id: i for i, cell_id in enumerate(order)}
        table = table.sort_values("cell_id", key=lambda ids: ids.map(place)).reset_index(drop=True)
    return table


def write_tables(folder: Path, meaning: Columns) -> pandas.DataFrame:
    """results.parquet and results.csv, rebuilt from the records of a run, and columns.json, which says what their columns mean."""
    table = load(folder)
    _write_meaning(folder, meaning)
    parquet = io.BytesIO()
    table.to_parquet(parquet, index=False, write_page_checksum=True)
    write_atomically(folder / "results.parquet", parquet.getvalue())
    write_atomically(folder / "results.csv", csv_of(table))
    return table


def _write_meaning(folder: Path, meaning: Columns) -> None:
    write_atomically(folder / MEANING, json.dumps(meaning, indent=1).encode())


def csv_of(table: pandas.DataFrame) -> bytes:
    """results.csv: a spreadsheet would run a cell that begins like a formula, and reasons are the only free text."""
    safe = table.copy()
    safe["reason"] = safe["reason"].map(lambda r: f"'{r}" if isinstance(r, str) and r[:1] in "=+-@" and r else r)
    return safe.to_csv(index=False).encode()


def of_real_images(stages: dict[str, str], store: Store, engine: Engine) -> dict[str, dict[str, float]]:
    """The columns of each metric for a split of real images, by 'dataset:column'; stages: `floors` or `copies` of a plan."""
    return {name: columns_of(name.rpartition(":")[2], store.read_json("evaluate", key, "values.json")["values"]) for name, key in stages.items()
            if engine.outcomes.get(key, Outcome(status="blocked")).status == "ok"}


def _order(folder: Path) -> list[str] | None:
    plan = folder / "plan.json"
    return [cell["cell_id"] for cell in json.loads(plan.read_bytes())["cells"]] if plan.is_file() else None
