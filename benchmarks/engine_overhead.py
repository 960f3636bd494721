"""The time that the engine adds to each stage, process start included: `python benchmarks/engine_overhead.py`.

Runs a matrix of tiny stages one at a time and takes from the time between the first start and the last end what the
stages themselves say they took. The first stage, which waits for the worker server to import torch, is left out.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import diffbench
from diffbench.machine.fingerprint import cpu_name
from diffbench.store.artefacts import Store

SEEDS = list(range(12))
MATRIX = {
    "diffbench": 1, "name": "overhead", "dataset": "digits",
    "axes": {"backbone": {"dit": {"patch": 4, "width": 8, "depth": 1, "heads": 1}}, "conditioning": "none",
             "scheduler": {"ddim": {"steps": 2}}, "seed": SEEDS},
    "train": {"steps": 1, "batch_size": 4}, "sample": {"count": 20}, "throughput": {"repeats": 3, "batch_size": 1},
    "extractor": "pixels", "metrics": ["fid"],
}


class Clock:
    """A watcher that records the ends of stages."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, str, str]] = []

    def started(self, stage) -> None:
        """Does nothing: one stage runs at a time, so ends are enough."""

    def progress(self, stage, done, of, figures) -> None:
        """Does nothing."""

    def note(self, text) -> None:
        """Does nothing."""

    def finished(self, stage, outcome) -> None:
        self.ends.append((time.perf_counter(), stage.name, stage.key))


def measure(folder: Path) -> dict[str, float]:
    """Seconds a stage takes beyond its own work: median and mean over all but the first; `stages`: how many."""
    clock, store = Clock(), Store(folder / "home")
    diffbench.run(MATRIX, out=folder / "out", device="cpu", jobs=1, store=store, watchers=[clock])
    added = [end - before - store.read_json(name, key, "outcome.json")["seconds"]
             for (before, *_), (end, name, key) in zip(clock.ends, clock.ends[1:], strict=False)]
    return {"median": statistics.median(added), "mean": statistics.fmean(added), "stages": len(added)}


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        overhead = measure(Path(folder))
    print(f"{1000 * overhead['median']:.0f} ms a stage (median of {overhead['stages']}; mean "
          f"{1000 * overhead['mean']:.0f} ms) on {cpu_name()}")
