"""The same matrix twice, from empty stores, in processes that have nothing in common but the number of threads: the same bits."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from diffbench.results.reproduced_artefacts import ABOUT
from diffbench.results.rows import CLOCKED
from tests.conftest import REGISTRY, all_of
from tests.helpers.runs import files


def small(metric):
    """A metric as a smoke run measures it, as a matrix names it."""
    asked = metric.for_smoke()
    return {REGISTRY.ref_of(asked).full_name: {f.name: getattr(asked, f.name) for f in fields(asked) if getattr(asked, f.name) != getattr(metric, f.name)}}


# A stochastic and a multistep sampler, tokens and convolutions, guidance and none, every metric. How a classifier that guides is fitted is in
# tests/diffusion/test_classifier.py: it takes as long as all this.
MATRIX = {
    "diffbench": 1, "name": "twice", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": [{"cfg": {"inner": "film", "scale": 2.0}}],
             "scheduler": [{"ddpm": {"steps": 3}}]},
    "include": [{"backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}, "conditioning": "concat", "scheduler": {"dpm_solver_pp": {"steps": 3}}}],
    "train": {"steps": 30, "batch_size": 32}, "sample": {"count": 60, "batch_size": 25}, "throughput": {"repeats": 3, "batch_size": 2},
    "metrics": [small(param.values[0]) for param in all_of("metric")],
}


def run(folder, content, *options, **variables):
    """A run in a process of its own, in a folder and with a store of its own; returns (its results, its store)."""
    for name in ("there", "temporary"):
        (folder / name).mkdir(parents=True)
    (folder / "matrix.yaml").write_text(json.dumps(content))
    environ = os.environ | {"DIFFBENCH_HOME": str(folder / "store"), "TMPDIR": str(folder / "temporary"), **variables}
    command = [sys.executable, "-m", "diffbench", "run", str(folder / "matrix.yaml"), "--out", str(folder / "out"), *options]
    done = subprocess.run(command, cwd=folder / "there", env=environ, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "out", folder / "store" / "store"


def results(store):
    """What every artefact holds but the story of its making, and what its facts say but for clocks; speeds are clocks."""
    found = {}
    for name, data in files(store).items():
        stage, file = name.split("/")[0], name.rpartition("/")[2]
        if stage == "throughput" and file in ("facts.json", "manifest.json"):
            found[name] = b""                             # that it is there, under its key
        elif file == "facts.json":
            found[name] = json.dumps(without_clocks(json.loads(data))).encode()
        elif file not in (*ABOUT, "manifest.json"):
            found[name] = data
    return found


def without_clocks(content):
    if isinstance(content, dict):
        return {key: without_clocks(value) for key, value in content.items() if not CLOCKED.search(key)}
    return content


def rows(out):
    """The records but for clocks."""
    raw = re.compile("_laps$|throughput_by_batch")
    return {path.name: {k: v for k, v in json.loads(path.read_bytes()).items() if not CLOCKED.search(k) and not raw.search(k)} for path in (out / "cells").iterdir()}


def assert_same(one, other):
    for (name, a), (again, b) in zip(sorted(results(one[1]).items()), sorted(results(other[1]).items()), strict=True):
        assert name == again, "a key depends on what it should not"
        assert a == b, f"{name} has other bits"
    assert rows(one[0]) == rows(other[0])
    pictures = [{p.name: p.read_bytes() for p in (out / "samples").iterdir()} for out, _ in (one, other)]
    assert pictures[0] == pictures[1] and len(pictures[0]) == len(rows(one[0]))


@pytest.mark.slow
def test_two_runs_that_share_nothing_but_their_threads_have_the_same_bits(tmp_path):
    one = run(tmp_path / "one", MATRIX, "--device", "cpu", "--threads", "1", "--jobs", "1", PYTHONHASHSEED="1", OMP_NUM_THREADS="3")
    other = run(tmp_path / "another place ü", MATRIX, "--device", "cpu", "--threads", "1", "--jobs", "3", PYTHONHASHSEED="2")
    assert_same(one, other)
    stages = {Path(name).parts[0] for name in results(one[1])}
    assert stages == {"train", "sample", "extractor", "classifier", "reference", "features", "evaluate", "throughput"}
    for row in rows(one[0]).values():
        assert row["status"] == "ok" and row["threads"] == 1 and len(row["left_out"]) > 5, "every metric is in it"


@pytest.mark.gpu
@pytest.mark.slow
def test_in_deterministic_mode_two_runs_on_a_gpu_have_the_same_bits(tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    content = MATRIX | {"run": {"deterministic": True}}
    one = run(tmp_path / "one", content, "--device", "cuda:0", "--threads", "1", PYTHONHASHSEED="1")
    other = run(tmp_path / "other", content, "--device", "cuda:0", "--threads", "1", PYTHONHASHSEED="2")
    assert_same(one, other)
