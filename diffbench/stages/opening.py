"""The context of a stage, opened from the task of its attempt. Used by workers and by the ranks of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffbench.machine import device_lock
from diffbench.process import import_path
from diffbench.registry import loading
from diffbench.store.artefacts import Store

if TYPE_CHECKING:
    from pathlib import Path

    from diffbench.contracts.values import Progress
    from diffbench.stages.context import Context


def context(content: dict[str, Any], store: Store, progress: Progress, files: Path, gpu: int = 0,
            hold: device_lock.Hold | None = None) -> Context:
    """Context that a stage may rely on in this process, which is set up as its execution says.

    files: the folder for files that are given by path; gpu: which of those the launcher shows.
    """
    from diffbench.registry.ref import HOME
    from diffbench.registry.registry import load_registry
    from diffbench.stages.context import Context, set_up
    from diffbench.stages.stage_imports import StageImports

    execution = content["execution"]
    import_path.refuse_another(execution["installation"])
    device = set_up(execution, gpu)
    state = loading.taken()
    registry = load_registry(execution["plugins"], execution.get("hooks"))
    for ref in (refs := StageImports(registry).refs(content["task"])):
        # all that the stage is made of, before it is checked that nothing else has changed
        registry.load(ref)
    loading.check(state, {ref.origin for ref in refs if ref.distribution != HOME} | set(execution["plugins"])
                  | set(execution.get("hooks") or ()))
    return Context(store=store, registry=registry, device=device, threads=execution["threads"], stage=content["stage"],
                   key=content["key"], task=content["task"], parents=content["parents"], progress=progress, files=files,
                   partial=store.partial(content["stage"], content["key"]), execution=execution,
                   hold=hold or device_lock.Hold())
