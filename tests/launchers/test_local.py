"""The local launcher: the suite, and what only it promises."""

import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue

import pytest

from diffbench.errors import DiffbenchError, NoWorkers
from diffbench.launchers import Capacity
from diffbench.launchers.gpus import Gpus, visible_gpus
from diffbench.launchers.local import LocalLauncher
from diffbench.testing import launching
from diffbench.testing.bench import Driver, await_end, noted_pids
from tests.launchers import gone, run


def make():
    return LocalLauncher(gpus=["5", "GPU-8932f937"])


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    with launching.Bench("tests.launchers.test_local:make", tmp_path_factory.mktemp("local bench ü"), gpus=2) as bench:
        yield bench


@pytest.mark.parametrize("check", launching.CHECKS, ids=lambda check: check.__name__)
def test_suite(bench, check):
    run(check, bench)


def workers(bench, count):
    """Workers that run until told, and their process numbers."""
    files = [(bench.file("flag"), bench.file("pids")) for _ in range(count)]
    jobs = [bench.submit("wait", file=str(flag), pids=str(pids)) for flag, pids in files]
    return jobs, [noted_pids(pids, job)[0] for job, (_, pids) in zip(jobs, files, strict=True)], [flag for flag, _ in files]


def test_a_fork_server_that_dies_costs_its_workers_and_the_launcher_goes_on(bench):
    jobs, pids, _ = workers(bench, 2)
    server = bench.launcher.processes.server.process
    server.kill()
    ends = bench.ends_of(*jobs)
    assert [end.code for end in ends] == [-9, -9] and all(end.is_lost and "forked from has ended" in end.reason for end in ends)
    await_end(pids)
    assert bench.ends_of(bench.submit("succeed"))[0].code == 0 and bench.launcher.processes.server.process.pid != server.pid


def test_a_fork_server_that_never_was_ready_is_said_to_be_none(tmp_path, monkeypatch):
    from diffbench.launchers import processes

    monkeypatch.setattr(processes.sys, "executable", "/bin/false")
    with pytest.raises(NoWorkers, match="the worker server ended with code 1 before it was ready; it said nothing") as raised:
        processes._Server(SimpleQueue())
    assert raised.value.exit_code == 1, "the request was right"
    (tmp_path / "python").write_text("#!/bin/sh\necho no such module >&2\nkill -9 $$\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(processes.sys, "executable", str(tmp_path / "python"))
    with pytest.raises(NoWorkers, match="the worker server was ended by signal 9 before it was ready; its last words: no such module"):
        processes._Server(SimpleQueue())


def test_a_fork_server_that_is_ended_while_it_starts_is_started_once_more(tmp_path, monkeypatch):
    from diffbench.launchers import processes

    first = tmp_path / "first"
    (tmp_path / "python").write_text(f"#!/bin/sh\nif [ ! -e '{first}' ]; then touch '{first}'; kill -9 $$; fi\necho '{{\"ready\": 1}}'\ncat\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(processes.sys, "executable", str(tmp_path / "python"))
    server = processes._start_server(SimpleQueue())
    assert first.exists() and not server.is_over
    server.close()


def test_a_worker_apart_ends_with_no_other(bench):
    jobs, pids, flags = workers(bench, 1)
    apart = bench.submit("succeed", is_apart=True)
    bench.launcher.processes.server.process.kill()
    ends = {end.id: end for end in bench.ends_of(*jobs, apart)}
    assert ends[jobs[0].id].is_lost and ends[apart.id].code == 0 and not bench.launcher.processes.apart
    await_end(pids)


def test_the_fork_server_ends_with_its_driver_even_while_it_starts(tmp_path):
    code = "import os, subprocess, sys; subprocess.Popen([sys.executable, '-m', 'diffbench.launchers.forkserver'], stdin=subprocess.PIPE, stdout=subprocess.PIPE)"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "DIFFBENCH_TEST_MARK": str(tmp_path)}, check=True)
    gone(tmp_path)


def test_jobs_start_in_their_order_and_an_exclusive_one_is_alone(bench):
    bench.close()
    before = [bench.submit("succeed", seconds=0.3) for _ in range(2)]
    alone = bench.submit("succeed", seconds=0.3, exclusive=True)
    after = [bench.submit("succeed") for _ in range(2)]
    bench.ends_of(*before, alone, *after)
    begun, ended = (bench.facts(alone)[name] for name in ("begun", "ended"))
    assert all(bench.facts(job)["ended"] <= begun for job in before) and all(bench.facts(job)["begun"] >= ended for job in after)


@pytest.fixture
def spawning(monkeypatch):
    from diffbench.launchers import processes

    monkeypatch.setattr(processes, "CAN_FORK", False)


@pytest.mark.parametrize("check", [launching.failures, launching.logs, launching.cancelling, launching.leaking], ids=lambda check: check.__name__)
def test_spawned_workers_pass_too(spawning, tmp_path, check):
    with launching.Bench("tests.launchers.test_local:make", tmp_path) as bench:
        check(bench)


SPAWNS = """
import sys, time
from pathlib import Path
from diffbench.launchers import processes
from diffbench.testing import launching
from diffbench.testing.bench import Driver, noted_pids
from diffbench.testing.bench import await_end
processes.CAN_FORK = False
bench = launching.Bench("tests.launchers.test_local:make", Path(sys.argv[1])).__enter__()
bench.submit("hang", pids=sys.argv[1] + "/pids")
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_spawned_worker_ends_with_a_driver_that_is_killed(tmp_path):
    environment = {**os.environ, "DIFFBENCH_TEST_MARK": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    driver = subprocess.Popen([sys.executable, "-c", SPAWNS, str(tmp_path)], env=environment)
    noted_pids(tmp_path / "pids", Driver(driver, Path(os.devnull)))
    driver.kill()
    driver.wait()
    gone(tmp_path)


UNTOUCHED = """
import torch
def touched(*_, **__):
    raise AssertionError("CUDA is touched")
for name in ("_lazy_init", "is_available", "device_count", "current_device", "init"):
    setattr(torch.cuda, name, touched)
for name in ("_cuda_init", "_cuda_getDeviceCount"):
    if hasattr(torch._C, name):
        setattr(torch._C, name, touched)
from diffbench.launchers import forkserver
forkserver.preload()
import os, sys
assert not torch.cuda.is_initialized()
assert "torch._dynamo" in sys.modules
with open("/proc/self/maps") as maps:
    assert "libcuda.so" not in maps.read(), "the driver of the GPU is loaded"
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
def test_the_fork_server_never_touches_cuda():
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], capture_output=True, text=True, timeout=200, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert "CUDA is touched" not in done.stderr and "Error" not in done.stderr, done.stderr


def test_gpus_are_given_out_whole_or_in_shares():
    gpus = Gpus(["0", "GPU-1f", "2"])
    assert gpus.take(2.0) == ["0", "GPU-1f"] and gpus.take(2.0) is None
    thirds = [gpus.take(1 / 3) for _ in range(3)]
    assert thirds == [["2"]] * 3 and gpus.take(1 / 3) is None
    gpus.give_back(["0", "GPU-1f"], 2.0)
    assert gpus.take(1 / 2) == ["0"] and gpus.take(1 / 2) == ["GPU-1f"], "shares are spread"
    assert gpus.take(1.0) is None
    for names in thirds:
        gpus.give_back(names, 1 / 3)
    assert gpus.take(1.0) == ["2"], "three thirds are a whole again"
    with pytest.raises(DiffbenchError, match="4 GPUs are needed at once, and 3 can be seen"):
        gpus.take(4.0)


@pytest.mark.parametrize(("shown", "device", "names"), [
    (None, "cuda", ["0", "1", "2"]), (None, "cuda:1", ["1"]), ("5,3", "cuda", ["5", "3"]), ("5,3", "cuda:1", ["3"]),
    ("GPU-8932f937,GPU-1f, GPU-2e", "cuda", ["GPU-8932f937", "GPU-1f", "GPU-2e"]), ("MIG-a", "cuda", ["MIG-a"]), ("", "cuda", [])])
def test_a_selection_of_gpus_by_the_user_or_a_cluster_is_kept(monkeypatch, shown, device, names):
    import torch

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3 if shown is None else len([n for n in shown.split(",") if n]))
    assert visible_gpus(device) == names


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(DiffbenchError, match="--device cuda:7: there is no such GPU, 1 can be seen"):
        visible_gpus("cuda:7")


@pytest.mark.parametrize(("device", "widest", "jobs", "expected"), [
    ("cpu", 1, None, (1, 8, 0.0)), ("cpu", 100, None, (8, 1, 0.0)), ("cpu", 100, 3, (3, 2, 0.0)),
    ("cuda", 100, None, (2, 4, 1.0)), ("cuda", 1, None, (1, 8, 1.0)), ("cuda", 100, 4, (4, 2, 0.5)), ("cuda", 100, 3, (3, 2, 0.5)), ("cuda", 9, 6, (6, 1, 1 / 3))])
def test_cores_and_gpus_are_divided_among_the_workers(monkeypatch, device, widest, jobs, expected):
    monkeypatch.setattr("diffbench.launchers.local.cores", lambda: 8)
    capacity = make().capacity(device, widest, jobs)
    assert (capacity.slots, capacity.threads, capacity.gpus) == expected


def test_threads_that_are_asked_for_change_the_number_of_workers_unless_that_was_asked_for_too():
    capacity = Capacity(slots=8, threads=1, machines=1)
    assert capacity.with_threads(4, keeps_slots=False).slots == 2
    assert capacity.with_threads(16, keeps_slots=False).slots == 1
    kept = capacity.with_threads(4, keeps_slots=True)
    assert (kept.slots, kept.threads, kept.machine_threads) == (8, 4, 4)
