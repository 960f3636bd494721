"""A leading `~` means the home folder wherever a user writes a path."""
from pathlib import Path

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.api import running
from diffbench.cli.list import command as list_command
from diffbench.cli.schema import command as schema_command
from diffbench.contracts.published import Published
from diffbench.errors import DiffbenchError
from diffbench.matrix import loading
from diffbench.results import comparing, folder
from diffbench.store.artefacts import Store
from diffbench.store.paths import user_path
from tests.conftest import REGISTRY
from tests.matrix.test_matrix import AXES, HEAD


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home folder, and another folder to work in."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "work").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home" / "work")
    return tmp_path / "home"


def test_what_a_path_means(home, monkeypatch):
    assert user_path("~") == home and user_path("~/x") == home / "x" and user_path(Path("~/x")) == home / "x"
    assert user_path("x/~") == Path("x/~") and user_path("~nobody-has-this-name/x") == Path("~nobody-has-this-name/x") and user_path("./~") == Path("~")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)      # as where a user number has no entry
    with pytest.raises(DiffbenchError, match="~/x: there is no home folder that '~' could stand for; set HOME, or write the path in full"):
        user_path("~/x")


def test_variables_of_the_environment(home, monkeypatch):
    from diffbench_components.datasets import published

    for name in ("DIFFBENCH_HOME", "DIFFBENCH_DATA", "SOME_WEIGHTS"):
        monkeypatch.setenv(name, "~/there")
    assert Store.default().root == home / "there" and published.data_root() == home / "there"
    (home / "there").write_bytes(b"weights")
    assert Published(what="some", variable="SOME_WEIGHTS", file="some.pt", url="", sha256="").path() == home / "there"
    monkeypatch.delenv("DIFFBENCH_DATA")
    assert published.data_root() == home / ".cache" / "diffbench"


def test_arguments_of_commands(home):
    (home / "mine.py").write_text("import diffbench\n")
    assert CliRunner().invoke(list_command, ["spacing", "--plugin=~/mine.py"]).exit_code == 0
    assert CliRunner().invoke(schema_command, ["--out=~/deep/schema.json"]).exit_code == 0 and (home / "deep" / "schema.json").is_file()


def test_arguments_of_functions(home):
    (home / "m.yaml").write_text(HEAD + AXES)
    loaded = loading.load("~/m.yaml", REGISTRY)
    assert loaded.path == home / "m.yaml" and running.run_folder(type("Plan", (), {"matrix": loaded})(), "~/r", smoke=False) == home / "r"
    for read in (folder.load, comparing.ComparedRun):
        with pytest.raises(DiffbenchError, match=str(home / "r") + "|~/r"):
            read("~/r")
    (home / "mine.py").write_text("raise RuntimeError('it was run')\n")
    with pytest.raises(diffbench.BrokenComponent, match="it was run"):
        diffbench.plan("~/m.yaml", plugins=["~/mine.py"])


def test_options_of_components(home):
    (home / "images").mkdir()
    with pytest.raises(diffbench.DataError, match=str(home / "images")):
        REGISTRY.create("dataset", "image_folder", path="~/images", size=8).fingerprint()
    with pytest.raises(diffbench.DataError, match=f"{home}/nowhere is not a folder"):
        REGISTRY.create("dataset", "image_folder", path="~/nowhere", size=8).fingerprint()


def test_nobody_expands_paths_otherwise():
    root = Path(diffbench.__file__).parents[1]
    files = [*(root / "diffbench").rglob("*.py"), *(root / "components").rglob("*.py")]
    assert [p.name for p in files if "expanduser" in p.read_text()] == ["paths.py"]
