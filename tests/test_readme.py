"""What the README shows works as it stands."""

import re
from pathlib import Path

import pytest

from diffbench.matrix import loading, yaml_file
from tests.conftest import REGISTRY

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("text", [b for b in blocks("python") if "runs/" not in b])
def test_python_blocks_run(text, capsys):
    exec(compile(text, "README.md", "exec"), {})
    assert capsys.readouterr().out


def test_the_matrix_it_shows_is_valid():
    (text,) = blocks("yaml")
    loaded = loading.load(yaml_file.parse(text).data, REGISTRY)
    assert len(loaded.cells) == 30 and [e.why for e in loaded.excluded] == ["not of interest here"]


def test_its_commands_name_files_that_are_there_and_ci_runs_the_second():
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert any("diffbench run benchmarks/matrices/quickstart.yaml" in c for c in commands)
    assert (ROOT / "benchmarks" / "matrices" / "quickstart.yaml").is_file() and (ROOT / "reports" / "quickstart.ipynb").is_file()
    assert "README.md" in (ROOT / ".ci" / "run").read_text()


def test_every_test_file_it_points_to_exists():
    for path in re.findall(r"`(tests/[\w/]+\.py)`", README):
        assert (ROOT / path).is_file(), path
