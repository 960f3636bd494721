"""A matrix from nothing to its tables, with the command that users type. Used by the day."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import diffbench
from benchmarks.gpu.day import Day, Figures, Finding, NotMeasured

MATRICES = Path(__file__).parents[1] / "matrices"
# cells of the card for each that is measured; how many times its steps and samples
PER_CELL, FIFTH = 80 / 8, 5
# In a dry run: few cells, and nothing that is fitted to data.
DRY = ("--smoke", "--only", "scheduler=ddim", "--only", "backbone=unet", "--set", "extractor=pixels", "--set",
       "metrics=[fid]")
NAMING = ("backbone", "train_steps", "noise_schedule", "conditioning", "guidance_scale", "scheduler", "steps")
MEASURED = ("nfe", "fd_dataset_classifier", "fd_dataset_classifier_debiased", "fd_dataset_classifier_low",
            "fd_dataset_classifier_high", "class_accuracy",
            "sample_images_per_second", "train_images_per_second", "peak_memory_bytes", "energy_joules", "speed_remark",
            "train_compiled", "sample_compiled")


def quickstart(day: Day) -> Finding:
    """The quickstart, trained, sampled and timed on the device."""
    seconds, figures = _run(day, "quickstart", 0.6 * day.seconds_left, *day.sized((), DRY))
    return Finding(f"the quickstart's {len(figures['rows'])} cells took {seconds:.0f} s with --device "
                   f"{day.device.type}{figures['stopped']}", figures)


def eight_cells_of_the_card_on_mnist(day: Day) -> Finding:
    """Two trainings and eight cells of the card matrix on real MNIST, and what the 80 would take by them."""
    if day.data is None:
        raise NotMeasured("MNIST is not here: --data names the folder that holds MNIST/raw")
    options = ("--only", "conditioning=film", "--only", "noise_schedule=cosine", "--data-root", str(day.data), "--set",
               f"train.steps={20_000 // FIFTH}",
              "--set", f"sample.count={5000 // FIFTH}")
    seconds, figures = _run(day, "card-mnist", day.seconds_left, *options, *day.sized((), DRY))
    sentence = (f"{len(figures['rows'])} of the card's 80 cells on MNIST, with a fifth of its steps and samples, took "
                f"{seconds:.0f} s{figures['stopped']}")
    if figures["stopped"]:
        return Finding(sentence, figures)
    full_seconds = {kind: value * FIFTH if kind in ("train", "sample") else value for kind,
                    value in figures["stage_seconds"].items()}
    figures["card_seconds"] = card = PER_CELL * sum(full_seconds.values())
    return Finding(f"{sentence}; by their stages all 80 as they are would take {card / 60:.0f} minutes, one stage at a "
                   "time", figures)


STEPS = (quickstart, eight_cells_of_the_card_on_mnist)


def table(folder: Path) -> list[Figures]:
    """Table of a run for docs/gpu.md: each row's names and numbers, None where a number is missing."""
    frame = diffbench.load(folder)
    columns = [name for name in (*NAMING, *MEASURED) if name in frame]
    return json.loads(frame[["status", "reason", *columns]].to_json(orient="records", double_precision=10))


def _run(day: Day, name: str, limit: float, *options: str) -> tuple[float, Figures]:
    """A run of the command, ended as Ctrl-C ends one where it takes longer than `limit` seconds:
    its rows and stages until then.
    """
    out, since = day.folder / name, time.monotonic()
    command = [sys.executable, "-m", "diffbench", "run", str(MATRICES / f"{name}.yaml"), "--device", day.device.type,
               "--out", str(out), *options]
    words = day.folder / f"{name}.txt"
    with open(words, "wb") as log_file:
        process = subprocess.Popen(command, stdout=log_file, stderr=subprocess.STDOUT,
                                   env={**os.environ, "DIFFBENCH_HOME": str(day.folder / "home")})
        try:
            process.wait(max(10.0, limit))
            stopped = ""
        except subprocess.TimeoutExpired:
            stopped = ", when it was stopped by the clock"
            process.send_signal(signal.SIGINT)
            process.wait(30)
    seconds = time.monotonic() - since
    if process.returncode != 0 and not stopped:
        raise RuntimeError(f"it ended with {process.returncode}: {words.read_text()[-3000:]}")
    stages: dict[str, list[float]] = {}
    lines = [line for path in sorted((out / "events").glob("*.jsonl")) for line in path.read_text().splitlines()]
    for line in lines:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "stage_finished" and event["status"] == "ok":
            stages.setdefault(event["stage"], []).append(event["seconds"])
    return seconds, {
        "seconds": seconds, "stopped": stopped, "rows": table(out),
        "last_words": words.read_text()[-6000:] if stopped else "", "events": lines[-400:] if stopped else [],
        "stage_seconds": {kind: round(sum(each), 2) for kind, each in stages.items()},
        "stages": {kind: len(each) for kind, each in stages.items()},
        "tables": {each: (out / each).read_text() for each in ("fid.md", "throughput.md") if (out / each).exists()},
    }


if __name__ == "__main__":
    print(json.dumps(table(Path(sys.argv[1])), indent=1))           # quickstart_cpu.json, of a run with --device cpu
