"""No process of ours imports from the folder it works in, and none runs another diffbench than the one that planned."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffbench.errors import DiffbenchError
from diffbench.process import import_path
from diffbench.stages import worker
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from diffbench.testing import launching
from diffbench.testing.driving import exercise
from tests.helpers.runs import attempted

ROOT = Path(__file__).resolve().parents[2]
PROBE = "import json, random, sys\nprint(json.dumps([sys.path, random.__file__, sys.argv[1:], __name__]))\n"
SHADOWS = ("random.py", "queue.py", "types.py", "statistics.py", "numpy.py", "torch/__init__.py", "click/__init__.py",
           "diffbench/__init__.py")


@pytest.fixture
def crowded(tmp_path, monkeypatch):
    """A working folder in which every module that is imported from it ends the process."""
    for name in SHADOWS:
        (tmp_path / "here" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "here" / name).write_text("raise SystemExit('a file of the user was imported')\n")
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "probe.py").write_text(PROBE)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize("safe", ["", "1"])
def test_a_command_leaves_the_working_folder_out_and_keeps_pythonpath(crowded, safe):
    environment = {**os.environ, "PYTHONPATH": str(crowded / "library"), "PYTHONSAFEPATH": safe}
    done = subprocess.run(import_path.command("probe", "a", "b"), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    path, random, arguments, name = json.loads(done.stdout)
    assert path[0] == str(crowded / "library") and str(crowded / "here") not in path and "" not in path
    assert Path(random).parent == Path(os.__file__).parent and arguments == ["a", "b"] and name == "__main__"


def test_a_driver_from_the_working_folder_has_processes_from_there(tmp_path, monkeypatch):
    """A checkout beside an installation: its processes would run the other one."""
    package = tmp_path / "diffbench"
    for name in ("__init__.py", "process/__init__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()
    for name in ("errors.py", "process/import_path.py"):
        (package / name).write_text((ROOT / "diffbench" / name).read_text())
    (package / "where.py").write_text("print(__file__)\n")
    (package / "drive.py").write_text("import subprocess\nfrom diffbench.process import import_path\n"
                                      "print(subprocess.run(import_path.command('diffbench.where'), capture_output=True, text=True).stdout)\n")
    monkeypatch.chdir(tmp_path)
    done = python_m("diffbench.drive", PYTHONPATH=str(ROOT))
    assert done.stdout.strip() == str(package / "where.py"), done.stderr


def python_m(*words, **variables):
    return subprocess.run([sys.executable, "-m", *words], env=os.environ | variables, capture_output=True, text=True)


def test_python_m_diffbench_leaves_it_out_too(tmp_path, monkeypatch):
    """But for what Python itself imports before it comes to diffbench, and a diffbench/ there, which is what was asked for."""
    (tmp_path / "click.py").write_text("raise SystemExit('a file of the user was imported')\n")
    monkeypatch.chdir(tmp_path)
    for words in (("diffbench", "--help"), ("diffbench.launchers.child",)):
        done = python_m(*words)
        assert "a file of the user was imported" not in done.stderr, done.stderr
    assert "Usage" in python_m("diffbench", "--help").stdout


def test_another_program_keeps_its_import_path(tmp_path, monkeypatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("import diffbench\n")
    (tmp_path / "theirs" / "__main__.py").write_text("import beside\n")
    (tmp_path / "beside.py").write_text("print('theirs')\n")
    monkeypatch.chdir(tmp_path)
    assert python_m("theirs", PYTHONSAFEPATH="").stdout == "theirs\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is for Linux")
@pytest.mark.parametrize("can_fork", [True, False])
def test_workers_start_where_files_have_the_names_of_modules(crowded, monkeypatch, can_fork):
    monkeypatch.setattr("diffbench.launchers.processes.CAN_FORK", can_fork)
    monkeypatch.setenv("PYTHONPATH", "")
    with launching.Bench("tests.launchers.test_local:make", crowded / "bench") as bench:
        job = bench.submit("succeed")
        (ended,) = bench.ends_of(job)
        assert ended.code == 0, (job.attempt / "log.txt").read_text()


def test_no_process_of_ours_is_started_otherwise():
    """venv and pip run in folders of their own, see `benchmarks.speed.other_version`."""
    for path in (ROOT / "diffbench").rglob("*.py"):
        if path.name not in ("import_path.py", "other_version.py") and "scaffold" not in path.parts:
            assert not re.search(r"""sys\.executable, ["']-[mc]["']""", path.read_text()), path


OTHER = {"version": "0.0.9", "folder": "/elsewhere/diffbench", "sha256": "0" * 64}


def test_a_worker_of_another_version_refuses_and_says_which(tmp_path, monkeypatch):
    store, claims, stage = Store(tmp_path / "home"), Claims(), exercise("one", "succeed")
    store.prepare()
    attempt = attempted(store, claims, stage, {})
    task = json.loads((attempt / "task.json").read_bytes())
    assert task["execution"]["installation"] == import_path.installation()
    task["execution"]["installation"] = OTHER
    (attempt / "task.json").write_text(json.dumps(task))
    assert worker.run(str(store.root), str(attempt)) == 1 and not store.has(stage.name, stage.key)
    said = json.loads((attempt / "error.json").read_bytes())
    here = import_path.installation()
    assert said["kind"] == "request" and said["reason"] == (
        f"the worker has diffbench {here['version']} in {here['folder']}, and the run was planned by diffbench 0.0.9 in "
        "/elsewhere/diffbench: start it so that both import one of them")
    claims.close()


def test_files_that_were_changed_meanwhile_are_another_version():
    with pytest.raises(DiffbenchError, match="were changed since the run began: start it again"):
        import_path.refuse_another({**import_path.installation(), "sha256": "0" * 64})
    import_path.refuse_another({**import_path.installation(), "folder": "/the/same/elsewhere"})
