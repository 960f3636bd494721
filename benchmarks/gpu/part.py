"""One part, in a process of its own: `python -m benchmarks.gpu.part NAME --out DIR --seconds N [--dry]`.
The day starts these.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.gpu.day import PARTS, Day, attempt


def main() -> None:
    """Tries the steps of a part. Tracebacks of all threads go to NAME.hang where it is not over in time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=[part.name for part in PARTS])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dry", action="store_true")
    parser.add_argument("--steps", default="")
    parser.add_argument("--networks", default="")
    options = parser.parse_args()
    part = next(part for part in PARTS if part.name == options.name)
    if not options.dry and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --dry walks every part at toy size on the CPU")
    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    with open(options.out / f"{part.name}.hang", "w") as hang, tempfile.TemporaryDirectory() as folder:
        faulthandler.dump_traceback_later(options.seconds, file=hang, exit=True)
        day = Day(device=device, is_dry=options.dry, folder=Path(folder), data=options.data, ends=time.monotonic()
                  + 0.9 * options.seconds,
                  networks=tuple(filter(None, options.networks.split(","))))
        names = set(filter(None, options.steps.split(",")))
        steps = [step for step in importlib.import_module(part.module).STEPS if not names or step.__name__ in names]
        attempt(part, steps, day, options.out / f"{part.name}.json")
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
