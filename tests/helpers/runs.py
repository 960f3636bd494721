"""Runs and tries without an engine: as they lie on the disk, made in milliseconds."""

import json
import os
import sys

import safetensors.torch
import torch

from diffbench.stages import training_loop, worker
from diffbench.store import output_folder
from diffbench.store.digest import digest

NAMES = ("extractor", "train", "sample", "features", "evaluate")


EXECUTION = {"device": "cpu", "threads": 1, "memory_share": 1.0, "checkpoint_seconds": 30.0, "is_deterministic": False, "compile": "auto", "plugins": [],
             "exclusive": False, "run": "made"}


def attempted(store, claims, stage, execution):
    """A folder for one try of a stage, under a claim as an engine would hold it."""
    folder = store.claim(stage.key)
    claims.take(folder)
    return store.new_attempt(stage.content(), {**EXECUTION, "claim": claims.token(folder), **execution})


def work(store, attempt, end, chunk):
    """The exit code of a try that this process makes, with chunks of so many steps, ended as `fragile` says.

    What it says lies in the attempt.
    """
    sys.stdout = sys.stderr = open(attempt / "log.txt", "w", buffering=1)
    os.dup2(sys.stdout.fileno(), 2)
    os.environ["DIFFBENCH_TEST_END"], training_loop.CHUNK = end, chunk
    return worker.run(str(store), str(attempt))


def contents(name):
    """Files that a stage could have left, and nobody computed."""
    images, weights = torch.arange(3 * 64).to(torch.uint8).view(3, 1, 8, 8), {"w": torch.arange(25.0)}
    made = {
        "extractor": ("weights", weights, {"loss": 0.125}),
        "train": ("weights", weights, {"loss": 0.125, "losses": [1.0, 0.125], "steps_per_loss": 10, "train_loss": 0.125, "compiled": False}),
        "sample": ("images", {"images": images, "labels": torch.arange(3)},
                   {"loss": 0.125, "nfe": 2.0, "sample_count": 3, "distinct_count": 3, "flat_count": 0, "clamped_share": 0.0, "dtype": "float32", "threads": 1,
                    "compiled": False, "batch_size": 3, "batch_size_asked": 3}),
        "features": ("seen", {"images": images, "features": torch.ones(3, 2, dtype=torch.float64)}, {"loss": 0.125, "feature_count": 2, "remark": ""}),
        "evaluate": ("", {}, {"values": {"": 0.125}, "left_out": {}}),
    }
    file, tensors, facts = made[name]
    more = {f"{file}.safetensors": safetensors.torch.save(tensors)} if file else {}
    return {"values.json" if name == "evaluate" else "facts.json": json.dumps(facts).encode(), "outcome.json": b'{"seconds": 1.0}', **more}


def make_run(store, folder, seed=0, names=NAMES):
    """A chain of artefacts, each the parent of the next, and a folder of results whose plan names them. Returns {stage: key}."""
    store.prepare()
    keys, parents = {}, {}
    for name in names:
        identity = {"stage": name, "seed": seed, **parents}
        keys[name] = digest(identity)
        task = {"stage": name, "key": keys[name], "identity": identity, "task": {}, "parents": parents}
        store.publish(name, keys[name], task, contents(name))
        parents = {name: keys[name]}
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    stages = {key: {"name": name, "label": name, "parents": {}} for name, key in keys.items()}
    (folder / output_folder.IDENTITY).write_text(json.dumps({"diffbench": "run", "id": f"{seed:032x}"}))
    (folder / "plan.json").write_text(json.dumps({"cells": [{"cell_id": "0123456789ab", "stages": keys}], "stages": stages}))
    (folder / "matrix.json").write_text(json.dumps({"name": "made"}))
    (folder / "cells" / "0123456789ab.json").write_text(json.dumps({"cell_id": "0123456789ab", "status": "ok"}))
    (folder / "fid.md").write_text("a table")
    store.register_run(folder, keys.values(), "made")
    return keys


def files(folder):
    """The content of every file below a folder, by its path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
