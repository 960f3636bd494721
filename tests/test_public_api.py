"""The public interface is the reviewed one, is typed, and types what strangers write."""

import subprocess
import sys
from pathlib import Path

import pytest

import diffbench
from tests import public_api

ROOT = Path(__file__).resolve().parents[1]
AGAIN = "where it was changed on purpose: python -m tests.public_api"
STRANGER = '''\
from dataclasses import dataclass

from torch import Tensor

import diffbench


@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Lazy(diffbench.Scheduler):
    """One jump to the prediction."""

    steps: int = 1

    def step(self, denoise: diffbench.Denoise, schedule: diffbench.NoiseSchedule, x_t: Tensor, t: float, s: float, state: None,
             noise: diffbench.Noise) -> tuple[Tensor, None]:
        alpha, sigma = schedule.scales(s)
        x0_hat, eps_hat, _ = denoise(x_t, t)
        return alpha * x0_hat + sigma * eps_hat, None


rows = diffbench.load("runs/here")
reveal_type(Lazy().steps)
reveal_type(diffbench.sample)
diffbench.no_such_name
Lazy().step(1)
'''


def test_the_interface_is_the_reviewed_one():
    assert public_api.PAGE.read_text() == public_api.page(), AGAIN


def test_type_checkers_see_the_names_that_exist():
    assert public_api.STUB.read_text() == public_api.stub(), AGAIN
    assert {line.rpartition(" ")[2] for line in public_api.STUB.read_text().splitlines() if line.startswith("from ")} == set(diffbench.__all__)


def test_every_module_with_a_public_name_is_checked_by_mypy():
    configured = (ROOT / "pyproject.toml").read_text().partition("[tool.mypy]")[2]
    for module in diffbench._HOMES:
        assert f'"{module.replace(".", "/")}.py"' in configured, f"{module} holds public names: name it under [tool.mypy] files"


def mypy(*arguments, folder=ROOT):
    return subprocess.run([sys.executable, "-m", "mypy", "--no-error-summary", "--no-incremental", *arguments], cwd=folder, capture_output=True, text=True, timeout=500)


@pytest.mark.slow
def test_the_public_modules_are_typed():
    done = mypy()
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_what_a_stranger_writes_is_checked_against_the_interface(tmp_path):
    """Names that exist have their types, also under the decorator; a name that does not exist and a wrong call are found."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    done = mypy("--strict", "--config-file", "", "stranger.py", folder=tmp_path)
    said = [line for line in done.stdout.splitlines() if line.startswith("stranger.py")]
    assert 'Revealed type is "int"' in said[0] and "def (denoise: " in said[1], done.stdout
    assert any('has no attribute "no_such_name"' in line for line in said) and any("Missing positional arguments" in line or "Too few" in line for line in said)
    errors = [line for line in said if ": error:" in line]
    wrong = STRANGER.splitlines().index("diffbench.no_such_name") + 1
    assert {int(line.split(":")[1]) for line in errors} == {wrong, wrong + 1}, done.stdout
