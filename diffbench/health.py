"""What `diffbench doctor` looks at: the installation, and every artefact of a store."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from diffbench.durable import in_bytes
from diffbench.errors import DiffbenchError
from diffbench.inventory import Item, holders, take_inventory
from diffbench.registry import Registry
from diffbench.store import Store


@dataclass
class Finding:
    """One line of a diagnosis."""

    about: str                        # "Python", "data set mnist", ...
    text: str
    is_problem: bool = False


@dataclass
class Audit:
    """The state of a store."""

    artefacts: Counter[str] = field(default_factory=Counter)              # by stage
    sizes: Counter[str] = field(default_factory=Counter)                  # bytes by stage
    damaged: list[Item] = field(default_factory=list)                     # set aside by this audit
    staging: list[Item] = field(default_factory=list)                     # being written, or left by a kill
    partials: list[Item] = field(default_factory=list)                    # of stages that are done
    attempts: list[Item] = field(default_factory=list)                    # of stages that are not
    void_claims: list[str] = field(default_factory=list)                  # keys claimed by processes that are no more
    set_aside: int = 0                                                    # damaged artefacts that still lie there
    strange: list[str] = field(default_factory=list)


def audit(store: Store) -> Audit:
    """Verifies every artefact against its manifest; damaged ones are set aside, so that the next run builds them again."""
    found, result = take_inventory(store), Audit()
    artefacts = found.of("artefact")
    state = store.find((item.stage, item.key) for item in artefacts)
    for item in artefacts:
        if item.key in state.done:
            result.artefacts[item.stage] += 1
            result.sizes[item.stage] += item.measure()[0]
        elif item.key in state.damaged:
            result.damaged.append(item)
    result.staging = found.of("staging")
    result.partials = [item for item in found.of("partial") if item.key in state.done]
    result.attempts = [item for item in found.of("attempts") if item.key not in state.done]
    result.void_claims = [key for key, holder in holders(store).items() if holder is None]
    result.set_aside = len(found.of("damaged"))
    result.strange = found.strange
    return result


def examine(registry: Registry, store: Store) -> list[Finding]:
    """The installation, from Python to the store; every component is imported."""
    found = [Finding("Python", f"{platform.python_version()} at {sys.executable}"), *_devices(), *_components(registry), *_datasets(registry),
             *_launchers(), *_store(store)]
    return found + [Finding(f"plug-in {problem.distribution}", problem.message, True) for problem in registry.problems]


def _devices() -> list[Finding]:
    import torch

    from diffbench.machine import cores

    memory = [f"{torch.cuda.get_device_name(i)}, {in_bytes(torch.cuda.get_device_properties(i).total_memory)}" for i in range(torch.cuda.device_count())]
    gpus = "; ".join(memory) if torch.cuda.is_available() else "none that torch can use"
    return [Finding("torch", f"{torch.__version__}, built for {'CUDA ' + torch.version.cuda if torch.version.cuda else 'CPU'}"),
            Finding("CPU cores", str(cores())), Finding("GPUs", gpus)]


def _components(registry: Registry) -> list[Finding]:
    found = []
    for kind in registry.kinds:
        refs, broken = registry.refs(kind), 0
        for ref in refs:
            try:
                registry.load(ref)
            except DiffbenchError as error:
                broken += 1
                found.append(Finding(f"{kind} {ref.full_name}", str(error), True))
        found.append(Finding(kind, f"{len(refs) - broken} of {len(refs)} can be used"))
    return found


def _datasets(registry: Registry) -> list[Finding]:
    found = []
    for ref in registry.refs("dataset"):
        if "required" in dict(ref.summary().options).values():
            continue                                      # where its images lie is said in the matrix
        try:
            registry.create("dataset", ref.full_name).fingerprint()
            found.append(Finding(f"data set {ref.full_name}", "is there and whole"))
        except (DiffbenchError, OSError) as error:
            found.append(Finding(f"data set {ref.full_name}", f"not there: {error}"))
    return found


def _launchers() -> list[Finding]:
    found = [Finding("launcher local", "available")]
    for name, package, program in (("ray", "ray", None), ("slurm", "submitit", "sbatch")):
        missing = [f"pip install 'diffbench[{name}]'"] if importlib.util.find_spec(package) is None else []
        missing += [f"{program} is not on the PATH"] if program and shutil.which(program) is None else []
        found.append(Finding(f"launcher {name}", "not available: " + "; ".join(missing) if missing else "available"))
    return found


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
