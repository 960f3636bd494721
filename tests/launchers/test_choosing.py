"""From --launcher to a launcher: names, addresses, strangers, and what is said where it cannot be."""

import json
import subprocess
import sys

import pytest

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Launcher
from diffbench.launchers.choosing import chosen
from tests.registry.test_registry import distribution
from tests.running.test_engine import MATRIX


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


POINTS = """[diffbench.launcher]
queue = tests.launchers.test_choosing:Queue
broken = night_queue:nothing
odd = night_queue:NUMBER
local = night_queue:NUMBER
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    distribution(tmp_path, "night-pack", POINTS, {"night_queue": "NUMBER = 1\n"})
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("night_queue", None)


@pytest.mark.parametrize(("text", "address"), [("queue", ""), ("queue:night", "night"), ("queue://head:6379", "head:6379"), ("queue:a://b", "a://b")])
def test_a_stranger_s_launcher_gets_its_address(installed, text, address):
    assert chosen(text)("cuda").opened == (address, "cuda")


@pytest.mark.parametrize(("text", "said"), [
    ("quee", "--launcher: no launcher named 'quee'. Did you mean 'queue'? Known: broken, local, odd, queue, ray, slurm"),
    ("", "no launcher named ''"),
    ("broken", "launcher broken of night-pack cannot be used: importing night_queue:nothing failed with AttributeError"),
    ("odd", "night_queue:NUMBER is not a subclass of diffbench.launchers.Launcher")])
def test_what_cannot_be_used_is_said_in_a_sentence(installed, text, said):
    with pytest.raises(DiffbenchError) as caught:
        chosen(text)
    assert said in str(caught.value)


def test_two_launchers_of_one_name_are_an_error(installed):
    with pytest.raises(DiffbenchError, match="--launcher: 2 packages offer a launcher named 'local': diffbench, night-pack. Uninstall all but one"):
        chosen("local")


@pytest.mark.parametrize(("name", "package"), [("ray", "ray"), ("slurm", "submitit")])
def test_a_missing_extra_is_named(monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"diffbench.launchers.{name}", raising=False)
    with pytest.raises(DiffbenchError) as caught:
        chosen(name)
    assert f"--launcher: launcher {name} needs pip install 'diffbench[{name}]': importing " in str(caught.value)


@pytest.mark.parametrize(("text", "device", "said"), [("local:here", "cpu", "local has no address"), ("slurm", "cuda:1", "use --device cuda"),
                                                      ("ray", "cuda:1", "use --device cuda")])
def test_an_address_or_a_device_that_makes_no_sense_is_refused(text, device, said):
    if package := {"slurm": "submitit", "ray": "ray"}.get(text):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'diffbench[{text}]'")
    with pytest.raises(DiffbenchError, match=said):
        chosen(text)(device)


def test_nothing_of_a_cluster_is_imported_unless_asked_for():
    code = ("import sys, diffbench; from diffbench.launchers.choosing import chosen; chosen('local'); import diffbench.api.running; "
            "sys.exit(len({'ray', 'submitit'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], timeout=600).returncode == 0


def test_the_command_line_says_so_before_anything_is_run(tmp_path):
    matrix = tmp_path / "matrix.yaml"
    matrix.write_text(json.dumps(MATRIX))
    done = subprocess.run([sys.executable, "-m", "diffbench", "run", str(matrix), "--device", "cpu", "--launcher", "rya"], capture_output=True, text=True,
                          cwd=tmp_path, timeout=600)
    assert done.returncode == 2 and "no launcher named 'rya'. Did you mean 'ray'?" in done.stderr
    assert not list(tmp_path.glob("runs"))
