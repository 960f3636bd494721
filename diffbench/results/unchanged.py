"""List of what a run that ended left in its folder of results, by which the same command makes only the rest.

finished.json lists every file of the results with its SHA-256, and what they were made of.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterator
from pathlib import Path

from diffbench.machine.fingerprint import machine_digest
from diffbench.registry import code_identity, entry_points
from diffbench.results.columns import RECORDS, Record
from diffbench.results.records import read
from diffbench.store.artefacts import write_atomically

FILE = "finished.json"
INPUTS = ("matrix.json", "plan.json")         # written anew by every run, before anything else
PAGE = "report.html"                   # may be made anew by `diffbench report`: that it is there is enough
NOT_MADE = (*INPUTS, "environment.json", FILE, PAGE)
LOGS = ("events", "mlflow", "tensorboard", "wandb")       # of runs, not made from rows
ROWS = tuple(f"diffbench.{name}" for name in (
    "results.columns", "results.columns_of_plan", "results.folder", "results.frame", "results.nfe", "results.quantity",
    "results.records",
    "results.rows", "results.table_files", "stats.numbers_of_rows", "stats.over_seeds"))
ASIDE = ("exports", "notebooks")              # what people asked for, and may have changed


def made_of(folder: Path, device: str) -> str:
    """SHA-256 of what decides the files of a folder of results besides its artefacts, whose keys are in the plan."""
    whole = hashlib.sha256(f"{machine_digest(device)} {importlib.metadata.version('diffbench')} {_code()}".encode())
    for name in INPUTS:
        whole.update(hashlib.sha256((folder / name).read_bytes()).digest())
    return whole.hexdigest()


def note(folder: Path, made_of: str) -> None:
    """Lists the files that lie in the folder now."""
    content = {"made_of": made_of, "files": {name: _sha256(f"{folder}/{name}") for name in sorted(_files(folder))}}
    write_atomically(folder / FILE, json.dumps(content).encode())


def records(folder: Path, made_of: str) -> dict[str, Record]:
    """The rows by cell, where every file is as the run left it and would be made of the same; else none."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        content = json.loads((folder / FILE).read_bytes())
        is_whole = content["made_of"] == made_of and (folder / PAGE).is_file()
        if is_whole and all(_sha256(f"{folder}/{name}") == digest for name, digest in content["files"].items()):
            names = [name for name in content["files"] if name.startswith(f"{RECORDS}/")]
            return {Path(name).stem: read(Path(f"{folder}/{name}")) for name in names}
    return {}


def _files(folder: Path) -> Iterator[str]:
    for place, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in (*LOGS, *ASIDE)]
        yield from (name for name in (os.path.relpath(os.path.join(place, n), folder) for n in names
                                      if not n.startswith(".")) if name not in NOT_MADE)


def _sha256(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hashlib.sha256(file.readall()).hexdigest()


def _code() -> str:
    """The source of what makes rows and reports, where diffbench is installed for development."""
    if not entry_points.is_editable(importlib.metadata.distribution("diffbench")):
        return ""
    report = Path(__file__).parents[1] / "report"
    names = sorted(path.stem for path in report.glob("[a-z]*.py"))
    page = hashlib.sha256(b"".join(path.read_bytes() for path in sorted((report / "page").iterdir())
                                   if path.is_file())).hexdigest()
    return code_identity.whole(*ROWS, *(f"diffbench.report.{name}" for name in names)) + page
