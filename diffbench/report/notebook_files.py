"""Notebooks that read a run: where they lie, copies beside a run, and the modules they import.

Those need pandas and matplotlib alone. Used by `diffbench report` and exports.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

from diffbench.errors import DiffbenchError
from diffbench.report.reading import ReportedRun
from diffbench.report.written_files import Written
from diffbench.results.folder import load
from diffbench.store.disk import make_folders, write_atomically
from diffbench.wording import unknown_name

FOLDER = "notebooks"                  # inside of an installed package, and in the folder of a run


def folder() -> Path:
    """Inside an installed package, or in the repository it is installed from."""
    inside = Path(__file__).parent / FOLDER
    return inside if inside.is_dir() else Path(__file__).parents[2] / "reports"


def module(name: str) -> ModuleType:
    """A module of the notebooks. They import each other by bare names, as they do where a notebook lies."""
    sys.path.insert(0, str(folder()))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder()))


def names() -> list[str]:
    """Names of the notebooks."""
    return sorted(path.stem for path in folder().glob("*.ipynb"))


def copy(name: str, run: str | Path) -> Written:
    """Copies a notebook, its path filled in, and the modules it imports to the folder notebooks/ of a run.

    run: a folder of results, or a results file. For `samples`, also draws trajectories of a few cells where the store
    has their weights. What lies there already and is not the same is never written over: raises DiffbenchError.
    """
    if name not in names():
        raise DiffbenchError(unknown_name("notebook", name, names()))
    run, done = Path(run).resolve(), Written()
    load(run)                                     # refused here where there is nothing to read
    beside = (run if run.is_dir() else run.parent) / FOLDER
    content = json.loads((folder() / f"{name}.ipynb").read_bytes())
    cell = next(cell for cell in content["cells"] if "parameters" in cell["metadata"].get("tags", []))
    cell["source"] = [f"RESULTS = {str(run)!r}"]
    files = {path.name: path.read_bytes() for path in folder().glob("*.py")} | {
        f"{name}.ipynb": (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()}
    for file, data in files.items():
        if (beside / file).exists() and (beside / file).read_bytes() != data:
            raise DiffbenchError(f"{beside / file} is there already and is not the same, perhaps by your work: move it "
                                 "away to have it anew")
    make_folders(beside)
    for file, data in files.items():
        write_atomically(beside / file, data)
    done.files.append(beside / f"{name}.ipynb")
    if name == "samples" and run.is_dir():
        from diffbench.report import trajectories

        trajectories.write_best(ReportedRun(run), done)
    return done
