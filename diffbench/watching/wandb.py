"""Weights & Biases: a run for each row with all that is known of it, one for each training, one for the report.

Local files lie in <run folder>/wandb, also those of offline mode, which `wandb sync` sends later. What was logged is
noted there, so that the same row is not logged twice.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import wandb

from diffbench import hookimpl
from diffbench.watching.tracked_run import TrackedRow, TrackedRun

if TYPE_CHECKING:
    from diffbench.planning.plan import Plan
    from diffbench.planning.stage import Stage

FOLDER = "wandb"
LOGGED = "logged.jsonl"               # a line for each run that was logged whole: its id, the digest of what it holds
PROJECT = "diffbench"
LOCAL = ("offline", "dryrun", "disabled")                 # modes in which nothing is sent
LONGEST_NAME, LONGEST_TAG = 128, 64   # letters
SECONDS = 25.0                        # for W&B to answer: less than a tracker has, so that it says what failed


class WandbTracker:
    """Follows one run after the other."""

    def __init__(self) -> None:
        self.trainings: dict[str, Any] = {}               # W&B's run by the key of a stage that trains
        self.without_picture: dict[str, tuple[Any, TrackedRow]] = {}     # W&B's run by cell

    def why_not(self) -> str | None:
        """That nobody is logged in, where W&B is to send what is logged. Nothing is sent to find out."""
        settings = wandb.setup().settings
        if settings.mode in LOCAL or settings.api_key or settings.identity_token_file:
            return None
        if requests.utils.get_netrc_auth(settings.base_url):
            return None
        return f"nobody is logged in to {settings.base_url}: run `wandb login`, or set WANDB_MODE=offline"

    @hookimpl
    def diffbench_run_started(self, plan: Plan, folder: Path) -> None:
        """Reads what earlier runs into this folder have logged."""
        self.trainings, self.without_picture = {}, {}
        self.run = TrackedRun(plan, folder)
        settings = wandb.setup().settings
        self.destination = f"{settings.mode} {settings.base_url} {settings.entity} {settings.project}"
        (self.run.folder / FOLDER).mkdir(exist_ok=True)
        self.logged = dict(_lines(self.run.folder / FOLDER / LOGGED))

    @hookimpl
    def diffbench_stage_progress(self, stage: Stage, done: int, figures: dict[str, float]) -> None:
        """One point of the curves of a training."""
        point = self.run.add_progress(stage, done, figures)
        if not point:
            return
        if stage.key not in self.trainings:
            parameters = self.run.parameters_of_stage(stage.key)
            identity = self.run.identity(stage.key)
            self.trainings[stage.key] = self._open("training", identity, stage.label, parameters, [])
        self.trainings[stage.key].log(point, step=done)

    @hookimpl
    def diffbench_stage_finished(self, stage: Stage, status: str, reason: str) -> None:
        """The curves are whole."""
        if stage.key in self.trainings:
            run = self.trainings.pop(stage.key)
            run.summary.update({"status": status, "reason": reason})
            run.finish(exit_code=0 if status == "ok" else 1)

    @hookimpl
    def diffbench_row_added(self, row: dict[str, Any]) -> None:
        """A row, unless it is logged already as it is."""
        tracked = self.run.row(row)
        if self._is_logged(tracked.identity, tracked.digest):
            return
        kinds = ("dataset", "backbone", "scheduler")
        run = self._open("row", tracked.identity, tracked.name, tracked.parameters,
                         [tracked.status, *(tracked.parameters[kind] for kind in kinds)], tracked.reason)
        for step, point in self.run.curve(tracked.cell_id).items():
            run.log(point, step=step)
        run.summary.update({"cell_id": tracked.cell_id, "status": tracked.status, "reason": tracked.reason,
                            **tracked.numbers, **tracked.texts})
        if tracked.status == "ok" and self.run.picture(tracked.cell_id) is None:
            self.without_picture[tracked.cell_id] = run, tracked
        else:
            self._finish_row(run, tracked)

    @hookimpl
    def diffbench_run_finished(self) -> None:
        """The rows whose sample grids were drawn since, and the report."""
        while self.without_picture:
            self._finish_row(*self.without_picture.popitem()[1])
        while self.trainings:                             # the run was interrupted
            self.trainings.popitem()[1].finish(exit_code=1)
        identity, digest = self.run.identity("report"), self.run.report_digest()
        if not self._is_logged(identity, digest):
            config = {"matrix_file": self.run.matrix, "environment": self.run.environment}
            run = self._open("report", identity, f"report of {self.run.name}", config, [])
            report = wandb.Artifact(f"report-{identity}", type="report")
            for path in self.run.report_files():
                report.add_file(str(path))
            run.log_artifact(report)
            run.finish()
            self._note(identity, digest)

    def _open(self, type_: str, identity: str, name: str, parameters: dict[str, Any], tags: list[str],
              reason: str = "") -> Any:
        """W&B's run of this identity, made or gone on with."""
        facts = {"matrix": self.run.name, "run_folder": str(self.run.folder), "git_commit": self.run.commit,
                 "report": str(self.run.folder / "report.html")}
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=SECONDS, finish_timeout=SECONDS, finish_timeout_raises=True,
            disable_git=True, disable_code=True, disable_job_creation=True,
            x_disable_stats=True, x_disable_meta=True, x_save_requirements=False)
        return wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), group=self.run.name, job_type=type_, id=identity,
            resume="allow", reinit="create_new", name=name[:LONGEST_NAME], notes=reason, config=parameters | facts,
            tags=list(dict.fromkeys(tag[:LONGEST_TAG] for tag in tags)), dir=self.run.folder, settings=settings)

    def _finish_row(self, run: Any, tracked: TrackedRow) -> None:
        path = self.run.picture(tracked.cell_id) if tracked.status == "ok" else None
        if path is not None:
            run.log({"samples": wandb.Image(str(path), caption=tracked.name)})
        run.finish(exit_code=0 if tracked.is_well else 1)
        self._note(tracked.identity, tracked.digest)

    def _is_logged(self, identity: str, digest: str) -> bool:
        """Whether what W&B has under this id holds this, where it is sent now."""
        return self.logged.get(identity) == self._digest(digest)

    def _digest(self, digest: str) -> str:
        return hashlib.sha256(f"{digest} {self.destination}".encode()).hexdigest()

    def _note(self, identity: str, digest: str) -> None:
        self.logged[identity] = self._digest(digest)
        with open(self.run.folder / FOLDER / LOGGED, "a", encoding="utf-8") as file:
            file.write(json.dumps([identity, self.logged[identity]]) + "\n")


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines that are whole."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    return [tuple(json.loads(line)) for line in lines if line.endswith("\n")]


tracker = WandbTracker()
