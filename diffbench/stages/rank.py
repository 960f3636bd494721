"""One process of a training on several devices: `python -m diffbench.stages.rank`, started by `ranks`.

It is told its task on standard input, which stays open: when that closes, because the worker has ended in whatever way,
the rank goes too. It answers in JSON lines on standard output.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

from diffbench.contracts.values import Progress
from diffbench.errors import DiffbenchError
from diffbench.stages import failure, opening, training_share
from diffbench.stages.gradients import PeerLost, Ranks
from diffbench.store.artefacts import Store, write_flushed

MODULE = "diffbench.stages.rank"
EXCHANGE_SECONDS = 600                # how long ranks wait for one that sends nothing


def main() -> None:
    """One rank, from its task on standard input to its last word on standard output."""
    task = json.loads(sys.stdin.buffer.readline())
    words = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)                                         # what components print goes to the log
    threading.Thread(target=_end_with_the_worker, daemon=True).start()

    try:
        _train(task, lambda done, of, **figures: words.write(json.dumps({"progress": [done, of, figures]}) + "\n"))
        outcome: dict[str, Any] = {"done": True}
    except PeerLost as error:
        outcome = {"failed": {"status": "failed", "kind": "peer", "reason": str(error)}}
    except Exception as error:  # noqa: BLE001  whatever a training raises is the reason of the stage
        traceback.print_exc()
        outcome = {"failed": failure.failure(error)}
    words.write(json.dumps(outcome) + "\n")
    words.flush()
    # to be ended by the worker: to go now would look like a crash to the other ranks
    threading.Event().wait()


def _train(told: dict[str, Any], progress: Progress) -> None:
    import torch
    import torch.distributed as dist

    from diffbench.contracts.values import silent

    ranks = Ranks(rank=told["rank"], count=told["count"])
    if told["content"]["execution"]["device"] == "cuda" and torch.cuda.device_count() < ranks.count:
        raise DiffbenchError(f"train.gpus is {ranks.count}, and this worker was given {torch.cuda.device_count()}")
    context = opening.context(told["content"], Store(told["store"]), progress if ranks.rank == 0 else silent,
                              Path(told["files"]), gpu=ranks.rank)
    if context.device.type == "cuda":
        torch.cuda.set_device(context.device)
    dist.init_process_group("nccl" if context.device.type == "cuda" else "gloo",
                            init_method=f"file://{told['folder']}/meeting", rank=ranks.rank,
                            world_size=ranks.count, timeout=timedelta(seconds=EXCHANGE_SECONDS))
    files = training_share.train_share(context, ranks)
    for name, data in files.items():
        if isinstance(data, bytes):
            write_flushed(context.files / name, data)


def _end_with_the_worker() -> None:
    while os.read(0, 4096):
        pass
    os._exit(1)
