"""The import path of our processes, and a check that two of them run the same diffbench.

Used by all that start processes.

`python -m` and `python -c` put the working folder first on the import path, where a `random.py` or a `diffbench/` of
the user's would stand in for the module that is meant. Python 3.11 has -P against it and 3.10 has nothing, so processes
are started by `command`, which takes the folder off. PYTHONPATH and the user's site-packages count as they do in the
driver. A driver that has its own diffbench from the working folder, a checkout, names that folder to its processes.
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from importlib import metadata, util
from importlib.machinery import PathFinder
from pathlib import Path

from diffbench.errors import DiffbenchError

# `-c` puts '' first unless PYTHONSAFEPATH is set; until that is off, nothing but sys, which is built in, may be
# imported.
_BOOTSTRAP = ("import sys; sys.path[:1] = {own!r} + [p for p in sys.path[:1] if p]; del sys.argv[0]; "
              "import runpy; runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)")


def command(module: str, *arguments: str) -> list[str]:
    """The command line of `python -m MODULE ARGUMENTS...` without the working folder on the import path."""
    return [sys.executable, "-c", _BOOTSTRAP.format(own=_own()), module, *arguments]


def _own() -> list[str]:
    """The folder of this diffbench, where it would not be found without the working folder; else nothing."""
    package, without = Path(__file__).parents[1], [entry for i, entry in enumerate(sys.path) if i
                                                   or entry not in ("", os.getcwd())]
    spec = PathFinder.find_spec(package.name, without)
    is_found = spec is not None and spec.origin is not None and Path(spec.origin).parent == package
    return [] if is_found else [str(package.parent)]


@functools.cache
def installation() -> dict[str, str]:
    """The diffbench of this process: version, folder, and SHA-256 of its sources at the first call."""
    points = metadata.distribution("diffbench").entry_points
    # the components that ship with it
    names = {"diffbench", *(point.module.partition(".")[0] for point in points)}
    hasher = hashlib.sha256()
    for name in sorted(names):
        spec = util.find_spec(name)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                place = f"{name}/{path.relative_to(folder).as_posix()}"
                hasher.update(place.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return {"version": metadata.version("diffbench"), "folder": str(Path(__file__).parents[1]),
            "sha256": hasher.hexdigest()}


def refuse_another(planned: dict[str, str]) -> None:
    """Raises DiffbenchError where this process runs another diffbench than the one that planned."""
    this = installation()
    if this["sha256"] == planned["sha256"]:
        return
    if this["folder"] == planned["folder"]:
        raise DiffbenchError(f"the files of diffbench in {this['folder']} were changed since the run began: start it "
                             "again")
    raise DiffbenchError(
        f"the worker has diffbench {this['version']} in {this['folder']}, and the run was planned by diffbench "
        f"{planned['version']} in {planned['folder']}: start it so that both import one of them")
