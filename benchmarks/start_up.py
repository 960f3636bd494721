"""Times of commands from start to end: `python benchmarks/start_up.py [--repeats 9]`.

Medians of wall time and of processor time (user and system), each in a fresh process after one that is not counted. A
busy machine shows in the first alone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from diffbench.machine.fingerprint import cores, cpu_name

CARD = Path(__file__).parent / "matrices" / "card.yaml"
COMMANDS = {
    "import torch": ["-c", "import torch"],
    "diffbench --help": ["-m", "diffbench", "--help"],
    "diffbench list": ["-m", "diffbench", "list"],
    "diffbench plan card.yaml": ["-m", "diffbench", "plan", str(CARD)],
}


def seconds(arguments: list[str], home: str) -> tuple[float, float]:
    """(wall, processor) seconds of one process."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL,
                               env=os.environ | {"DIFFBENCH_HOME": home})
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{arguments} ended with status {status}")
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    print(f"{options.repeats} processes each, {cpu_name()}, {cores()} cores, load {os.getloadavg()[0]:.0f}\n\n{'':26} "
          f"{'wall s':>8} {'processor s':>12}")
    with tempfile.TemporaryDirectory() as home:
        for name, arguments in COMMANDS.items():
            seconds(arguments, home)
            wall, processor = zip(*(seconds(arguments, home) for _ in range(options.repeats)), strict=True)
            print(f"{name:26} {statistics.median(wall):8.2f} {statistics.median(processor):12.2f}")
