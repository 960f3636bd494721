"""The processes of a training on several devices: `python -m diffbench.ranks` is one of them.

The worker of the stage starts them, listens, and returns what rank 0 made. It touches no device itself, so whatever becomes of a rank,
it lives to say so: the first failure ends all ranks and is the failure of the stage. A rank is told its task on standard input, which
stays open: when it closes, because the worker has ended in whatever way, the rank goes too. It answers in JSON lines on standard output.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from diffbench.errors import DiffbenchError, FailedElsewhere
from diffbench.parallel import PeerLost, Ranks
from diffbench.store import Store, write_flushed
from diffbench.values import Progress

if TYPE_CHECKING:
    from diffbench.context import Context, Files

EXCHANGE_SECONDS = 600                # how long ranks wait for one that sends nothing
PEER_SECONDS = 10                     # how long to wait for the reason where a rank only says that another is gone


def train(context: Context) -> Files:
    """The files of a train stage, made by as many ranks as its task names GPUs, or processes where it runs on a CPU.

    Raises FailedElsewhere with what the first rank that failed said, or how it ended.
    """
    count = context.gpus
    content = {"stage": "train", "key": context.key, "task": context.task, "parents": context.parents,
               "execution": context.execution | {"threads": max(1, context.threads // count)}}
    with tempfile.TemporaryDirectory(prefix=f"{context.key[:8]}-ranks-", dir=context.store.root / "staging") as folder:
        told = {"content": content, "store": str(context.store.root.resolve()), "folder": str(Path(folder).resolve()), "count": count}
        processes = [_start(told | {"rank": rank}) for rank in range(count)]
        try:
            _listen(processes, context.progress)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return {path.name: path.read_bytes() for path in Path(folder).glob("result/*")}


def _start(told: dict[str, Any]) -> subprocess.Popen:
    environment = {"RANK": str(told["rank"]), "WORLD_SIZE": str(told["count"]), "OMP_NUM_THREADS": str(told["content"]["execution"]["threads"])}
    # All ranks are on this machine, and nothing else need reach them.
    loopback = {} if sys.platform == "darwin" else {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen([sys.executable, "-m", "diffbench.ranks"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env=loopback | os.environ | environment)
    process.stdin.write(json.dumps(told).encode() + b"\n")
    process.stdin.flush()
    return process


def _listen(processes: list[subprocess.Popen], progress: Progress) -> None:
    """Passes progress on until every rank is done; raises at the first failure."""
    selector = selectors.DefaultSelector()
    for rank, process in enumerate(processes):
        selector.register(process.stdout, selectors.EVENT_READ, rank)
    pending, done = [b""] * len(processes), 0
    missed: tuple[int, dict[str, str]] | None = None      # what a rank said that only misses another
    deadline = math.inf
    while done < len(processes):
        ready = selector.select(None if missed is None else max(0.0, deadline - time.monotonic()))
        if missed is not None and not ready:
            _fail(missed[0], len(processes), missed[1] | {"kind": "code"})
        for key, _ in ready:
            rank, data = key.data, os.read(key.fd, 65536)
            *lines, pending[rank] = (pending[rank] + data).split(b"\n")
            for said in map(json.loads, lines):
                if "progress" in said:
                    progress(*said["progress"][:2], **said["progress"][2])
                elif "failed" not in said:
                    done += 1
                elif said["failed"]["kind"] != "peer":
                    _fail(rank, len(processes), said["failed"])
                elif missed is None:
                    missed, deadline = (rank, said["failed"]), time.monotonic() + PEER_SECONDS
            if not data:                                  # a rank that has said its last word stays until it is ended
                code = processes[rank].wait()
                how = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code} and no result"
                _fail(rank, len(processes), {"status": "failed", "kind": "code", "reason": how})


def _fail(rank: int, count: int, said: dict[str, str]) -> NoReturn:
    of_all = said["kind"] in ("diverged", "request")      # every rank would say the same
    raise FailedElsewhere(said if of_all else said | {"reason": f"rank {rank} of {count}: {said['reason']}"})


def main() -> None:
    """One rank, from its task on standard input to its last word on standard output."""
    told = json.loads(sys.stdin.buffer.readline())
    words = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)                                         # what components print goes to the log
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    from diffbench import worker

    try:
        _train(told, lambda done, of, **figures: words.write(json.dumps({"progress": [done, of, figures]}) + "\n"))
        said: dict[str, Any] = {"done": True}
    except PeerLost as error:
        said = {"failed": {"status": "failed", "kind": "peer", "reason": str(error)}}
    except Exception as error:  # noqa: BLE001  whatever a training raises is the reason of the stage
        traceback.print_exc()
        said = {"failed": worker.failure(error)}
    words.write(json.dumps(said) + "\n")
    words.flush()
    threading.Event().wait()                              # to be ended by the worker: to go now would look like a crash to the other ranks


def _train(told: dict[str, Any], progress: Progress) -> None:
    import torch
    import torch.distributed as dist

    from diffbench import stages, worker
    from diffbench.values import silent

    ranks = Ranks(rank=told["rank"], count=told["count"])
    if told["content"]["execution"]["device"] == "cuda" and torch.cuda.device_count() < ranks.count:
        raise DiffbenchError(f"train.gpus is {ranks.count}, and this worker was given {torch.cuda.device_count()}")
    context = worker.context(told["content"], Store(told["store"]), progress if ranks.rank == 0 else silent, gpu=ranks.rank)
    if context.device.type == "cuda":
        torch.cuda.set_device(context.device)
    dist.init_process_group("nccl" if context.device.type == "cuda" else "gloo", init_method=f"file://{told['folder']}/meeting", rank=ranks.rank,
                            world_size=ranks.count, timeout=timedelta(seconds=EXCHANGE_SECONDS))
    files = stages.train_share(context, ranks)
    if ranks.rank == 0:
        result = Path(told["folder"]) / "result"
        result.mkdir()
        for name, data in files.items():
            write_flushed(result / name, data)


def _end_with_the_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
