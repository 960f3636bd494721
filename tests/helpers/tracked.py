"""A run that is told to a tracker and not done, so that only the tracker takes time.

Four cells: two share a training, two are skipped.
"""

import json

import numpy
from PIL import Image, PngImagePlugin

import diffbench
from diffbench.registry import trackers
from diffbench.results import grid_files
from diffbench.results.environment import environment
from diffbench.running.outcome import Outcome
from diffbench.watching.event_log import EventLog
from diffbench.watching.observers import Observers, refuse_unready

MATRIX = {
    "diffbench": 1, "name": "followed", "dataset": "digits",
    "axes": {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "noise_schedule": ["linear", "rectified_flow"],
             "conditioning": {"cfg": {"inner": "film", "scale": [1.0, 2.0]}}, "scheduler": {"ddim": {"steps": 2}}},
    "train": {"steps": 200, "batch_size": 8}, "sample": {"count": 12}, "throughput": {"repeats": 3, "batch_size": 2}, "metrics": ["fid"]}
LOSSES = {50: 1.0, 100: 0.5, 150: 0.25, 200: 0.125}


def planned():
    """The plan, its cells that are not skipped, and the training that they share."""
    plan = diffbench.plan(MATRIX, device="cpu")
    cells = [cell for cell in plan.cells if cell.skipped is None]
    return plan, cells, plan.stages[cells[0].stages["train"]]


def prepare(folder, plan):
    """What lies in the folder of a run before anything is told."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"diffbench": "run", "id": "0" * 32}))
    (folder / "matrix.json").write_text(json.dumps(plan.matrix.document))
    (folder / "environment.json").write_text(json.dumps(environment("cpu")))
    (folder / "report.html").write_text("<p>a report</p>")
    (folder / "samples").mkdir()


def row(cell, status="ok", reason=""):
    """A row as the engine tells it, measured where it is ok."""
    described = {"cell_id": cell.cell_id, "status": status, "reason": reason, "dataset": "digits", "scheduler": "ddim", "steps": 2, "seed": 0,
                 "diffbench": "0.1.0"}
    measured = {"nfe": 2.0, "fd_dataset_classifier": 2.5, "energy_joules": None, "train_compiled": False, "device": "cpu",
                "left_out": {"fd_dataset_classifier": [1.0, 2.0]}}
    return described | (measured if status == "ok" else {})


def draw(folder, cell):
    """The grid of a cell's samples."""
    note = PngImagePlugin.PngInfo()
    note.add_text(grid_files.KEY, cell.stages["sample"])
    Image.fromarray(numpy.arange(64, dtype=numpy.uint8).reshape(8, 8)).save(folder / "samples" / f"{cell.cell_id}.png", pnginfo=note)


def follow(name, folder, steps=(), second_row=None):
    """Tells a tracker one run, with the steps of the training that are done in it. Returns the notes.

    second_row: gives the row of the second cell; without it the run is interrupted before there are rows. The first grid is there with
    its row, the second is drawn at the end.
    """
    plan, (first, second), training = planned()
    notes = []
    with trackers.loaded(plan.registry, [name]):
        refuse_unready(plan.registry)
        with EventLog(folder) as log, Observers(plan.registry, folder, notes.append) as observers:
            for watcher in (log, observers):
                watcher.run_started(plan)
            for cell in plan.cells:
                if cell.skipped is not None:
                    observers.row_added(row(cell, "skipped", cell.skipped))
            for step in steps:
                for watcher in (log, observers):
                    watcher.progress(training, step, 200, {"loss": LOSSES[step], "images_per_second": 1000.0})
            if second_row is not None:
                observers.finished(training, Outcome(status="ok", seconds=1.0, cached=not steps))
                draw(folder, first)
                observers.row_added(row(first))
                observers.row_added(second_row(second))
                draw(folder, second)
            observers.run_finished({})
            log.run_finished({})
    return notes


def diverged(cell):
    """Its row where its loss grew beyond all bounds."""
    return row(cell, "diverged", "the loss became nan")


def follow_all(name, folder):
    """Four runs of one line: one is interrupted in its training, one ends it, one has a better row, one finds all as it was. Returns the notes."""
    prepare(folder, planned()[0])
    return [note for steps, second_row in (((50, 100), None), ((150, 200), diverged), ((), row), ((), row))
            for note in follow(name, folder, steps, second_row)]
