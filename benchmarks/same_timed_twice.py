"""Differences between timings of one thing: `python benchmarks/same_timed_twice.py [--neighbours 3] [--trials 30]`.

Times one sampler run again and again, each time as its own timing, and compares every pair of timings: by their median
seconds, and by their median in units of the anchor that was timed in turns with them. Beside them: two copies timed in
turns within one timing, which is the best that can be had. Neighbours are processes that spin for one to six seconds
and rest for as long, each on its own.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable

import torch

from diffbench import load_registry
from diffbench.machine import anchor
from diffbench.machine import laps as timing
from diffbench.machine.fingerprint import cpu_name
from diffbench.matrix import loading
from diffbench.stages import drawing, training_loop

CPU = torch.device("cpu")
LAPS = 5
IMAGES = 20
MATRIX = {"diffbench": 1, "name": "twice", "dataset": "digits",
          "axes": {"backbone": "unet", "scheduler": {"ddim": {"steps": 4}}}, "metrics": []}


def sampler() -> Callable[[], object]:
    """One run of a sampler over a batch."""
    cell = loading.load(MATRIX, load_registry()).cells[0]
    model, helpers = training_loop.build(cell, CPU).eval(), drawing.helpers_for(cell, CPU)
    return lambda: drawing.draw(cell, model, None, helpers, CPU, range(IMAGES))


def neighbour() -> None:
    """Uses a core and rests in turns until it is killed."""
    lengths = random.Random(os.getpid())
    while True:
        end = time.monotonic() + lengths.uniform(1, 6)
        if lengths.random() < 0.5:
            while time.monotonic() < end:
                pass
        else:
            time.sleep(end - time.monotonic())


def trials(count: int, pause: float) -> tuple[list[float], list[float], list[float]]:
    """(median seconds, median in units of the anchor, ratio of two copies timed in turns) of each timing."""
    run, still = sampler(), anchor.make(CPU)
    plain, anchored, in_turns = [], [], []
    for _ in range(count):
        warm = timing.warm_up(run, CPU)
        laps = timing.timed(run, warm, LAPS, CPU, anchor=still)
        plain.append(laps.median)
        anchored.append(statistics.median(laps.in_anchors))
        first = [timing.lap(run, warm.runs, CPU) for _ in range(2 * LAPS)]
        in_turns.append(statistics.median(first[::2]) / statistics.median(first[1::2]))
        time.sleep(pause)
    return plain, anchored, in_turns


def summary(label: str, ratios: Iterable[float]) -> str:
    """Root mean square, median and largest difference in percent, each relative to the smaller of two."""
    off = sorted(100 * math.expm1(abs(math.log(ratio))) for ratio in ratios)
    root_mean_square = math.sqrt(statistics.fmean(x * x for x in off))
    return f"{label:28} {root_mean_square:6.1f} {statistics.median(off):8.1f} {off[-1]:8.1f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--neighbours", type=int, default=0)
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two timings")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    others = [multiprocessing.get_context("spawn").Process(target=neighbour, daemon=True)
              for _ in range(arguments.neighbours)]
    for process in others:
        process.start()
    plain, anchored, in_turns = trials(arguments.trials, arguments.pause)
    for process in others:
        process.kill()
    print(f"{arguments.trials} timings of {LAPS} laps, {arguments.threads} threads, {arguments.neighbours} neighbours, "
          f"{cpu_name()}\n\n"
          f"{'difference in percent':28} {'rms':>6} {'median':>8} {'largest':>8}")
    for what, values in (("one after the other, seconds", plain), ("in units of the anchor", anchored)):
        print(summary(what, (a / b for a, b in itertools.combinations(values, 2))))
    print(summary("in turns", in_turns))
