"""Files written into a folder that the user names, such as that of a paper: only what diffbench wrote there is
replaced.

`.diffbench-files.json` in the folder lists what was written, by name its SHA-256. Used by `diffbench report`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.store.disk import make_folders, write_atomically

LISTING = ".diffbench-files.json"


@dataclass
class Written:
    """The files that were written, and what is not among them and why."""

    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def write(folder: Path, files: Mapping[str, bytes], *, is_ours: bool = False) -> list[Path]:
    """Writes files, each whole, and returns their paths.

    is_ours: what lies in the folder without a listing was written by an earlier version. Raises DiffbenchError, before
    anything is written, where a name is taken by what diffbench did not write, or was edited since.
    """
    listed = _listing(folder)
    for name in files if listed or not is_ours else ():
        path = folder / name
        if os.path.lexists(path) and (not path.is_file() or listed.get(name) != _sha256(path.read_bytes())):
            if not path.is_file() or path.read_bytes() != files[name]:
                raise DiffbenchError(f"{path} is there already and is not as diffbench wrote it: move it away, or name "
                                     "another folder with --out")
    make_folders(folder)
    for name, data in files.items():
        write_atomically(folder / name, data)
    listed |= {name: _sha256(data) for name, data in files.items()}
    write_atomically(folder / LISTING, json.dumps(listed, indent=1, sort_keys=True).encode())
    return [folder / name for name in files]


def _listing(folder: Path) -> dict[str, str]:
    try:
        content = json.loads((folder / LISTING).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
