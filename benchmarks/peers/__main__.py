"""The table of ratios: `python -m benchmarks.peers [steps training sampling distances matrix] [--laps 9] [--threads 1]
[--kept-memory]`.

Each peer does the same work as we do, in this process, in turns with ours. The environment: `pip install
'diffbench[peers]'`.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import os
import sys
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.peers.pairs import Missing, compare, table
from diffbench.machine.fingerprint import cores, cpu_name

PARTS = ("steps", "training", "sampling", "distances", "matrix")
PEERS = ("torch", "diffusers", "azula", "k-diffusion", "denoising-diffusion-pytorch", "torchmetrics", "torch-fidelity")
KEPT_BYTES = 31 << 20                 # just below the size from which glibc never keeps a block


def main() -> None:
    """Times every pair of the parts asked for and prints one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="part", default=PARTS,
                        help=f"of {', '.join(PARTS)}; all where none is named")
    parser.add_argument("--laps", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--kept-memory", action="store_true",
                        help="as after a large tensor was freed: glibc then keeps memory, and nobody pays for new "
                             "pages")
    parser.add_argument("--out", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"no part named {', '.join(sorted(unknown))}; parts: {', '.join(PARTS)}")
    torch.set_num_threads(arguments.threads)
    if arguments.kept_memory:
        torch.empty(KEPT_BYTES, dtype=torch.uint8)
    rows, missing = [], []
    for part in arguments.parts:
        for pair in importlib.import_module(f"benchmarks.peers.{part}").pairs():
            if isinstance(pair, Missing):
                missing.append(str(pair))
                continue
            rows.append(compare(pair, arguments.laps))
            print(table(rows[-1:]).splitlines()[-1], file=sys.stderr, flush=True)
    text = f"{_machine(arguments)}\n\n{table(rows)}\n" + ("\nNot compared:\n"
                                                          + "".join(f"- {reason}\n" for reason in missing) if missing
                                                          else "")
    print(text)
    if arguments.out:
        arguments.out.write_text(text)


def _machine(arguments: argparse.Namespace) -> str:
    versions = ", ".join(f"{name} {_version(name)}" for name in PEERS)
    load = ", ".join(f"{value:.0f}" for value in os.getloadavg())
    return (f"{datetime.date.today()}: {cpu_name()}, {cores()} cores, load averages {load}, {arguments.threads} "
            f"thread(s), {arguments.laps} laps in turns"
            f"{', memory kept' if arguments.kept_memory else ''}. {versions}.\n`python -m benchmarks.peers "
            f"{' '.join(sys.argv[1:])}`")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    main()
