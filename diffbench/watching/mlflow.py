"""MLflow: a run for each row with all that is known of it, one for each training, one for the report.

Everything goes to the tracking server that MLflow is told of (MLFLOW_TRACKING_URI), else to files in
<run folder>/mlflow.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from diffbench import hookimpl
from diffbench.watching.tracked_run import Curve, TrackedRun

if TYPE_CHECKING:
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage

FOLDER = "mlflow"
# Tags of our own. Ours are found again by the first one.
FOLDER_IDENTITY, IDENTITY = "diffbench.run_folder", "diffbench.identity"
DIGEST, TYPE = "diffbench.digest", "diffbench.type"
BATCH, METRICS = 100, 1000            # parameters or tags, and metrics, of one request: MLflow takes no more
LONGEST = 5000                        # letters of a value


class MlflowTracker:
    """Follows one run after the other."""

    def __init__(self) -> None:
        self.trainings: dict[str, str] = {}               # MLflow's run by the key of a stage that trains
        self.without_picture: dict[str, str] = {}         # MLflow's run by cell

    def why_not(self) -> str | None:
        """Why MLflow cannot log: its own reason for not opening the store that MLFLOW_TRACKING_URI names."""
        if not mlflow.is_tracking_uri_set():
            return None
        try:
            MlflowClient()                                # opens files and databases; of a server nothing is asked
        except Exception as error:  # noqa: BLE001  of any kind, according to the store
            return f"MLflow cannot open its tracking store: {' '.join(str(error).split())}"
        return None

    @hookimpl
    def diffbench_run_started(self, plan: Plan, folder: Path) -> None:
        """Opens the experiment, and finds what earlier runs into this folder have logged there."""
        self.trainings, self.without_picture = {}, {}
        self.run = TrackedRun(plan, folder)
        self.client = MlflowClient() if mlflow.is_tracking_uri_set() else _files(self.run.folder / FOLDER)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or self.run.name
        experiment = self.client.get_experiment_by_name(name)
        self.experiment = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.logged = {run.data.tags[IDENTITY]: run for run in self._earlier()}

    @hookimpl
    def diffbench_stage_progress(self, stage: Stage, done: int, figures: dict[str, float]) -> None:
        """One point of the curves of a training."""
        point = self.run.add_progress(stage, done, figures)
        if not point:
            return
        if stage.key not in self.trainings:
            identity = self.run.identity(stage.key)
            earlier = self.logged.get(identity)           # an interrupted training goes on
            self.trainings[stage.key] = earlier.info.run_id if earlier else self._create(
                "training", identity, stage.label, self.run.parameters_of_stage(stage.key), {})
            self.client.update_run(self.trainings[stage.key], "RUNNING")
        self._log_curve(self.trainings[stage.key], {done: point})

    @hookimpl
    def diffbench_stage_finished(self, stage: Stage, status: str, reason: str) -> None:
        """The curves are whole."""
        if stage.key in self.trainings:
            run_id = self.trainings.pop(stage.key)
            self._log_tags(run_id, {"status": status, "reason": reason, "mlflow.note.content": reason})
            self.client.set_terminated(run_id, "FINISHED" if status == "ok" else "FAILED")

    @hookimpl
    def diffbench_row_added(self, row: dict[str, Any]) -> None:
        """A row, unless it is logged already as it is; one that has changed replaces what was logged of it."""
        tracked = self.run.row(row)
        if self._is_logged(tracked.identity, tracked.digest):
            return
        report = str(self.run.folder / "report.html")
        run_id = self._create("row", tracked.identity, tracked.name, tracked.parameters, tracked.texts | {
            "cell_id": tracked.cell_id, "status": tracked.status, "reason": tracked.reason,
            "mlflow.note.content": tracked.reason, "report": report})
        self._log_curve(run_id, self.run.curve(tracked.cell_id))
        self._log_metrics(run_id, [(name, value, 0) for name, value in tracked.numbers.items()])
        self._log_tags(run_id, {DIGEST: tracked.digest})
        if tracked.status == "ok" and not self._log_picture(run_id, tracked.cell_id):
            self.without_picture[tracked.cell_id] = run_id
        self.client.set_terminated(run_id, "FINISHED" if tracked.is_well else "FAILED")

    @hookimpl
    def diffbench_run_finished(self) -> None:
        """The sample grids that were drawn since, and the report."""
        for cell_id, run_id in self.without_picture.items():
            self._log_picture(run_id, cell_id)
        for run_id in self.trainings.values():            # the run was interrupted
            self.client.set_terminated(run_id, "KILLED")
        identity, digest = self.run.identity("report"), self.run.report_digest()
        if not self._is_logged(identity, digest):
            run_id = self._create("report", identity, "report", {}, {})
            for path in self.run.report_files():
                self.client.log_artifact(run_id, str(path))
            self._log_tags(run_id, {DIGEST: digest})
            self.client.set_terminated(run_id, "FINISHED")

    def _earlier(self) -> Iterable[Any]:
        """The runs of this folder of results."""
        token = None
        while True:
            condition = f"tags.`{FOLDER_IDENTITY}` = '{self.run.folder_identity}'"
            page = self.client.search_runs([self.experiment], condition, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _is_logged(self, identity: str, digest: str) -> bool:
        """Whether it is logged as it is. One that is logged otherwise is removed: another takes its place."""
        earlier = self.logged.get(identity)
        if earlier is None:
            return False
        if earlier.data.tags.get(DIGEST) == digest:
            return True
        self.client.delete_run(self.logged.pop(identity).info.run_id)
        return False

    def _create(self, type_: str, identity: str, name: str, parameters: Mapping[str, Any],
                tags: Mapping[str, str]) -> str:
        run_id = self.client.create_run(self.experiment, run_name=name, tags={
            FOLDER_IDENTITY: self.run.folder_identity, IDENTITY: identity, TYPE: type_,
            "mlflow.source.name": self.run.name, "mlflow.source.git.commit": self.run.commit or ""}).info.run_id
        self._log_tags(run_id, tags)
        items = [Param(name, str(value)[:LONGEST]) for name, value in parameters.items()]
        for start in range(0, len(items), BATCH):
            self.client.log_batch(run_id, params=items[start:start + BATCH])
        return run_id

    def _log_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        items = [RunTag(name, value[:LONGEST]) for name, value in tags.items() if value]
        for start in range(0, len(items), BATCH):
            self.client.log_batch(run_id, tags=items[start:start + BATCH])

    def _log_curve(self, run_id: str, curve: Curve) -> None:
        points = [(name, value, step) for step, point in curve.items() for name, value in point.items()]
        self._log_metrics(run_id, points)

    def _log_metrics(self, run_id: str, points: list[tuple[str, float, int]]) -> None:
        now = int(time.time() * 1000)
        items = [Metric(name, float(value), now, step) for name, value, step in points]
        for start in range(0, len(items), METRICS):
            self.client.log_batch(run_id, metrics=items[start:start + METRICS])

    def _log_picture(self, run_id: str, cell_id: str) -> bool:
        path = self.run.picture(cell_id)
        if path is not None:
            self.client.log_artifact(run_id, str(path), "samples")
        return path is not None


def _files(folder: Path) -> MlflowClient:
    """A client that keeps everything in files below a folder."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")             # newer versions ask for this
    return MlflowClient(folder.as_uri())


tracker = MlflowTracker()
