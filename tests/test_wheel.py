"""The release: sdist and wheel are built, hold what they should and nothing else, and work in an environment without the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def built(shared_folder):
    """(wheel, sdist), the wheel built from the sdist, as an installer that has no wheel would; built once for all test workers."""
    folder = shared_folder / "dist"
    with FileLock(shared_folder / "dist.lock"):
        if not folder.exists():
            subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT], check=True, capture_output=True, text=True, timeout=300)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def python(home, *arguments, **options):
    """Runs the environment's Python away from the checkout, with nothing of this process's paths."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "DIFFBENCH", "PYTEST"))} | {"DIFFBENCH_HOME": str(home / "store")}
    return subprocess.run([home / "env" / "bin" / "python", *arguments], cwd=home, env=environment, capture_output=True, text=True, timeout=580, **options)


@pytest.fixture(scope="module")
def installed(built, shared_folder):
    """A new environment with the wheel in it, made once for all test workers. Its dependencies are those of this one, on its path as folders:
    their .pth files, and with them the checkout, are not read."""
    home = shared_folder / "wheel"
    with FileLock(shared_folder / "wheel.lock"):
        if not home.exists():
            home.mkdir()
            subprocess.run([sys.executable, "-m", "venv", home / "env"], check=True)
            done = python(home, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built[0])
            assert done.returncode == 0, done.stderr
            (site,) = (home / "env" / "lib").glob("python*/site-packages")
            folders = [p for p in sys.path if p.endswith("-packages")]
            (site / "dependencies.pth").write_text("\n".join(folders) + "\n")
    return home


@pytest.mark.slow
def test_the_wheel_holds_both_packages_types_and_entry_points(built):
    names = zipfile.ZipFile(built[0]).namelist()
    assert {n.partition("/")[0] for n in names if ".dist-info" not in n} == {"diffbench", "diffbench_components"}
    assert {"diffbench/py.typed", "diffbench/__init__.pyi", "diffbench_components/schedulers/ddim.py"} <= set(names)
    here = {p.relative_to(root).as_posix() for root in (ROOT, ROOT / "components") for p in (root / ("diffbench" if root == ROOT else "diffbench_components")).rglob("*.py")}
    notebooks = {f"diffbench/report/notebooks/{p.name}" for pattern in ("*.py", "*.ipynb") for p in (ROOT / "reports").glob(pattern)}
    assert {n for n in names if n.endswith((".py", ".ipynb"))} == here | notebooks
    (points,) = [n for n in names if n.endswith("entry_points.txt")]
    said = zipfile.ZipFile(built[0]).read(points).decode()
    assert "[diffbench.scheduler]" in said and "diffbench = diffbench.cli:main" in said
    assert any(n.endswith("licenses/LICENSE") for n in names)


@pytest.mark.slow
def test_the_sdist_can_be_tested(built):
    names = {n.partition("/")[2] for n in tarfile.open(built[1]).getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "CITATION.cff", "tests/test_wheel.py", "docs/index.md", "mkdocs.yml",
            "benchmarks/matrices/quickstart.yaml"} <= names
    assert not [n for n in names if n.startswith(("runs/", ".diffbench/", "dist/", ".venv/"))]


@pytest.mark.slow
def test_it_works_without_the_checkout(installed):
    where = python(installed, "-c", "import diffbench, diffbench_components; print(diffbench.__file__, diffbench_components.__file__)")
    assert where.returncode == 0 and str(installed) in where.stdout and str(ROOT) not in where.stdout, where.stderr
    listed = python(installed, "-m", "diffbench", "list")
    assert listed.returncode == 0 and "dpm_solver_pp" in listed.stdout and "cannot be" not in listed.stderr, listed.stderr


@pytest.mark.slow
def test_one_scheduler_of_the_quickstart_runs_from_the_wheel(installed):
    (installed / "quickstart.yaml").write_bytes((ROOT / "benchmarks" / "matrices" / "quickstart.yaml").read_bytes())
    done = python(installed, "-m", "diffbench", "run", "quickstart.yaml", "--smoke", "--only", "scheduler=ddim", "--only", "noise_schedule=linear", "--device", "cpu", "--threads", "1")
    assert done.returncode == 0, done.stderr[-3000:]
    read = python(installed, "-c", "import diffbench; rows = diffbench.load('runs/quickstart-smoke'); print(len(rows), set(rows.status))")
    assert read.stdout.split(maxsplit=1)[0] == "4" and "ok" in read.stdout and "failed" not in read.stdout, read.stdout + read.stderr
