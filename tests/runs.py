"""Runs and tries without an engine: as they lie on the disk, made in milliseconds."""

import json

from diffbench.specs import digest

# What a stage leaves, and nobody computed.
NAMES = ("extractor", "train", "sample", "features", "evaluate")


EXECUTION = {"device": "cpu", "threads": 1, "memory_share": 1.0, "checkpoint_seconds": 30.0, "is_deterministic": False, "compile": "auto", "plugins": [], "exclusive": False}


def attempted(store, claims, stage, execution):
    """A folder for one try of a stage, under a claim as an engine would hold it."""
    folder = store.claim(stage.key)
    claims.take(folder)
    return store.new_attempt(stage, {**EXECUTION, "claim": claims.token(folder), **execution})


def make_run(store, folder, seed=0, names=NAMES):
    """A chain of artefacts, each the parent of the next, and a folder of results whose plan names them. Returns {stage: key}."""
    store.prepare()
    keys, parents = {}, {}
    for name in names:
        identity = {"stage": name, "seed": seed, **parents}
        keys[name] = digest(identity)
        task = {"stage": name, "key": keys[name], "identity": identity, "task": {}, "parents": parents}
        store.publish(name, keys[name], task, {"facts.json": b'{"loss": 0.125}', "weights.safetensors": bytes(range(200)), "outcome.json": b'{"seconds": 1.0}'})
        parents = {name: keys[name]}
    (folder / "cells").mkdir(parents=True, exist_ok=True)
    stages = {key: {"name": name, "label": name, "parents": {}} for name, key in keys.items()}
    (folder / "plan.json").write_text(json.dumps({"cells": [{"cell_id": "0123456789ab", "stages": keys}], "stages": stages}))
    (folder / "matrix.json").write_text(json.dumps({"name": "made"}))
    (folder / "cells" / "0123456789ab.json").write_text(json.dumps({"cell_id": "0123456789ab", "status": "ok"}))
    (folder / "fid.md").write_text("a table")
    store.register_run(folder, keys.values())
    return keys


def files(folder):
    """The content of every file below a folder, by its path."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
