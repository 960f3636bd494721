"""`diffbench new`: for every kind a package that installs, is found, conforms, passes its own tests and gives a row, as it is written."""

import json
import os
import re
import subprocess
import sys

import pytest
from filelock import FileLock

from diffbench import scaffold
from diffbench.errors import DiffbenchError
from diffbench.matrix import loading, yaml_file
from diffbench.registry.registry import Registry
from diffbench.scaffold import TRACKER, new_package
from tests.conftest import REGISTRY
from tests.registry.test_registry import distribution

KINDS = [*REGISTRY.kinds, TRACKER]


def name_of(kind):
    return f"some-new-{kind.replace('_', '-')}"


@pytest.fixture(scope="module")
def packages(shared_folder):
    """The folder of the packages and the one where they are installed, made once for all test workers."""
    folder, site = shared_folder / "packages" / "written", shared_folder / "packages" / "site"
    with FileLock(shared_folder / "packages.lock"):
        if not folder.exists():
            for kind in KINDS:
                for path, text in new_package(REGISTRY, kind, name_of(kind)).items():
                    file = folder / name_of(kind) / path
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(text)
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", site,
                            *(folder / name_of(kind) for kind in KINDS)], check=True)
    return folder, site


@pytest.fixture(scope="module")
def written(packages):
    """One package of each kind, as the command writes it."""
    return packages[0]


@pytest.fixture(scope="module")
def environment(packages):
    """All of them installed by pip, apart from everything else."""
    _, site = packages
    return {**os.environ, "PYTHONPATH": str(site), "DIFFBENCH_HOME": str(site.parent / "store"), "OMP_NUM_THREADS": "1"}


def python(environment, cwd, *arguments):
    return subprocess.run([sys.executable, "-m", *arguments], env=environment, cwd=cwd, capture_output=True, text=True, timeout=550)


@pytest.mark.slow
def test_they_are_found_under_their_names_and_nothing_is_wrong_with_them(environment, tmp_path):
    told = json.loads(python(environment, tmp_path, "diffbench", "list", "--json").stdout)
    assert not told["problems"] and not told["left_out"]
    found = {(c["kind"], c["name"]) for c in told["components"] if c["origin"].startswith("some-new")}
    assert found == {(kind, f"{name_of(kind)}.some_new_{kind}") for kind in REGISTRY.kinds}


@pytest.mark.slow
def test_they_pass_their_own_tests_which_are_the_conformance_suite_and_more(environment, written):
    done = python(environment, written, "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", *map(name_of, KINDS))
    assert done.returncode == 0, done.stdout[-4000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 2 * len(REGISTRY.kinds) + 1 and "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scheduler", "dataset"])
def test_the_matrix_beside_them_gives_a_row(environment, written, kind, tmp_path):
    done = python(environment, tmp_path, "diffbench", "run", str(written / name_of(kind) / "matrix.yaml"), "--device", "cpu", "--smoke")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(p.read_bytes()) for p in tmp_path.glob("runs/*/cells/*.json")]
    assert f"{name_of(kind)}.some_new_{kind}" in [row[kind] for row in rows] and {row["status"] for row in rows} == {"ok"}


@pytest.mark.slow
def test_the_matrices_of_all_kinds_are_valid_and_skip_nothing(environment, written, tmp_path):
    code = ("import sys, json, diffbench\nfor path in sys.argv[1:]:\n    plan = diffbench.plan(path, device='cpu')\n"
            "    print(json.dumps([path, len(plan.cells), [c.skipped for c in plan.cells if c.skipped]]))")
    done = subprocess.run([sys.executable, "-c", code, *(str(written / name_of(k) / "matrix.yaml") for k in KINDS)], env=environment, cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line[1:] for line in map(json.loads, done.stdout.splitlines())] == [[1 + (REGISTRY.kinds[k].axis and k != "dataset" if k != TRACKER else 0), []] for k in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_template_is_left(kind):
    for path, text in new_package(REGISTRY, kind, name_of(kind)).items():
        assert not re.search(r"newcomer|new-comer|TO-?DO|\.\.\.$", text, re.IGNORECASE | re.MULTILINE), path
        assert not re.search(r"^[^\n]*@(?!dataclass|property|hookimpl|static|abstract|pytest)\w+@", text, re.MULTILINE), path


@pytest.mark.parametrize(("kind", "name", "said"), [
    ("schedular", "mine", r"no kind of component named 'schedular'\. Did you mean 'scheduler'\? Known: .*tracker"),
    ("scheduler", "ddim", r"there is a scheduler named 'ddim' already, of diffbench"),
    ("scheduler", "json", r"there is a module 'json' already"),
    ("scheduler", "../x", r"'\.\./x' cannot be the name"), ("scheduler", "My-Sampler", r"cannot be the name"), ("scheduler", "a-1b", r"cannot be the name"),
    ("scheduler", "none", r"cannot be the name"), ("scheduler", "class", r"cannot be the name"), ("metric", "x" * 65, r"cannot be the name"),
])
def test_a_name_that_will_not_do_is_refused_with_why(kind, name, said):
    with pytest.raises(DiffbenchError, match=said):
        new_package(REGISTRY, kind, name)


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    (tmp_path / "my-sampler").mkdir()
    done = python(os.environ, tmp_path, "diffbench", "new", "scheduler", "my-sampler")
    assert done.returncode == 2 and "my-sampler is there already; choose another name, or another folder with --into" in done.stderr
    done = python(os.environ, tmp_path, "diffbench", "new", "scheduler", "my-sampler", "--into", "deeper/still")
    assert done.returncode == 0 and (tmp_path / "deeper/still/my-sampler/my_sampler.py").is_file(), done.stderr
    assert list((tmp_path / "my-sampler").iterdir()) == []


HOOKS = """
from diffbench import Kind, hookimpl
@hookimpl
def diffbench_kinds():
    return [Kind(name="sharpener", base="sharpen:Sharpener", half="sampling", summary="sharpens", scaffold="{scaffold}")]
"""


@pytest.mark.parametrize("has_template", [True, False])
def test_a_kind_of_a_plug_in_brings_its_own_template(tmp_path, monkeypatch, has_template):
    distribution(tmp_path, "sharpen", "[diffbench]\nhooks = sharpen_hooks\n", {"sharpen_hooks": HOOKS.format(scaffold="sharpen_templates" if has_template else "nowhere")})
    (tmp_path / "sharpen_templates").mkdir()
    for file in ("__init__.py", "sharpener.py", "test_sharpener.py"):
        (tmp_path / "sharpen_templates" / file).write_text("class Newcomer: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sharpen_hooks", raising=False)
    registry = Registry()
    if not has_template:
        with pytest.raises(DiffbenchError, match=r"there is no template for the kind 'sharpener': the package that offers it names one by Kind\(scaffold=\.\.\.\)"):
            new_package(registry, "sharpener", "very-sharp")
        return
    files = new_package(registry, "sharpener", "very-sharp")
    assert files["very_sharp.py"] == "class VerySharp: ...\n" and 'entry-points."diffbench.sharpener"' in files["pyproject.toml"]
    assert "  sharpener: [very_sharp]\n" in files["matrix.yaml"]


def test_the_starting_matrix_is_valid_and_says_what_it_holds():
    text = scaffold.starting_matrix("matrix.schema.json")
    loaded = loading.load(yaml_file.parse(text).data, REGISTRY)
    assert len(loaded.cells) == 12 and text.startswith("# yaml-language-server: $schema=matrix.schema.json\n")
    assert sum("#" in line for line in text.splitlines()) > 10
