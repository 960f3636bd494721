"""Slurm: the suite on submitit's local executor; what a real queue is asked, from stand-ins of its commands."""

import os

import pytest

pytest.importorskip("submitit", reason="submitit is not installed: pip install 'diffbench[slurm]'")

from diffbench.errors import DiffbenchError
from diffbench.launchers import Ended, Job, Resources
from diffbench.testing import launching
from tests.launchers import run


def make():
    from diffbench.launchers.slurm import SlurmLauncher

    return SlurmLauncher(cluster="local")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with launching.Bench("tests.launchers.test_slurm:make", tmp_path_factory.mktemp("slurm bench ü"), many=5, outlives_driver=True) as bench:
        yield bench


@pytest.mark.slow
@pytest.mark.parametrize("check", launching.CHECKS, ids=lambda check: check.__name__)
def test_suite(bench, check):
    run(check, bench)


COMMANDS = {
    "sinfo": """case "$*" in *nowhere*) ;; *) printf '16|gpu:a100:4|1-02:00:00|night*\\n32|(null)|infinite|night*\\n64|(null)|infinite|day\\n' ;; esac""",
    "sbatch": """case "$(cat "$1")" in *forbidden*) echo 'invalid partition specified: forbidden' >&2; exit 1 ;; esac
cp "$1" "$HERE/submitted"; echo Submitted batch job 7""",
    "squeue": 'cat "$HERE/states"', "scancel": 'echo "$@" > "$HERE/cancelled"', "srun": "true",
}


@pytest.fixture
def queue(tmp_path, monkeypatch):
    """Slurm's commands as scripts that remember what they were asked."""
    monkeypatch.setenv("HERE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("diffbench.launchers.slurm.ASK_SECONDS", 0.0)
    (tmp_path / "bin").mkdir()
    for name, script in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    return tmp_path


def job(folder, **resources):
    (folder / "attempt").mkdir()
    return Job(id="abc", store=folder, attempt=folder / "attempt", resources=Resources(**resources))


def open_(address, device="cpu"):
    from diffbench.launchers.slurm import SlurmLauncher

    return SlurmLauncher.open(address, device)


def test_resources_become_what_sbatch_is_asked_for(queue):
    launcher = open_("night", "cuda")
    capacity = launcher.capacity("cuda", 500, None)
    assert (capacity.slots, capacity.threads, capacity.gpus, capacity.machine_threads) == (100, 4, 1.0, 16), "only one of the nodes has GPUs"
    launcher.submit(job(queue, device="cuda", threads=4, gpus=1.0, is_exclusive=True, seconds=3000.0))
    asked = (queue / "submitted").read_text()
    for line in ("--partition=night", "--cpus-per-task=4", "--gpus-per-node=1", "--exclusive", "--time=55", "--nodes=1"):
        assert f"#SBATCH {line}\n" in asked, asked


def test_a_stage_without_a_limit_may_take_what_the_partition_allows(queue):
    launcher = open_("")
    assert launcher.capacity("cpu", 3, None).slots == 3
    launcher.submit(job(queue, device="cpu", threads=4))
    asked = (queue / "submitted").read_text()
    assert f"--time={26 * 60}\n" in asked and "--exclusive" not in asked and "gpus" not in asked and "--partition" not in asked


@pytest.mark.parametrize("state", ["TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"])
def test_how_slurm_ended_a_job_is_the_reason(queue, state):
    launcher = open_("")
    launcher.submit(job(queue, device="cpu", threads=1))
    (queue / "states").write_text("7|RUNNING\n8|FAILED\n")
    assert launcher.poll(0) == []
    (queue / "states").write_text(f"7|{state}\n")
    assert launcher.poll(0) == [Ended(id="abc", code=-9, reason=f"Slurm says of its job 7: {state.lower().replace('_', ' ')}")]


def test_cancelling_and_closing_ask_scancel(queue):
    launcher = open_("")
    launcher.submit(job(queue, device="cpu", threads=1))
    (queue / "states").write_text("7|CANCELLED\n")
    launcher.close()
    assert (queue / "cancelled").read_text() == "7\n"


def test_what_slurm_refuses_is_said(queue):
    launcher = open_("forbidden")
    launcher.submit(job(queue, device="cpu", threads=1))
    (ended,) = launcher.poll(0)
    assert ended.code == 1 and "slurm refused the job" in ended.reason and "invalid partition specified" in ended.reason
    with pytest.raises(DiffbenchError, match="there is no partition nowhere"):
        open_("nowhere")
    with pytest.raises(DiffbenchError, match="no node of day has a GPU"):
        (queue / "bin" / "sinfo").write_text("#!/bin/sh\necho '64|(null)|infinite|day'\n")
        open_("day").capacity("cuda", 1, None)


def test_without_slurm_s_commands_that_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DiffbenchError, match="there is no sinfo here"):
        open_("night")
