"""A folder of results as a run leaves it, with rows that nobody measured: made in milliseconds."""

import json
import random

from PIL import Image

from diffbench.report import grids
from diffbench.results import rows as results

FD = "fd_dataset_classifier"
SAME = ["dataset", "extractor_key", "sample_count"]
MEANING = {FD: {"metric": "fid", "better": "lower", "interval": True, "same": SAME},
           "class_accuracy": {"metric": "class_accuracy", "better": "higher", "interval": False, "same": SAME}}
SCHEDULERS = (("ddpm", 50), ("ddim", 20), ("ddim", 10), ("pndm", 10))


def rows(backbones=("unet", "dit"), schedulers=SCHEDULERS, scales=(1.5, 3.0), seeds=((0, 0), (1, 1), (2, 2)), interval=True, timed=True, others=True, dataset="digits"):
    """Rows as a run writes them: ok, and unless told otherwise one that was skipped and one that failed. seeds: of training and of noise."""
    said, made = random.Random(7), []
    for b, backbone in enumerate(backbones):
        for index, (scheduler, steps) in enumerate(schedulers):
            for scale in scales:
                for seed, noise in seeds:
                    value = 5 + 3 * b + index + scale / 3 + seed / 5 + said.random()
                    speed = {f"sample_images_per_second{end}": 1000 / steps * by for end, by in (("", 1.0), ("_low", 0.95), ("_high", 1.1))} if timed else {}
                    made.append({"cell_id": f"{len(made):012x}", "status": "ok", "reason": "", "dataset": dataset, "backbone": backbone, "noise_schedule": "linear",
                                 "parameterization": "epsilon", "objective": "mse", "conditioning": "cfg", "spacing": "uniform", "scheduler": scheduler, "steps": steps,
                                 "scheduler.steps": steps, "guidance_scale": scale, "conditioning.scale": scale, "seed": seed, "noise_seed": noise, "nfe": 2.0 * steps,
                                 "train_steps": 800, **speed, "sample_noisy": index == 1, "parameters": 1000 * (b + 1), "gmac_per_nfe": 0.5, "seconds_per_nfe": 0.01,
                                 "throughput_batch_size": 20, FD: value, **({f"{FD}_debiased": value - 0.5, f"{FD}_low": value - 1.25, f"{FD}_high": value + 0.5} if interval else {}),
                                 "class_accuracy": round(0.5 + 0.4 * said.random(), 3), "extractor": "dataset_classifier", "extractor_key": "abc", "sample_count": 400})
    if others:
        for status, reason in (("skipped", "no socket"), ("failed", "=1+1 raised <b>&")):
            made.append({**{k: made[0][k] for k in ("dataset", "backbone", "noise_schedule", "conditioning", "scheduler", "steps")}, "cell_id": status, "status": status,
                         "reason": reason, "seed": 0})
    return made


def folder(path, made, name="made", report=None, pictures=False, environment=None):
    """Writes a run's folder. pictures: also the grid of each row."""
    (path / results.RECORDS).mkdir(parents=True)
    for row in made:
        (path / results.RECORDS / f"{row['cell_id']}.json").write_text(json.dumps(row))
        if pictures and row["status"] == "ok":
            write_grid(path / "samples" / f"{row['cell_id']}.png", shade=20 * len(row["scheduler"]))
    (path / "matrix.json").write_text(json.dumps({"name": name} | ({"report": report} if report else {})))
    (path / "plan.json").write_text(json.dumps({"cells": [{"cell_id": row["cell_id"], "cell": cell(row), "stages": {"sample": "0" * 64} if row["status"] == "ok" else {}} for row in made], "stages": {}}))
    (path / "environment.json").write_text(json.dumps({"machine": {"cpu": "some"}} if environment is None else environment))
    results.write_tables(path, MEANING)
    return path


def cell(row):
    """A row's cell as a plan describes it."""
    said = {kind: {"component": row.get(kind, "x"), "options": {}} for kind in ("dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing")}
    said["conditioning"]["options"] = {"scale": row.get("conditioning.scale")}
    noise = row.get("noise_seed", row["seed"])
    return said | {"scheduler": {"component": row["scheduler"], "options": {"steps": row["steps"]}}, "train": {"steps": row.get("train_steps", 0), "lr": row.get("lr", 0.01)},
                   "sample": {"count": 400, "seed": "cell" if noise == row["seed"] else noise}, "seed": row["seed"]}


def write_grid(path, shade):
    """A grid as `diffbench.report.grids` draws it: ten classes, 8x8 pixels."""
    import numpy

    images = numpy.full((20, 1, 8, 8), shade, numpy.uint8)
    images[:, :, 2:6, 2:6] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grids.grid(images, numpy.arange(20) % 10)).save(path)
