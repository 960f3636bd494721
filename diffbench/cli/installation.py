"""Examination of the installation, from Python to the store. Used by `diffbench doctor`."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.machine.lock_folder import CannotLock, lock_folder
from diffbench.registry.registry import Registry
from diffbench.store.artefacts import Store
from diffbench.wording import in_bytes


@dataclass
class Finding:
    """One line of a diagnosis."""

    about: str                        # "Python", "data set mnist", ...
    text: str
    is_problem: bool = False


def examine(registry: Registry, store: Store) -> list[Finding]:
    """The installation, from Python to the store; every component is imported."""
    findings = [Finding("Python", f"{platform.python_version()} at {sys.executable}"), *_devices(),
             *_components(registry), *_datasets(registry),
             *_launchers(), *_store(store), _locks()]
    return findings + [Finding(f"plug-in {problem.distribution}", problem.message, True)
                       for problem in registry.problems]


def _devices() -> list[Finding]:
    import torch

    from diffbench.machine.fingerprint import cores

    memory = [f"{torch.cuda.get_device_name(i)}, {in_bytes(torch.cuda.get_device_properties(i).total_memory)}"
              for i in range(torch.cuda.device_count())]
    gpus = "; ".join(memory) if torch.cuda.is_available() else "none that torch can use"
    return [Finding("torch", f"{torch.__version__}, built for "
                             f"{'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}"),
            Finding("CPU cores", str(cores())), Finding("GPUs", gpus)]


def _components(registry: Registry) -> list[Finding]:
    findings = []
    for kind in registry.kinds:
        refs, broken = registry.refs(kind), 0
        for ref in refs:
            try:
                registry.load(ref)
            except DiffbenchError as error:
                broken += 1
                findings.append(Finding(f"{kind} {ref.full_name}", str(error), True))
        findings.append(Finding(kind, f"{len(refs) - broken} of {len(refs)} can be used"))
    return findings


def _datasets(registry: Registry) -> list[Finding]:
    findings = []
    for ref in registry.refs("dataset"):
        if "required" in dict(ref.summary().options).values():
            continue                                      # where its images lie is said in the matrix
        try:
            registry.create("dataset", ref.full_name).fingerprint()
            findings.append(Finding(f"data set {ref.full_name}", "is there and whole"))
        except (DiffbenchError, OSError) as error:
            findings.append(Finding(f"data set {ref.full_name}", f"not there: {error}"))
    return findings


def _launchers() -> list[Finding]:
    findings = [Finding("launcher local", "available")]
    for name, package, program in (("ray", "ray", None), ("slurm", "submitit", "sbatch")):
        missing = [f"pip install 'diffbench[{name}]'"] if importlib.util.find_spec(package) is None else []
        missing += [f"{program} is not on the PATH"] if program and shutil.which(program) is None else []
        findings.append(Finding(f"launcher {name}", "not available: " + "; ".join(missing) if missing else "available"))
    return findings


def _store(store: Store) -> list[Finding]:
    root = store.root.resolve()
    existing = next(p for p in (root, *root.parents) if p.is_dir())
    free = f"{in_bytes(shutil.disk_usage(existing).free)} free"
    if not root.is_dir():
        return [Finding("store", f"{root} is made by the first run; {free}")]
    try:
        store.prepare()
    except DiffbenchError as error:
        return [Finding("store", str(error), True)]
    return [Finding("store", f"{Path(root)}, can be written, {free}")]


def _locks() -> Finding:
    try:
        return Finding("locks of devices", f"{lock_folder()}, can be written and locked")
    except CannotLock as error:
        return Finding("locks of devices", str(error), True)
