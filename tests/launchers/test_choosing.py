"""From --launcher to a launcher: names, addresses, strangers, and what is said where it cannot be."""

import json
import subprocess
import sys

import pytest

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Launcher
from diffbench.registry import Registry
from tests.test_engine import MATRIX
from tests.test_registry import distribution


class Queue(Launcher):
    """Remembers what it was opened with."""

    def __init__(self, address, device):
        self.opened = address, device

    @classmethod
    def open(cls, address, device):
        return cls(address, device)

    def capacity(self, device, widest, jobs):
        return Capacity(slots=1, threads=1, machines=1)

    def submit(self, job):
        """Nothing is run here."""

    def poll(self, seconds):
        return []

    def cancel(self, id):
        """Nothing is run here."""

    def close(self):
        """Nothing is run here."""


HOOKS = """
from diffbench import hookimpl
@hookimpl
def diffbench_launchers():
    return {"queue": "tests.launchers.test_choosing:Queue", "broken": "night_hooks:nothing", "odd": "night_hooks:HOOKS", **MORE}
HOOKS, MORE = 1, {}
"""


@pytest.fixture
def registry(tmp_path, monkeypatch):
    distribution(tmp_path, "night-pack", "[diffbench]\nhooks = night_hooks\n", {"night_hooks": HOOKS})
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry()
    sys.modules.pop("night_hooks", None)


@pytest.mark.parametrize(("text", "address"), [("queue", ""), ("queue:night", "night"), ("queue://head:6379", "head:6379"), ("queue:a://b", "a://b")])
def test_a_stranger_s_launcher_gets_its_address(registry, text, address):
    assert registry.launcher(text)("cuda").opened == (address, "cuda")


@pytest.mark.parametrize(("text", "said"), [
    ("quee", "--launcher: no launcher named 'quee'. Did you mean 'queue'? Known: broken, local, odd, queue, ray, slurm"),
    ("", "no launcher named ''"),
    ("broken", "launcher broken cannot be used: importing night_hooks:nothing failed with AttributeError"),
    ("odd", "night_hooks:HOOKS is not a subclass of diffbench.launchers.Launcher")])
def test_what_cannot_be_used_is_said_in_a_sentence(registry, text, said):
    with pytest.raises(DiffbenchError) as caught:
        registry.launcher(text)
    assert said in str(caught.value)


def test_two_launchers_of_one_name_are_an_error(registry):
    sys.modules["night_hooks"].MORE["local"] = "night_hooks:Local"
    with pytest.raises(DiffbenchError, match="2 packages offer a launcher named 'local': .*night_hooks:Local"):
        registry.launcher("local")


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"diffbench.launchers.{name}", raising=False)
    with pytest.raises(DiffbenchError) as caught:
        Registry().launcher(name)
    assert f"launcher {name} needs `pip install 'diffbench[{name}]'`" in str(caught.value)


@pytest.mark.parametrize(("text", "device", "said"), [("local:here", "cpu", "local has no address"), ("slurm", "cuda:1", "use --device cuda"),
                                                      ("ray", "cuda:1", "use --device cuda")])
def test_an_address_or_a_device_that_makes_no_sense_is_refused(text, device, said):
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}.get(text, "os"))
    with pytest.raises(DiffbenchError, match=said):
        Registry().launcher(text)(device)


def test_nothing_of_a_cluster_is_imported_unless_asked_for():
    code = ("import sys, diffbench; registry = diffbench.load_registry(); registry.launcher('local'); import diffbench.api; "
            "sys.exit(len({'ray', 'submitit'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_command_line_says_so_before_anything_is_run(tmp_path):
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(json.dumps(MATRIX))
    done = subprocess.run([sys.executable, "-m", "diffbench", "run", str(matrix), "--device", "cpu", "--launcher", "rya"], capture_output=True, text=True,
                          cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and "no launcher named 'rya'. Did you mean 'ray'?" in done.stderr
    assert not list(tmp_path.glob("runs"))
