"""A plug-in file with one more kind of stage, `exercise`, which does a light task. Used by the suite of launchers.

A loose file as any that is given with --plugin: it is run in the worker, and nowhere else.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from diffbench.stages.context import Context
from diffbench.store.stage_kinds import OF_FILES, StageKind

PATIENCE = 300.0                      # seconds: nothing of this is meant to last, should the suite be killed


def exercise(context: Context) -> dict[str, bytes]:
    """Does what the task names, and publishes what the worker knows of itself."""
    task, start = context.task, time.time()
    parents = {role: context.store.read_json("exercise", key, "facts.json")["ended"]
               for role, key in context.parents.items()}
    HOW[task["do"]](context)
    facts = {"begun": start, "ended": time.time(), "pid": os.getpid(), "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
             "threads": torch.get_num_threads(),
             "openmp": os.environ.get("OMP_NUM_THREADS"), "parents": parents,
             "marked": os.environ.get("DIFFBENCH_MARK"), "folder": os.getcwd()}
    return {"facts.json": json.dumps(facts).encode()}


def _raise(context: Context) -> None:
    raise RuntimeError("raised on purpose, ünïcode and all")


def _hang(context: Context) -> None:
    """Hangs in native code, with two children, one of which has left the process group."""
    children = [subprocess.Popen(["sleep", str(PATIENCE)], start_new_session=leaves) for leaves in (False, True)]
    _note(context, [os.getpid(), *(child.pid for child in children)])
    ctypes.CDLL(None).sleep(int(PATIENCE))


def _leak(context: Context) -> None:
    """Leaves a child behind that keeps the log open."""
    _note(context, [subprocess.Popen(["sleep", str(PATIENCE)]).pid])


def _speak(context: Context) -> None:
    print("said to stdout: ü → 拡散", flush=True)
    print("said to stderr: ü → 拡散", file=sys.stderr, flush=True)
    os.write(1, b"said below Python\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"said in C")
    libc.fflush(None)


def _wait(context: Context) -> None:
    """Waits until a file exists."""
    _note(context, [os.getpid()])
    deadline = time.monotonic() + PATIENCE
    while not Path(context.task["file"]).exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _note(context: Context, pids: list[int]) -> None:
    path = Path(context.task["pids"])
    path.with_suffix(".new").write_text(json.dumps(pids))
    path.with_suffix(".new").rename(path)


HOW = {
    "succeed": lambda context: time.sleep(context.task.get("seconds", 0.0)), "raise": _raise,
    "segfault": lambda context: ctypes.string_at(0),
    "leave": lambda context: os._exit(0), "kill": lambda context: os.kill(os.getpid(), signal.SIGKILL), "hang": _hang,
    "leak": _leak,
    "speak": _speak, "wait": _wait,
}
OF_FILES.append(StageKind(name="exercise", does=f"{__name__}:exercise", version=1))
