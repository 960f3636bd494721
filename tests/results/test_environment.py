"""What is noted of the machine and the software: true, whole, without secrets, quick; and which differences may change bits."""

import copy
import json
import os
import re
import shutil
import subprocess
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import diffbench
from diffbench.cli import doctor
from diffbench.results import environment
from tests.registry.test_registry import distribution

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments], check=True, capture_output=True)


@pytest.fixture
def project(tmp_path):
    """A repository with a committed matrix in a folder of its own."""
    folder = tmp_path / "project"
    (folder / "matrices").mkdir(parents=True)
    (folder / "matrices" / "one.yaml").write_text("diffbench: 1\n")
    git(folder, "init", "-q")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    return folder


@pytest.fixture(scope="module")
def here():
    return environment.environment("cpu")


def test_every_part_is_documented_and_nothing_else_is(here):
    text = (Path(diffbench.__file__).parents[1] / "docs" / "reproducing.md").read_text()
    table = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert table == list(here) and set(environment.DECISIVE) < set(here)
    assert json.loads(json.dumps(here)) == here, "it is JSON, and comes back as it was"


def test_versions_are_those_of_the_installation_and_whatever_is_needed_is_there(here):
    from packaging.requirements import Requirement

    for name, version in here["packages"].items():
        assert metadata.version(name) == version, name
    for needed in map(Requirement, metadata.requires("diffbench")):
        if needed.marker is None or needed.marker.evaluate({"extra": ""}):
            assert needed.name.lower().replace(".", "-") in here["packages"], needed
    assert "numpy" in here["packages"] and "scipy" in here["packages"], "also what others need"
    assert "pytest" not in here["packages"], "extras are no part of what computes"


def test_the_machine_is_as_torch_tells_it(here):
    assert here["cpu_capability"] == torch.backends.cpu.get_cpu_capability() and here["machine"]["torch"] == str(torch.__version__)
    assert here["settings"]["cudnn"] == ("tf32" if torch.backends.cudnn.allow_tf32 else "ieee") and here["settings"]["deterministic"] is False
    assert here["gpus"] == [] and here["gpu_software"] is None, "a run on a CPU looks at no GPU"


def test_switches_of_torch_are_read_and_may_change_bits(here):
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        found = environment.differences(here, environment.environment("cpu", is_deterministic=True))
    finally:
        torch.set_float32_matmul_precision(before)
    assert {"settings.deterministic", "settings.float32_matmul_precision"} <= {change.what for change in found}
    assert "float32_matmul_precision highest then, medium now" in map(str, found)


def test_gpus_are_told_with_their_drivers(monkeypatch):
    """By a double of torch: the real thing is below."""
    properties = SimpleNamespace(name="H100", total_memory=80 * 2**30, uuid="12-34", major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 27, 3))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(environment, "nvidia_driver", lambda: "580.1")
    found = environment._devices("cuda")
    assert found["gpus"] == [{"name": "H100", "memory_bytes": 80 * 2**30, "uuid": "GPU-12-34", "compute_capability": "9.0"}] * 2
    assert found["gpu_software"] | {"nccl": None} == {"driver": "580.1", "cuda": torch.version.cuda, "cudnn": 91002, "nccl": None}


@pytest.mark.gpu
def test_a_real_gpu_is_told():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    found = environment.environment("cuda")
    assert len(found["gpus"]) == torch.cuda.device_count() and found["gpus"][0]["name"] == torch.cuda.get_device_name(0)
    assert all(found["gpu_software"][name] for name in ("driver", "cuda", "cudnn"))


@needs_git
def test_the_commit_of_the_project_a_matrix_lies_in(project):
    commit = subprocess.run(["git", "-C", project, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    matrix = project / "matrices" / "one.yaml"
    state = environment.environment("cpu", matrix=matrix)["git"]["project"]
    assert state == {"commit": commit, "is_dirty": False, "matrix": "matrices/one.yaml"}
    (project / "matrices" / "two.yaml").write_text("diffbench: 1\n")
    assert environment._project(project / "matrices" / "two.yaml") == {"commit": commit, "is_dirty": False, "matrix": None}, "not committed"
    matrix.write_text("diffbench: 2\n")
    assert environment._project(matrix)["is_dirty"] is True and environment.git_commit(project) == f"{commit}+changes"


@needs_git
def test_no_commit_is_told_outside_a_repository_and_of_a_copy_inside_somebody_s(project, tmp_path):
    (project / "venv").mkdir()
    assert environment.git_state(project / "venv") is None and environment.git_commit(project / "venv") is None
    assert environment._project(tmp_path / "matrix.yaml") is None
    assert environment.environment("cpu")["git"]["project"] is None, "a matrix that is no file lies nowhere"


@needs_git
def test_a_repository_that_takes_long_or_is_broken_is_not_waited_for(project, monkeypatch):
    monkeypatch.setattr(environment, "GIT_SECONDS", 0.0)
    assert environment.git_state(project) is None
    monkeypatch.undo()
    (project / ".git" / "index").write_bytes(b"no index")
    assert environment._state(project)["is_dirty"] is None, "neither clean nor dirty"


@needs_git
def test_plug_ins_are_told_with_what_they_offer_and_their_commit_where_they_are_edited(project, tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    distribution(site, "my-pack", "[diffbench.scheduler]\nrk4 = my_pack:Rk4\n[console_scripts]\nx = y:z\n", {"my_pack": ""})
    info = next(site.glob("*.dist-info"))
    monkeypatch.syspath_prepend(site)
    (plain,) = (p for p in environment._plugins() if p["distribution"] == "my-pack")
    assert plain["entry_points"] == {"diffbench.scheduler:rk4": "my_pack:Rk4"} and not plain["is_editable"] and plain["git"] is None
    (info / "direct_url.json").write_text(json.dumps({"url": (project / "matrices").as_uri(), "dir_info": {"editable": True}}))
    (edited,) = (p for p in environment._plugins() if p["distribution"] == "my-pack")
    assert edited["is_editable"] and edited["git"] == environment.git_state(project) and edited["version"] == metadata.version("my-pack")
    assert "my-pack" in environment.environment("cpu")["packages"]


def test_variables_are_ours_and_those_that_choose_kernels_and_no_secret_is_told():
    given = {"DIFFBENCH_HOME": "/a", "DIFFBENCH_MY_TOKEN": "hush", "DIFFBENCH_MIRROR": "https://me:hush@host/x", "AWS_SECRET_ACCESS_KEY": "hush", "HOME": "/b",
             "OMP_NUM_THREADS": "4", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "NVIDIA_TF32_OVERRIDE": "0", "MKL_CBWR": "AVX2", "ATEN_CPU_CAPABILITY": "avx2",
             "OPENAI_KEY": "hush", "PYTORCH_CUDA_ALLOC_CONF": "x"}
    found = environment._variables(given)
    assert "hush" not in json.dumps(found) and not {"HOME", "AWS_SECRET_ACCESS_KEY", "OPENAI_KEY"} & set(found)
    assert set(found) == set(given) - {"HOME", "AWS_SECRET_ACCESS_KEY", "OPENAI_KEY"} and list(found) == sorted(found)
    assert found["DIFFBENCH_MY_TOKEN"] == "***" and found["DIFFBENCH_MIRROR"] == "https://***@host/x" and found["MKL_CBWR"] == "AVX2"
    for word, said in (("ray://me:hush@host:1", "ray://***@host:1"), ("x.api_key=hush", "x.api_key=***"), ("train.steps=5", "train.steps=5")):
        assert environment.without_secrets(word) == said


@pytest.mark.parametrize(("part", "name", "value", "is_decisive"), [
    ("packages", "torch", "1.0", True), ("packages", "nvidia-cublas", "1.0", True), ("packages", "stranger", "1.0", True), ("packages", "click", "1.0", False),
    ("packages", "diffbench", "9", False), ("variables", "MKL_CBWR", "AVX2", True), ("variables", "OMP_NUM_THREADS", "64", False), ("variables", "OMP_WAIT_POLICY", "passive", False),
    ("variables", "DIFFBENCH_HOME", "/z", False), ("variables", "PYTHONHASHSEED", "5", False), ("variables", "CUDA_HOME", "/z", False),
    ("settings", "mkldnn", "other", True), ("git", "project", "other", False), ("request", "jobs", 64, False),
])
def test_what_may_change_bits_is_named_and_nothing_else(here, part, name, value, is_decisive):
    other = copy.deepcopy(here)
    before = other[part].get(name)
    other[part][name] = value
    found = environment.differences(here, other)
    assert found == ([environment.Change(f"{part}.{name}", before, value)] if is_decisive else [])
    if is_decisive:
        assert str(found[0]) == f"{name} {'absent' if before is None else before} then, {value} now"


def test_how_many_gpus_there_are_changes_nothing_and_which_kind_does(here):
    def gpus(*names):
        return here | {"gpus": [{"name": name, "compute_capability": "9.0", "uuid": f"GPU-{i}"} for i, name in enumerate(names)]}
    assert environment.differences(gpus("H100"), gpus("H100", "H100")) == []
    assert [str(c) for c in environment.differences(gpus("H100"), gpus("H200"))] == ["gpus H100 then, H200 now"]


def test_an_earlier_format_says_less_and_that_is_no_difference(here):
    earlier = {"python": here["python"], "packages": {"torch": "1.0", "numpy": here["packages"]["numpy"]}}
    assert [change.what for change in environment.differences(earlier, here)] == ["packages.torch"]


def test_it_takes_less_than_a_third_of_a_second():
    def seconds():
        start = sum(os.times()[:4])                       # of the processor, that of git and others it asks included
        environment.environment("cpu", matrix=Path(__file__))
        return sum(os.times()[:4]) - start
    assert min(seconds() for _ in range(5)) < 0.3


def test_doctor_prints_it(here):
    said = CliRunner().invoke(doctor.command, ["--environment"], catch_exceptions=False).output
    assert set(json.loads(said)) == set(here) and json.loads(said)["packages"] == here["packages"]
