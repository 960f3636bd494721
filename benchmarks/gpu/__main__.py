"""The day: `python -m benchmarks.gpu --out DIR [--parts right,networks] [--steps ...] [--seconds 480] [--data DIR]
[--dry]`.

Each part is a process of its own with its share of the seconds; what one leaves goes to the next. A part that fails,
dies or hangs leaves its traceback in its JSON. The exit code is 0 where every part is ok or says why it could not be
measured, else 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.day import PARTS, Part, outcome, write

# seconds that a part gets beyond its own limit before it is killed: to import torch and to tell where it hangs
GRACE = 10.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the chosen parts; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for one JSON file of each part")
    parser.add_argument("--parts", default=",".join(part.name for part in PARTS),
                        help="names with commas between: %(default)s")
    parser.add_argument("--steps", default="", help="names with commas between, of the parts that are asked for: all "
                                                    "where none is named")
    parser.add_argument("--networks", default="", help='that the part `networks` measures, such as "dit S/2,dit B/2": '
                                                       'all where none is named')
    parser.add_argument("--seconds", type=float, default=480.0, help="of the whole day (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder that holds MNIST/raw; without it MNIST is not measured")
    parser.add_argument("--dry", action="store_true",
                        help="toy sizes, without a GPU too: whether it runs; nothing is measured")
    settings = parser.parse_args(arguments)
    names = settings.parts.split(",")
    steps = {step.__name__ for part in PARTS if part.name in names
             for step in importlib.import_module(part.module).STEPS}
    if unknown := set(filter(None, settings.steps.split(","))) - steps:
        parser.error(f"no step of {settings.parts} is named {', '.join(sorted(unknown))}; steps: "
                     f"{', '.join(sorted(steps))}")
    if unknown := set(names) - {part.name for part in PARTS}:
        parser.error(f"no part is named {', '.join(sorted(unknown))}; parts: {', '.join(part.name for part in PARTS)}")
    settings.out.mkdir(parents=True, exist_ok=True)
    parts, ends, failed = [part for part in PARTS if part.name in names], time.monotonic() + settings.seconds, False
    for i, part in enumerate(parts):
        seconds_left = max(1.0, ends - time.monotonic())
        seconds = seconds_left * part.share / sum(later_part.share for later_part in parts[i:])
        options = [*(["--dry"] if settings.dry else []), *(["--data", str(settings.data)] if settings.data else []),
                   "--steps", settings.steps, "--networks", settings.networks]
        command = [sys.executable, "-m", "benchmarks.gpu.part", part.name, "--out", str(settings.out), "--seconds",
                   f"{seconds:.1f}", *options]
        record = run(part, command, seconds, settings.out)
        failed |= record["status"] not in ("ok", "not measured")
        print(f"{part.title} {record['status']}, {record['seconds']:.0f} s", flush=True)
        for step in record["steps"]:
            print(f"  {step['name'].replace('_', ' ')}: {step['status']}: {step.get('said', '')}", flush=True)
    return int(failed)


def run(part: Part, command: Sequence[str], seconds: float, out: Path) -> dict[str, Any]:
    """The record of a part, whatever became of its process."""
    path, log, since = out / f"{part.name}.json", out / f"{part.name}.log", time.monotonic()
    path.unlink(missing_ok=True)
    with open(log, "wb") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            code: int | str = process.wait(seconds + GRACE)
        except subprocess.TimeoutExpired:
            code = f"it was killed {GRACE:.0f} s after its limit"
        finally:                                          # Ctrl-C too; what it started may outlive it
            _kill(process)
    record = json.loads(path.read_text()) if path.exists() else {"part": part.name, "title": part.title,
                                                                 "status": "running", "steps": []}
    hang = out / f"{part.name}.hang"
    traces = hang.read_text() if hang.exists() else ""
    if record["status"] == "running":
        why = (f"it was not over after {seconds:.0f} s" if traces else code if isinstance(code, str)
               else f"its process ended with {code}")
        for step in record["steps"]:
            if step["status"] == "running":
                step |= {"status": "failed", "said": why, "traceback": traces[-6000:]}
        record |= {"status": "failed" if record["steps"] == [] else outcome(record["steps"]), "said": why,
                   "seconds": round(time.monotonic() - since, 2),
                   "log": log.read_text(errors="replace")[-4000:]}
        write(path, record)
        record = json.loads(path.read_text())
    hang.unlink(missing_ok=True)
    if log.stat().st_size == 0:
        log.unlink()
    return record


def _kill(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
