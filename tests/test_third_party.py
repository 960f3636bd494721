"""A stranger's package, installed for real: found, listed, run in a matrix, and blamed by name when its import fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "third_party" / "my_samplers"


def install(folder, store, *, broken=False):
    """pip-installs the package into a folder of its own; returns the environment in which it is found."""
    source = folder / "source"
    shutil.copytree(PACKAGE, source)
    if broken:
        module = source / "my_samplers.py"
        module.write_text("import a_library_nobody_has\n" + module.read_text())
    site = folder / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site, source], check=True)
    return {**os.environ, "PYTHONPATH": str(site), "DIFFBENCH_HOME": str(store)}


def diffbench(environment, cwd, *arguments):
    return subprocess.run([sys.executable, "-m", "diffbench", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=300)


MATRIX = """\
diffbench: 1
name: strangers
dataset: digits
axes:
  backbone: {dit: {patch: 4, width: 16, depth: 1, heads: 2}}
  scheduler: [{rk4: {steps: [2, 3]}}, my-samplers.rk4, {ddim: {steps: 2}}]
train: {steps: 2, batch_size: 8}
sample: {count: 8}
throughput: {repeats: 3, batch_size: 2}
metrics: [fid]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory, shared_folder):
    folder = tmp_path_factory.mktemp("stranger")
    return folder, install(folder, shared_folder / "store")


def test_it_is_found_listed_and_shown(installed):
    folder, environment = installed
    listed = json.loads(diffbench(environment, folder, "list", "scheduler", "--json").stdout)["components"]
    found = next(c for c in listed if c["name"] == "my-samplers.rk4")
    assert found["origin"] == "my-samplers 0.3" and found["summary"].startswith("Classical Runge-Kutta") and found["options"] == {"steps": "20"}
    shown = diffbench(environment, folder, "show", "scheduler", "rk4").stdout
    assert "my-samplers 0.3" in shown and "network evaluations: 77 for 20 steps" in shown


@pytest.mark.slow
def test_it_runs_in_a_matrix_beside_the_built_ins(installed):
    folder, environment = installed
    (folder / "matrix.yaml").write_text(MATRIX)
    done = diffbench(environment, folder, "run", "matrix.yaml", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_bytes()) for p in (folder / "runs" / "strangers" / "cells").glob("*.json")]
    assert {(r["scheduler"], r["steps"], r["status"]) for r in records} == {
        ("my-samplers.rk4", 2, "ok"), ("my-samplers.rk4", 3, "ok"), ("my-samplers.rk4", 20, "ok"), ("ddim", 2, "ok")}
    assert {r["nfe"] for r in records} == {5, 9, 77, 2}
    assert all("my-samplers 0.3" in r["origins"] for r in records if r["scheduler"] != "ddim")


def test_it_is_blamed_by_name_when_its_import_fails(tmp_path):
    environment = install(tmp_path, tmp_path / "store", broken=True)
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    done = diffbench(environment, tmp_path, "run", "matrix.yaml", "--device", "cpu")
    assert done.returncode == 2
    assert "matrix.yaml:6:16: axes.scheduler[0].rk4: scheduler 'my-samplers.rk4' of my-samplers 0.3 cannot be used: importing my_samplers:Rk4 failed with " \
           "ModuleNotFoundError: No module named 'a_library_nobody_has'" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "matrix.yaml").write_text(MATRIX.replace("{rk4: {steps: [2, 3]}}, my-samplers.rk4, ", ""))
    assert diffbench(environment, tmp_path, "plan", "matrix.yaml", "--device", "cpu").returncode == 0, "others are not touched"
    assert "my-samplers.rk4" in diffbench(environment, tmp_path, "list").stdout
