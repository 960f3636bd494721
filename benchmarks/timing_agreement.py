"""Agreement of timings in separate worker processes: `python benchmarks/timing_agreement.py [--processes 12]`.

Each timing is a throughput stage in a worker of its own, forked as a run forks it, cell after cell in turns. For each
cell: median over the processes and interquartile range as a share of it, of images per second and of images per anchor.
The cells have one network and one number of evaluations, so beside that: by how much the fastest cell of a round
exceeds the slowest.

Workers keep freed memory (`diffbench/process/worker_settings.py`). With GLIBC_TUNABLES=glibc.malloc.tcache_count=7, the
default of that setting, the allocator is left as the user has it, and the same command shows what that does.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

from diffbench import load_registry
from diffbench.launchers.processes import Processes
from diffbench.machine.fingerprint import cores, cpu_name
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.planning.stage import Stage
from diffbench.results import speed_columns
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims

COLUMNS = ("sample_images_per_second", "sample_images_per_anchor")


def content(images: int, backbone: str) -> dict[str, Any]:
    """A matrix of three cells of four evaluations each."""
    axes = {"backbone": backbone, "scheduler": [{name: {"steps": 4}} for name in ("ddim", "ddpm", "euler_ode")]}
    return {"diffbench": 1, "name": "agreement", "dataset": "digits", "axes": axes, "metrics": [],
            "throughput": {"batch_size": images}}


def timed(processes: Processes, stage: Stage, threads: int) -> dict[str, Any]:
    """The columns of one timing, from a worker with a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        store, claims = Store(Path(folder)), Claims()
        store.prepare()
        claim = store.claim(stage.key)
        claims.take(claim)
        execution = {"device": "cpu", "threads": threads, "memory_share": 1.0, "is_deterministic": False,
                     "compile": "off", "plugins": [], "exclusive": True,
                     "checkpoint_seconds": 30.0, "run": "agreement", "claim": claims.token(claim)}
        attempt = store.new_attempt(stage.content(), execution)
        processes.start(stage.key, store.root, attempt, threads, "")
        while not processes.wait(1.0):
            pass
        claims.close()
        return speed_columns.columns("throughput:sampling", store.read_json(stage.name, stage.key, "facts.json"))


def spread(values: list[float]) -> float:
    """Interquartile range as a share of the median, in percent."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return 100 * (high - low) / middle


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--processes", type=int, default=12)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--backbone", default="unet")
    arguments = parser.parse_args()
    registry = load_registry()
    plan = stage_graph.make_plan(loading.load(content(arguments.images, arguments.backbone), registry), registry, "cpu")
    stages = {planned.cell.scheduler.component_name(): plan.stages[planned.stages["throughput:sampling"]]
              for planned in plan.cells}
    workers = Processes()
    rounds = [{name: timed(workers, stage, arguments.threads) for name, stage in stages.items()}
              for _ in range(arguments.processes)]
    workers.close()
    laps = [row["sample_laps"] for timings in rounds for row in timings.values()]
    print(f"{arguments.processes} processes a cell, {arguments.threads} threads, {arguments.images} images, "
          f"{arguments.backbone}, {cores()} cores, {cpu_name()}\n"
          f"freed memory: {laps[0]['process']['freed_memory']}; threads wait: {laps[0]['process']['threads_wait']}; "
          "cores of others: median "
          f"{statistics.median(timing['load']['cores_of_others'] for timing in laps):.2f}, ms of the anchor: "
          + " ".join(f"{1e3 * statistics.median(timing['anchor_seconds']):.2f}" for timing in laps) + "\n")
    for column in COLUMNS:
        for name in stages:
            values = [timings[name][column] for timings in rounds]
            print(f"{column:26} {name:10} median {statistics.median(values):8.4g}, interquartile range "
                  f"{spread(values):5.1f} %")
        apart = [100 * (max(t[column] for t in timings.values()) / min(t[column] for t in timings.values()) - 1)
                 for timings in rounds]
        medians = [statistics.median(timings[name][column] for timings in rounds) for name in stages]
        print(f"{column:26} cells apart: {statistics.median(apart):.1f} % in the median round, {max(apart):.1f} % in "
              f"the worst; their medians {100 * (max(medians) / min(medians) - 1):.1f} %\n")
