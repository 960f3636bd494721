"""Strangers' packages, each installed for real into a place of its own: found, listed, checked, run in a matrix, and blamed by name when an import fails."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(1500)                    # a minute alone on one core, many times that beside other tests
PACKAGES = Path(__file__).parent / "third_party"
HANGS = 1200                                              # seconds


def install(package, folder, store, *, broken=False):
    """pip-installs a package into a folder of its own; returns the environment in which it is found."""
    source = folder / "source"
    shutil.copytree(PACKAGES / package, source)
    if broken:
        module = source / f"{package}.py"
        module.write_text("import a_library_nobody_has\n" + module.read_text())
    site = folder / "site"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site, source], check=True)
    return {**os.environ, "PYTHONPATH": str(site), "DIFFBENCH_HOME": str(store), "OMP_NUM_THREADS": "1"}


def python(environment, cwd, code):
    """What a program prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=cwd, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rows_of(folder, name):
    return [json.loads(p.read_bytes()) for p in (folder / "runs" / name / "cells").glob("*.json")]


def diffbench(environment, cwd, *arguments):
    return subprocess.run([sys.executable, "-m", "diffbench", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=HANGS)


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
    return folder, install("my_samplers", folder, shared_folder / "store")


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
    records = rows_of(folder, "strangers")
    assert {(r["scheduler"], r["steps"], r["status"]) for r in records} == {
        ("my-samplers.rk4", 2, "ok"), ("my-samplers.rk4", 3, "ok"), ("my-samplers.rk4", 20, "ok"), ("ddim", 2, "ok")}
    assert {r["nfe"] for r in records} == {5, 9, 77, 2}
    assert all("my-samplers 0.3" in r["origins"] for r in records if r["scheduler"] != "ddim")


def test_it_is_blamed_by_name_when_its_import_fails(tmp_path):
    environment = install("my_samplers", tmp_path, tmp_path / "store", broken=True)
    (tmp_path / "matrix.yaml").write_text(MATRIX)
    done = diffbench(environment, tmp_path, "run", "matrix.yaml", "--device", "cpu")
    assert done.returncode == 2
    assert "matrix.yaml:6:16: axes.scheduler[0].rk4: scheduler 'my-samplers.rk4' of my-samplers 0.3 cannot be used: importing my_samplers:Rk4 failed with " \
           "ModuleNotFoundError: No module named 'a_library_nobody_has'" in done.stderr
    assert "Traceback" not in done.stderr
    (tmp_path / "matrix.yaml").write_text(MATRIX.replace("{rk4: {steps: [2, 3]}}, my-samplers.rk4, ", ""))
    assert diffbench(environment, tmp_path, "plan", "matrix.yaml", "--device", "cpu").returncode == 0, "others are not touched"
    assert "my-samplers.rk4" in diffbench(environment, tmp_path, "list").stdout


@pytest.fixture(scope="module")
def u_vit(tmp_path_factory, shared_folder):
    folder = tmp_path_factory.mktemp("u_vit")
    return folder, install("u_vit", folder, shared_folder / "store")


def test_a_backbone_conforms(u_vit):
    folder, environment = u_vit
    done = diffbench(environment, folder, "check", "--quick", "u-vit")
    assert done.returncode == 0 and "failed" not in done.stdout and "backbone u-vit.u_vit: " in done.stdout, done.stdout


def test_u_vit_has_the_parameters_of_its_paper(u_vit):
    """In millions, Bao et al. 2023; M and L with a table of the 1,000 classes and of none, which here is the conditioning's."""
    folder, environment = u_vit
    found = python(environment, folder, """
import json, torch, diffbench
registry, counts = diffbench.load_registry(), {}
for preset in "SML":
    backbone = registry.create("backbone", "u-vit.u_vit", preset=preset)
    io = diffbench.Io(shape=(3 if preset == "S" else 4, 32, 32), signal_width=backbone.signal_width, ports=frozenset({"vector"}))
    with torch.device("meta"):
        counts[preset] = (sum(p.numel() for p in backbone.build(io).parameters()) + (preset != "S") * 1001 * backbone.width) / 1e6
print(json.dumps(counts))
""")
    assert {preset: round(count) for preset, count in found.items()} == {"S": 44, "M": 131, "L": 287}


SHAPES = """\
diffbench: 1
name: shapes
dataset: {stripes: {size: 16}}
axes:
  backbone: {unet: {channels: 8, multipliers: [1, 2], blocks: 1}}
  scheduler: [{ddim: {steps: 2}}, {ddim: {steps: 3}}]
train: {steps: 2, batch_size: 8}
sample: {count: 80}
throughput: {repeats: 3, batch_size: 2}
metrics: [fid, rank_kept]
"""


@pytest.mark.slow
def test_a_data_set_a_metric_and_a_tracker_of_one_package(tmp_path):
    environment = install("more_shapes", tmp_path, tmp_path / "store")
    checked = diffbench(environment, tmp_path, "check", "--quick", "more-shapes")
    assert checked.returncode == 0 and {"dataset more-shapes.stripes", "metric more-shapes.rank_kept"} <= {
        line.partition(": ")[0] for line in checked.stdout.splitlines()}, checked.stdout
    (tmp_path / "matrix.yaml").write_text(SHAPES)
    done = diffbench(environment, tmp_path, "run", "matrix.yaml", "--device", "cpu", "--tracker", "one_line")
    assert done.returncode == 0, done.stderr
    rows = rows_of(tmp_path, "shapes")
    assert {row["dataset"] for row in rows} == {"more-shapes.stripes"} and all(0 <= row["rank_kept_dataset_classifier"] for row in rows)
    written = (tmp_path / "runs" / "shapes" / "cells.txt").read_text().splitlines()
    assert sorted(written[:2]) == sorted(f"{row['cell_id']} ok" for row in rows) and written[2:] == ["finished 2"]


@pytest.fixture(scope="module")
def adapter(tmp_path_factory, shared_folder):
    pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'diffbench[parity]'")
    folder = tmp_path_factory.mktemp("diffusers")
    return folder, install("diffbench_diffusers", folder, shared_folder / "store")


@pytest.mark.slow
def test_peers_conform(adapter):
    folder, environment = adapter
    peers = ["unet2d", "unet2d_condition", "dit", "times_of", "ddim", "dpm_solver_singlestep", "heun_discrete", "pndm", "flow_match_euler_discrete"]
    done = diffbench(environment, folder, "check", "--quick", *(f"diffusers.{name}" for name in peers))
    assert "failed" not in done.stdout and done.stdout.count(" passed, ") > len(peers) - 1, done.stdout
    wrong = [line for line in done.stderr.splitlines() if line.startswith("diffbench: ")]
    assert all("and every worker waits for it" in line for line in wrong), "only that diffusers imports slowly, on a busy machine"
    assert done.returncode == (1 if wrong else 0), done.stderr


def test_every_peer_can_be_named_as_diffusers_names_it(adapter):
    folder, environment = adapter
    found = python(environment, folder, """
import json, diffbench
from diffbench_diffusers.hooks import scheduler_names
registry = diffbench.load_registry()
print(json.dumps([(name, registry.create("scheduler", f"diffusers:{name}", steps=7).component_name()) for name in scheduler_names()]))
""")
    assert len(found) >= 15 and ["DPMSolverSinglestepScheduler", "dpm_solver_singlestep"] in found


@pytest.mark.slow
def test_a_peer_through_the_adapter_gives_what_ours_gives_where_both_define_it(adapter):
    """On the exact denoiser of a Gaussian and the peer's own times: DDIM, Euler (the same in sigma/alpha) and Heun.

    Of DDIM's other grids only those divide: it steps from t to t - 1000 // steps, wherever its next time is.
    """
    folder, environment = adapter
    found = python(environment, folder, """
import json, torch, diffbench
from diffbench.diffusion import sampling
from diffbench.testing.oracles import GaussianData
registry, differences = diffbench.load_registry(), {}
for schedule in (registry.create("noise_schedule", name) for name in ("linear", "scaled_linear")):
    denoise = GaussianData(schedule=schedule, std=0.5)
    for ours, theirs, options in (("ddim", "DDIMScheduler", {}), ("ddim", "DDIMScheduler", {"timestep_spacing": "trailing"}),
                                  ("ddim", "EulerDiscreteScheduler", {"timestep_spacing": "trailing"}),
                                  ("heun", "HeunDiscreteScheduler", {"timestep_spacing": "trailing"})):
        peer = registry.create("scheduler", f"diffusers:{theirs}", steps=10, **options)
        spacing = registry.create("spacing", "diffusers.times_of", of=peer)
        x_T = sampling.initial(schedule, spacing, 10, range(16), (1, 8, 8))
        drawn = [diffbench.sample(denoise, schedule, s, x_T, seeds=range(16), spacing=spacing) for s in (registry.create("scheduler", ours, steps=10), peer)]
        differences[f"{theirs} {options} {schedule.component_name()}"] = [float((drawn[0].x_0 - drawn[1].x_0).abs().max()), *(d.nfe for d in drawn)]
print(json.dumps(differences))
""")
    for case, (difference, ours, theirs) in found.items():
        assert difference < 2e-5 and ours == theirs, (case, difference, ours, theirs)


PEERS = """\
diffbench: 1
name: peers
dataset: digits
axes:
  backbone: [{unet: {channels: 8, multipliers: [1, 2], blocks: 1}}, {diffusers.unet2d: {channels: 8, groups: 4}}]
  spacing: leading
  scheduler: [{ddim: {steps: 5}}, {"diffusers:DDIMScheduler": {steps: 5}}, {"diffusers:PNDMScheduler": {steps: 5}}]
train: {steps: 20, batch_size: 32}
sample: {count: 80}
throughput: {repeats: 3, batch_size: 2}
metrics: [fid]
"""


@pytest.mark.slow
def test_peers_are_rows_of_our_table_and_ddim_agrees(adapter):
    folder, environment = adapter
    (folder / "matrix.yaml").write_text(PEERS)
    done = diffbench(environment, folder, "run", "matrix.yaml", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    rows = {(row["backbone"], row["scheduler"]): row for row in rows_of(folder, "peers")}
    assert {row["status"] for name, row in rows.items() if name[1] != "diffusers.pndm"} == {"ok"}
    for backbone in ("unet", "diffusers.unet2d"):
        ours, theirs = rows[backbone, "ddim"], rows[backbone, "diffusers.ddim"]
        assert theirs["fd_dataset_classifier"] == pytest.approx(ours["fd_dataset_classifier"], rel=1e-3) and theirs["nfe"] == ours["nfe"] == 5
        assert "diffusers " in theirs["origins"]
