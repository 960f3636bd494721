"""`diffbench init` as a user meets it, and what a shell completes."""

import json
import os
import subprocess
import sys

import jsonschema
import pytest

from diffbench.matrix import yaml_file


def diffbench(cwd, *arguments, **environment):
    return subprocess.run([sys.executable, "-m", "diffbench", *arguments], cwd=cwd, capture_output=True, text=True, timeout=500, env={**os.environ, **environment})


@pytest.mark.slow
def test_it_writes_a_matrix_that_runs_beside_its_schema_and_overwrites_nothing(tmp_path, shared_folder):
    assert diffbench(tmp_path, "init").stdout.splitlines() == ["matrix.yaml", "matrix.schema.json", "next: diffbench run matrix.yaml"]
    schema = json.loads((tmp_path / "matrix.schema.json").read_bytes())
    jsonschema.Draft202012Validator(schema).validate(yaml_file.read(tmp_path / "matrix.yaml").data)
    again = diffbench(tmp_path, "init")
    assert again.returncode == 2 and "matrix.yaml is there already; give another name, as in: diffbench init other.yaml" in again.stderr
    done = diffbench(tmp_path, "run", "matrix.yaml", "--smoke", "--device", "cpu", DIFFBENCH_HOME=str(shared_folder / "store"))
    assert done.returncode == 0 and " ok " in done.stdout, done.stderr


@pytest.mark.parametrize(("words", "place", "expected"), [
    ("diffbench sho", 1, {"show"}), ("diffbench show sched", 2, {"scheduler"}), ("diffbench show scheduler dd", 3, {"ddim", "ddpm"}),
    ("diffbench check noise-sch", 2, {"noise_schedule"}), ("diffbench new track", 2, {"tracker"}), ("diffbench run --tracker tens", 3, {"tensorboard"}),
])
def test_a_shell_completes_names(tmp_path, words, place, expected):
    done = diffbench(tmp_path, COMP_WORDS=words, COMP_CWORD=str(place), _DIFFBENCH_COMPLETE="bash_complete")
    assert {line.partition(",")[2] for line in done.stdout.split()} == expected, done.stderr


def test_completion_imports_neither_torch_nor_pandas():
    code = ("import sys\nfrom diffbench.cli import main\ntry:\n    main()\nexcept SystemExit: pass\n"
            "assert not {'torch', 'pandas'} & set(sys.modules), 'heavy'")
    environment = {**os.environ, "COMP_WORDS": "diffbench check d", "COMP_CWORD": "2", "_DIFFBENCH_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "plain,dit" in done.stdout, done.stderr
