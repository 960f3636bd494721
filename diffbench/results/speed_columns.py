"""Columns that a timing gives, and the limits above which it is noisy. Used by rows, tables and comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

# interquartile range of the laps, as a share of their median, above which a timing is noisy
NOISY_SPREAD = 0.10
# cores that others kept busy, above which it is; a GPU's host has some to spare
NOISY_CORES = {"cpu": 0.5, "cuda": 2.0}
NOISY_CORES_SHARE = {"cpu": 0.05, "cuda": 0.5}            # or this share of the cores, where that is more
NOISY_GPU = 0.10                      # share of the second before it in which the GPU was busy, above which it is

_OF_LAPS = ("images_per_second", "images_per_second_low", "images_per_second_high", "images_per_anchor", "lap_spread",
            "cores_of_others")
# In the order of the results: of a training, of sampling.
COLUMNS = (*(f"{half}_{name}" for half in ("train", "sample") for name in _OF_LAPS), "seconds_per_nfe",
           "network_seconds_per_nfe",
           "scheduler_seconds_per_step", "throughput_batch_size", "peak_memory_bytes", "train_peak_memory_bytes",
           "energy_joules")
# Which way is better, of the columns by which two rows are compared.
BETTER = {"train_images_per_second": "higher", "sample_images_per_second": "higher",
          "sample_images_per_anchor": "higher", "seconds_per_nfe": "lower",
          "peak_memory_bytes": "lower", "train_peak_memory_bytes": "lower", "energy_joules": "lower"}
FLAGS = ("train_noisy", "sample_noisy")
# The flag of each column that noise changes; memory, parameters and arithmetic stand in none.
FLAG_OF = {**{f"{half}_{name}": f"{half}_noisy" for half in ("train", "sample") for name in _OF_LAPS},
           **dict.fromkeys(("seconds_per_nfe", "network_seconds_per_nfe", "scheduler_seconds_per_step",
                            "energy_joules"), "sample_noisy")}
RAW = ("train_laps", "sample_laps", "throughput_by_batch")                       # keys of a record which are no columns
_LAPS = ("seconds", "network_seconds", "set_up_seconds", "warmup_seconds", "anchor_seconds", "runs_per_lap",
         "is_settled", "load", "process", "not_measured")


def columns(role: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that "throughput:training" or "throughput:sampling" adds to a row;
    rates are of medians and quartiles of the laps.
    """
    half = "train" if role == "throughput:training" else "sample"
    reasons = noise(facts)
    figures = rates(facts) | {"lap_spread": facts["spread"], "cores_of_others": facts["load"]["cores_of_others"],
                            "noisy": bool(reasons),
                            "laps": {name: facts[name] for name in _LAPS if name in facts} | {"noise": reasons}}
    row = {f"{half}_{name}": value for name, value in figures.items()} | {"cores": facts["cores"]}
    if half == "train":
        return row | {"train_peak_memory_bytes": facts["peak_memory_bytes"]}
    copied = ("parameters", "gmac_per_nfe", "seconds_per_nfe", "network_seconds_per_nfe", "scheduler_seconds_per_step",
              "peak_memory_bytes", "energy_joules")
    return row | {name: facts[name] for name in copied} | {
        "throughput_batch_size": facts["batch_size"],
        "throughput_by_batch": [size if "reason" in size else {"batch_size": size["batch_size"],
                                                               "laps": size["seconds"], **rates(size)} | {
                                                                   name: size[name] for name in copied[2:]}
                                for size in facts["by_batch_size"]]}


def rates(facts: Mapping[str, Any]) -> dict[str, float]:
    """Images per second at the median lap and at its quartiles, and images in the time of one run
    of the anchor beside it.
    """
    first, third = facts["quartile_seconds"]
    return {"images_per_second": facts["images"] / facts["median_seconds"],
            "images_per_second_low": facts["images"] / third,
            "images_per_second_high": facts["images"] / first,
            "images_per_anchor": facts["images"] / median(facts["in_anchors"])}


def noise(facts: Mapping[str, Any]) -> list[str]:
    """Why a timing is noisy, in words; empty where it is not."""
    device, load, reasons = facts["device"], facts["load"], []
    if facts["spread"] > NOISY_SPREAD:
        reasons.append(f"its laps spread by {100 * facts['spread']:.0f} % of their median")
    if (load["cores_of_others"] or 0.0) > max(NOISY_CORES[device], NOISY_CORES_SHARE[device] * facts["cores"]):
        reasons.append(f"others kept {load['cores_of_others']:.1f} of {facts['cores']} cores busy")
    if (load["gpu_busy_before"] or 0.0) > NOISY_GPU:
        reasons.append(f"the GPU was busy for {100 * load['gpu_busy_before']:.0f} % of the second before")
    if load["disturbance"]:
        reasons.append(load["disturbance"])
    return reasons


def judged(row: Mapping[str, Any]) -> dict[str, Any]:
    """`speed_remark`: what a reader should know of the speeds of a row."""
    halves = [(name, row[f"{half}_laps"]) for half, name in (("train", "training"), ("sample", "sampling"))]
    texts = [f"{name} is noisy: {reason}" for name, laps in halves for reason in laps["noise"]]
    texts += [f"{name} was timed without a lock: {laps['load']['unlocked']}" for name, laps in halves
              if laps["load"]["unlocked"]]
    texts += [f"batches of {size['batch_size']} were not timed: {size['reason']}" for size in row["throughput_by_batch"]
              if "reason" in size]
    return {"speed_remark": "; ".join(texts)}


def is_noisy(record: Mapping[str, Any], column: str) -> bool:
    """Whether the figure of a column comes from a noisy timing, that of the training or that of sampling.
    Early records have one flag, `noisy`, for both.
    """
    return column in FLAG_OF and bool(record.get(FLAG_OF[column], record.get("noisy")))
