"""`diffbench doctor`: what is wrong is named, and nothing else is called wrong."""

import shutil

import pytest
from click.testing import CliRunner

from diffbench.cli import installation
from diffbench.cli.doctor import command
from diffbench.registry.registry import PluginProblem, load_registry
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from tests.helpers.runs import make_run


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    return Store(tmp_path / "home")


def doctor(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False, standalone_mode=False)
    return result.return_value, result.output


def test_a_whole_store(store, tmp_path):
    make_run(store, tmp_path / "a")
    code, said = doctor("--store")
    assert code == 0 and "5 whole artefacts" in said and "  train: 1, " in said and "damaged" not in said and "gc" not in said


def test_damage_is_set_aside_with_its_name_and_said_once(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    path = store.path("train", keys["train"]) / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    code, said = doctor("--store")
    assert code == 1 and f"damaged and set aside: train {keys['train']}" in said and "4 whole artefacts" in said
    code, said = doctor("--store")
    assert code == 0 and "1 damaged artefacts set aside before" in said


def test_leftovers_are_counted(store, tmp_path):
    keys = make_run(store, tmp_path / "a")
    store.new_folder(keys["train"][:8])
    store.partial("train", keys["train"]).mkdir(parents=True)
    (store.root / "attempts" / ("f" * 64) / "01").mkdir(parents=True)
    (store.root / "attempts" / keys["train"] / "01").mkdir(parents=True)
    claims = Claims()
    claims.take(store.claim("e" * 64))
    shutil.copytree(store.claim("e" * 64), store.claim("d" * 64))
    owner = store.claim("d" * 64) / "owner.json"
    owner.write_text(owner.read_text().replace('"start": "', '"start": "1'))
    code, said = doctor("--store")
    claims.close()
    assert code == 0
    for line in ("1 being written, or left by a kill", "1 partial results of stages that are done", "1 stages that were tried and are not done", "1 claims of processes"):
        assert line in said, said


def test_without_a_store_it_says_where_to_look(store):
    from diffbench.errors import DiffbenchError

    with pytest.raises(DiffbenchError, match="there is no store at .*DIFFBENCH_HOME"):
        doctor("--store")


def test_an_installation_is_explained(store, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_DATA", str(store.root / "no data"))
    found = {finding.about: finding for finding in installation.examine(load_registry(), store)}
    assert found["data set digits"].text == "is there and whole"
    assert "--data-root" in found["data set mnist"].text and not found["data set mnist"].is_problem
    assert found["scheduler"].text.split()[0] == found["scheduler"].text.split()[2]
    assert "free" in found["store"].text and found["launcher local"].text == "available"
    assert not any(finding.is_problem for finding in found.values())


def test_a_broken_plug_in_is_named_and_is_a_problem(store, monkeypatch):
    registry = load_registry()
    registry.problems.append(PluginProblem("my-plug-in", "plug-in my-plug-in cannot be loaded: ImportError: no"))
    monkeypatch.setattr("diffbench.registry.registry.load_registry", lambda plugins=(): registry)
    code, said = doctor()
    assert code == 1 and "PROBLEM  plug-in my-plug-in: plug-in my-plug-in cannot be loaded" in said


def test_a_store_that_cannot_be_written_is_a_problem(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "store").write_text("a file")
    (finding,) = installation._store(Store(tmp_path / "home"))
    assert finding.is_problem and "cannot be written" in finding.text
