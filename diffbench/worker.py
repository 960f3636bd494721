"""A worker: `python -m diffbench.worker STORE ATTEMPT` does one stage and publishes it.

It reads its task from the attempt's folder and answers through the store alone: the artefact's manifest means done, an
`error.json` beside the task says why not. An exit code never means success.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from diffbench.errors import DiffbenchError, Diverged
from diffbench.store import Store, write_atomically

PROGRESS_SECONDS = 0.5


def run(store_root: str, attempt: str) -> int:
    """Does the stage of an attempt; 0 where its artefact is published, 1 where error.json says why not."""
    folder = Path(attempt)
    try:
        content = json.loads((folder / "task.json").read_bytes())
        write_atomically(folder / "started.json", json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
        store = Store(store_root)
        start = time.perf_counter()
        files = _do(content, store, _Progress(folder / "progress.json"))
        outcome = {"seconds": time.perf_counter() - start, "host": socket.gethostname(), "attempt": folder.name,
                   **{name: content["execution"][name] for name in ("device", "threads")}}
        task = {name: content[name] for name in ("stage", "key", "identity", "task", "parents")}
        store.publish(content["stage"], content["key"], task, files | {"outcome.json": json.dumps(outcome).encode()})
        store.forget_partial(content["stage"], content["key"])
    except Exception as error:  # noqa: BLE001  whatever a stage raises becomes its reason
        traceback.print_exc()
        write_atomically(folder / "error.json", json.dumps(_failure(error)).encode())
        return 1
    return 0


def _do(content: dict[str, Any], store: Store, progress: _Progress) -> dict[str, bytes]:
    import torch

    from diffbench import stage_wrappers, stages
    from diffbench.registry import load_registry

    execution = content["execution"]
    torch.set_num_threads(execution["threads"])
    device = torch.device("cuda:0" if execution["device"] == "cuda" else execution["device"])       # the launcher shows a worker its GPUs only
    if device.type == "cuda" and execution["memory_share"] < 1:
        torch.cuda.set_per_process_memory_fraction(execution["memory_share"], device)
    registry = load_registry(execution["plugins"])
    context = stages.Context(store=store, registry=registry, device=device, threads=execution["threads"], task=content["task"],
                             parents=content["parents"], progress=progress, partial=store.partial(content["stage"], content["key"]),
                             execution=execution)
    return stage_wrappers.run_wrapped(registry, content["stage"], context, stages.STAGES[content["stage"]])


def _failure(error: Exception) -> dict[str, str]:
    """Status, kind and one line for the row."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, Diverged):
        return {"status": "diverged", "kind": "diverged", "reason": text}
    if isinstance(error, DiffbenchError):
        return {"status": "failed", "kind": "request", "reason": text}
    if "out of memory" in text.lower() or "DefaultCPUAllocator" in text or isinstance(error, MemoryError):
        return {"status": "failed", "kind": "memory", "reason": f"out of memory: {text[:300]}"}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {"status": "failed", "kind": "code", "reason": f"{type(error).__name__}: {text[:300]} ({Path(last.filename).name}:{last.lineno})"}


class _Progress:
    """Writes how far a stage is, at most twice a second and at its end: units done, of how many, and figures such as loss or images_per_second."""

    def __init__(self, path: Path):
        self.path, self.last = path, 0.0

    def __call__(self, done: int, of: int, **figures: float) -> None:
        now = time.monotonic()
        if now - self.last >= PROGRESS_SECONDS or done == of:
            self.last = now
            staging = self.path.with_suffix(".new")
            staging.write_text(json.dumps({"done": done, "of": of, "figures": figures}))
            staging.replace(self.path)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2]))
