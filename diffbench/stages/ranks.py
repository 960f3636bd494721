"""The processes of a training on several devices: `python -m diffbench.stages.ranks` is one of them.

The worker of the stage starts them, listens, and returns what rank 0 made. It touches no device itself, so whatever
becomes of a rank, it lives to say so: the first failure ends all ranks and is the failure of the stage. A rank is told
its task on standard input, which stays open: when it closes, because the worker has ended in whatever way, the rank
goes too. It answers in JSON lines on standard output.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from diffbench.contracts.values import Progress
from diffbench.errors import FailedElsewhere
from diffbench.process import import_path
from diffbench.stages.rank import main

if TYPE_CHECKING:
    from diffbench.stages.context import Context, Files

PEER_SECONDS = 10                     # how long to wait for the reason where a rank only says that another is gone


def train(context: Context) -> Files:
    """The files of a train stage, made by as many ranks as its task names GPUs, or processes where it runs on a CPU.

    Raises FailedElsewhere with what the first rank that failed said, or how it ended.
    """
    count = context.gpus
    content = {"stage": "train", "key": context.key, "task": context.task, "parents": context.parents,
               "execution": context.execution | {"threads": max(1, context.threads // count)}}
    with tempfile.TemporaryDirectory(prefix=f"{context.key[:8]}-ranks-", dir=context.store.root / "staging") as folder:
        task = {"content": content, "store": str(context.store.root.resolve()), "folder": str(Path(folder).resolve()),
                "files": str(context.files.resolve()), "count": count}
        processes = [_start(task | {"rank": rank}) for rank in range(count)]
        try:
            _listen(processes, context.progress)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    return {path.name: path for path in context.files.iterdir()}


def _start(told: dict[str, Any]) -> subprocess.Popen:
    environment = {"RANK": str(told["rank"]), "WORLD_SIZE": str(told["count"]),
                   "OMP_NUM_THREADS": str(told["content"]["execution"]["threads"])}
    # All ranks are on this machine, and nothing else need reach them.
    loopback = {} if sys.platform == "darwin" else {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    process = subprocess.Popen(import_path.command("diffbench.stages.ranks"), stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE,
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
            for message in map(json.loads, lines):
                if "progress" in message:
                    progress(*message["progress"][:2], **message["progress"][2])
                elif "failed" not in message:
                    done += 1
                elif message["failed"]["kind"] != "peer":
                    _fail(rank, len(processes), message["failed"])
                elif missed is None:
                    missed, deadline = (rank, message["failed"]), time.monotonic() + PEER_SECONDS
            if not data:                                  # a rank that has said its last word stays until it is ended
                code = processes[rank].wait()
                how = f"it was ended by signal {-code}" if code < 0 else f"it ended with code {code} and no result"
                _fail(rank, len(processes), {"status": "failed", "kind": "code", "reason": how})


def _fail(rank: int, count: int, said: dict[str, str]) -> NoReturn:
    of_all = said["kind"] in ("diverged", "request")      # every rank would say the same
    raise FailedElsewhere(said if of_all else said | {"reason": f"rank {rank} of {count}: {said['reason']}"})


if __name__ == "__main__":
    main()
