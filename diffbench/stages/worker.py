"""A worker: `python -m diffbench.stages.worker STORE ATTEMPT` does one stage and publishes it.

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

from diffbench.errors import DiffbenchError
from diffbench.machine import device_lock
from diffbench.machine.fingerprint import machine_digest
from diffbench.planning import history
from diffbench.process import worker_settings
from diffbench.process.standard_streams import open_missing
from diffbench.registry import loading
from diffbench.stages.failure import Superseded, failure
from diffbench.stages.opening import context
from diffbench.store import contents, disk
from diffbench.store.artefacts import Store, write_atomically
from diffbench.store.claims import join

if TYPE_CHECKING:
    from diffbench.contracts.values import Progress
    from diffbench.stages.context import Context, Files

PROGRESS_SECONDS = 0.5


def run(store_root: str, attempt: str) -> int:
    """Does the stage of an attempt; 0 where its artefact is published, 1 where error.json says why not."""
    folder = Path(attempt)
    try:
        content = json.loads((folder / "task.json").read_bytes())
        execution, store = content["execution"], Store(store_root)
        if not join(store.claim(content["key"]), execution["claim"]):
            raise Superseded("another run has taken this stage over")
        waiting = _Waiting(folder / "waiting.json", execution["device"])
        work = f"{content['stage']} of {execution['run']}"
        with device_lock.held(execution["device"], alone=execution["exclusive"], work=work, waiting=waiting) as hold:
            waiting.over()
            if hold.unlocked:
                print(hold.unlocked, file=sys.stderr)
            write_atomically(folder / "started.json", json.dumps(
                {"host": socket.gethostname(), "pid": os.getpid()}).encode())
            start = time.perf_counter()
            files = _do(content, store, _Progress(folder / "progress.json"), folder / "files", hold)
            seconds = time.perf_counter() - start
        machine = machine_digest("cuda:0" if execution["device"] == "cuda" else execution["device"])
        outcome = {"seconds": seconds, "host": socket.gethostname(), "attempt": folder.name, "machine": machine,
                   **worker_settings.facts(),
                   **{name: execution[name] for name in ("device", "threads", "is_deterministic")}}
        task = {name: content[name] for name in ("stage", "key", "identity", "task", "parents")}
        store.publish(content["stage"], content["key"], task, files | {"outcome.json": json.dumps(outcome).encode()})
        store.forget_partial(content["stage"], content["key"])
        # what was published stays, whether or not its time can be noted
        with contextlib.suppress(OSError):
            history.note(store.root, content, seconds, execution["threads"], machine)
    except Exception as error:  # noqa: BLE001  whatever a stage raises becomes its reason
        traceback.print_exc()
        write_atomically(folder / "error.json", json.dumps(failure(error)).encode())
        return 1
    finally:
        with contextlib.suppress(OSError):
            disk.disk.rmtree(folder / "files")            # what was published lies there no longer
    return 0


def _do(content: dict[str, Any], store: Store, progress: Progress, place: Path, hold: device_lock.Hold) -> Files:
    from diffbench.stages import wrappers

    made = context(content, store, progress, place, hold=hold)
    work, state = made.registry.stage_kinds.function(content["stage"]), loading.taken()

    def checked(context: Context) -> Files:
        loading.check(state, made.execution.get("hooks") or ())              # a wrapper has run up to its yield
        return work(context)
    files = wrappers.run_wrapped(made.registry, content["stage"], made, checked)
    refuse_unusable(content["stage"], files, place)       # what nobody could read is not published
    return files


def refuse_unusable(stage: str, files: Files, place: Path) -> None:
    """Raises DiffbenchError where the files that a stage has made are not those that it writes,
    or lie elsewhere than in its own folder.
    """
    try:
        for name, data in files.items():
            if isinstance(data, Path) and (data.is_symlink() or data.absolute() != place.absolute() / name):
                raise ValueError(f"{name} is given by the path {data}; a file that is given by its path must be "
                                 f"{place / name}")
        contents.check_files(stage, files)
    except ValueError as error:
        raise DiffbenchError(f"what the stage made cannot be used: {error}") from None


class _Waiting:
    """Writes for whom a worker waits before it may use its device, as the screen shows it:
    `waiting.json` in the folder of its attempt.
    """

    def __init__(self, path: Path, device: str):
        self.path, self.device, self.since, self.is_written = path, device, time.time(), False

    def __call__(self, holder: str) -> None:
        write_atomically(self.path, json.dumps({"for": holder, "device": self.device, "since": self.since}).encode())
        self.is_written = True

    def over(self) -> None:
        """It has the device."""
        if self.is_written:
            self.path.unlink()


class _Progress:
    """Writes how far a stage is, at most twice a second and at its end:
    units done, of how many, and figures such as loss or images_per_second.
    """

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
    open_missing()
    worker_settings.prepare()
    sys.exit(run(sys.argv[1], sys.argv[2]))
