"""A worker: `python -m diffbench.worker STORE ATTEMPT` does one stage and publishes it.

It reads its task from the attempt's folder and answers through the store alone: the artefact's manifest means done, an
`error.json` beside the task says why not. An exit code never means success.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench import history
from diffbench.claims import join
from diffbench.errors import Damaged, DiffbenchError, DiskFull, Diverged, FailedElsewhere, is_out_of_memory
from diffbench.machine import machine_digest
from diffbench.store import Store, write_atomically
from diffbench.turns import turn

if TYPE_CHECKING:
    from diffbench.context import Context
    from diffbench.values import Progress

PROGRESS_SECONDS = 0.5


def run(store_root: str, attempt: str) -> int:
    """Does the stage of an attempt; 0 where its artefact is published, 1 where error.json says why not."""
    folder = Path(attempt)
    try:
        content = json.loads((folder / "task.json").read_bytes())
        execution, store = content["execution"], Store(store_root)
        if not join(store.claim(content["key"]), execution["claim"]):
            raise Superseded("another run has taken this stage over")
        with turn(execution["device"], alone=execution["exclusive"]):
            write_atomically(folder / "started.json", json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
            start = time.perf_counter()
            files = _do(content, store, _Progress(folder / "progress.json"))
            seconds = time.perf_counter() - start
        machine = machine_digest("cuda:0" if execution["device"] == "cuda" else execution["device"])
        outcome = {"seconds": seconds, "host": socket.gethostname(), "attempt": folder.name, "machine": machine,
                   **{name: execution[name] for name in ("device", "threads", "is_deterministic")}}
        task = {name: content[name] for name in ("stage", "key", "identity", "task", "parents")}
        store.publish(content["stage"], content["key"], task, files | {"outcome.json": json.dumps(outcome).encode()})
        store.forget_partial(content["stage"], content["key"])
        with contextlib.suppress(OSError):                # what was published stays, whether or not its time can be noted
            history.note(store.root, content, seconds, execution["threads"], machine)
    except Exception as error:  # noqa: BLE001  whatever a stage raises becomes its reason
        traceback.print_exc()
        write_atomically(folder / "error.json", json.dumps(failure(error)).encode())
        return 1
    return 0


class Superseded(DiffbenchError):
    """The claim under which a worker was started is no longer its driver's."""


def context(content: dict[str, Any], store: Store, progress: Progress, gpu: int = 0) -> Context:
    """What a stage may rely on in this process, which is set up as its execution says; gpu: which of those the launcher shows."""
    import torch

    from diffbench.context import Context
    from diffbench.registry import load_registry

    execution = content["execution"]
    torch.set_num_threads(execution["threads"])
    if execution["is_deterministic"]:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"                  # read when CUDA is first touched, which is later
        torch.use_deterministic_algorithms(True)                           # a kernel that cannot raises, and its name is the reason of the stage
        torch.backends.cudnn.benchmark = False
    device = torch.device("cuda", gpu) if execution["device"] == "cuda" else torch.device(execution["device"])
    if device.type == "cuda" and execution["memory_share"] < 1:
        torch.cuda.set_per_process_memory_fraction(execution["memory_share"], device)
    return Context(store=store, registry=load_registry(execution["plugins"]), device=device, threads=execution["threads"], stage=content["stage"],
                          key=content["key"], task=content["task"], parents=content["parents"], progress=progress,
                          partial=store.partial(content["stage"], content["key"]), execution=execution)


def _do(content: dict[str, Any], store: Store, progress: Progress) -> dict[str, bytes]:
    from diffbench import stage_wrappers, stages

    made = context(content, store, progress)
    return stage_wrappers.run_wrapped(made.registry, content["stage"], made, stages.STAGES[content["stage"]])


def failure(error: Exception) -> dict[str, str]:
    """Status, kind and one line for the row."""
    if isinstance(error, FailedElsewhere):
        return error.said
    text = " ".join(str(error).split()) or "no message"
    if isinstance(error, Damaged):
        return {"status": "failed", "kind": "damaged", "reason": text, "stage": error.stage, "artefact": error.key}
    if isinstance(error, DiskFull):
        return {"status": "failed", "kind": "disk", "reason": text}
    if isinstance(error, Superseded):
        return {"status": "failed", "kind": "superseded", "reason": text}
    if isinstance(error, Diverged):
        return {"status": "diverged", "kind": "diverged", "reason": text}
    if isinstance(error, DiffbenchError):
        return {"status": "failed", "kind": "request", "reason": text}
    if is_out_of_memory(error):
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
            with contextlib.suppress(OSError):            # for people: a full disk will be noticed where it matters
                staging.write_text(json.dumps({"done": done, "of": of, "figures": figures}))
                staging.replace(self.path)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1], sys.argv[2]))
