"""Where the notebooks lie, and their modules, which need pandas and matplotlib alone and know nothing of us."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

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
