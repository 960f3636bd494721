"""A worker: `python -m diffbench.worker STORE ATTEMPT DEVICE THREADS [PLUGIN...]` does one stage and publishes it.

It reads its task from the attempt's folder and answers through the store alone: the artefact's manifest means done, an
`error.json` beside the task says why not. An exit code never means success.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

from diffbench.errors import DiffbenchError, Diverged
from diffbench.store import Store, write_atomically

PROGRESS_SECONDS = 0.5


def run(store_root: str, attempt: str, device: str, threads: int, plugins: list[str]) -> int:
    """Does the stage of an attempt; 0 where its artefact is published, 1 where error.json says why not."""
    folder = Path(attempt)
    try:
        import torch

        from diffbench import stages
        from diffbench.registry import load_registry

        torch.set_num_threads(threads)
        content = json.loads((folder / "task.json").read_bytes())
        store = Store(store_root)
        start = time.perf_counter()
        context = stages.Context(store=store, registry=load_registry(plugins), device=torch.device(device), threads=threads, task=content["task"],
                                 parents=content["parents"], progress=_Progress(folder / "progress.json"))
        files = stages.STAGES[content["stage"]](context)
        outcome = {"seconds": time.perf_counter() - start, "device": device, "threads": threads, "attempt": folder.name}
        store.publish(content["stage"], content["key"], content, files | {"outcome.json": json.dumps(outcome).encode()})
    except Exception as error:  # noqa: BLE001  whatever a stage raises becomes its reason
        traceback.print_exc()
        status = "diverged" if isinstance(error, Diverged) else "failed"
        write_atomically(folder / "error.json", json.dumps({"status": status, "reason": _reason(error)}).encode())
        return 1
    return 0


def _reason(error: Exception) -> str:
    """One line for the row."""
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, DiffbenchError):
        return text
    if "out of memory" in text.lower() or "DefaultCPUAllocator" in text or isinstance(error, MemoryError):
        return f"out of memory: {text[:300]}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text[:300]} ({Path(last.filename).name}:{last.lineno})"


class _Progress:
    """Writes how far a stage is, at most twice a second."""

    def __init__(self, path: Path):
        self.path, self.last = path, 0.0

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if now - self.last >= PROGRESS_SECONDS:
            self.last = now
            staging = self.path.with_suffix(".new")
            staging.write_text(json.dumps({"done": done, "of": of}))
            staging.replace(self.path)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5:]))
