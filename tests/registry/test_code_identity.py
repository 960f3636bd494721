"""Whose code is part of whose key: an edit re-runs exactly what it touches, in the harness as in a package of components."""
import ast
import importlib
import sys
from pathlib import Path

import pytest

import diffbench
from diffbench.contracts.values import silent
from diffbench.errors import BrokenComponent
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.process import import_path
from diffbench.registry import code_identity, entry_points, syntax_tree
from diffbench.stages import opening
from diffbench.store.artefacts import Store
from diffbench.store.stage_kinds import AROUND, STAGE_KINDS
from tests.conftest import REGISTRY

MATRIX = {
    "diffbench": 1, "name": "coded", "dataset": {"gaussian_mixture": {"size": 8}}, "extractor": "dataset_classifier",
    "axes": {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "conditioning": {"classifier_guidance": {"inner": "none"}},
             "scheduler": {"ddim": {"steps": 2}}},
    "train": {"steps": 2, "batch_size": 8}, "sample": {"count": 12, "batch_size": 6}, "metrics": ["fid", "class_accuracy", "bits_per_dim"],
    "throughput": {"repeats": 3, "batch_size": 2},
}
EVERY = set(STAGE_KINDS)


@pytest.fixture
def developed(monkeypatch):
    monkeypatch.setattr(entry_points, "is_editable", lambda distribution: True)


def edit(monkeypatch, module, change):
    """Has a module's source read with its syntax tree changed by a function."""
    real = code_identity._read

    def read(name, path):
        if name != module:
            return real(name, path)
        tree = ast.parse(path.read_bytes())
        change(tree)
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        return syntax_tree.read(ast.unparse(tree).encode(), package, name in code_identity.VALUES)
    monkeypatch.setattr(code_identity, "_read", read)


def longer(definition):
    """A change of one definition of a module's top level."""
    def change(tree):
        (node,) = [n for n in tree.body if getattr(n, "name", None) == definition]
        node.body.append(ast.parse("None.edited").body[0] if isinstance(node, ast.FunctionDef) else ast.parse("def edited(self): pass").body[0])
    return change


def harness():
    return {stage: code_identity.of_harness(STAGE_KINDS[stage].does, *AROUND)["harness"] for stage in STAGE_KINDS}


@pytest.mark.parametrize(("module", "definition", "stages"), [
    ("stages.training_loop", "train", {"train", "throughput"}), ("stages.rank", "main", {"train"}), ("stages.ranks", "_listen", {"train"}), ("stages.training_share", "train_share", {"train"}),
    ("stages.gradients", "Ranks", {"train", "throughput"}), ("stages.sample", "sample", {"sample"}), ("stages.drawing", "blocks", {"sample"}), ("stages.batch_size", "fastest", {"sample"}),
    ("diffusion.sampling", "states", {"sample", "throughput"}), ("stages.fitted", "noisy_classifier", {"noisy_classifier"}), ("stages.fitted", "classifier", {"classifier"}),
    ("diffusion.noisy_classifier", "fit_noisy_classifier", {"noisy_classifier"}), ("stages.features", "features", {"features"}), ("stages.evaluate", "evaluate", {"evaluate"}),
    ("stats.frechet", "moments", {"reference"}), ("machine.anchor", "make", {"throughput"}), ("stages.throughput", "throughput", {"throughput"}),
    ("stages.context", "set_up", EVERY), ("stages.context", "Context", EVERY), ("contracts.settings", "Train", EVERY), ("matrix.settings", "Report", set()),
    ("running.engine", "Engine", set()), ("store.artefacts", "Store", set()), ("stages.worker", "run", set()), ("registry.registry", "Registry", set()), ("results.rows", "Rows", set()),
    ("launchers.local", "LocalLauncher", set()), ("report.tables", "write", set()), ("api.running", "execute", set()),
])
def test_an_edit_of_the_harness_changes_the_keys_of_exactly_the_stages_that_reach_it(developed, monkeypatch, module, definition, stages):
    before = harness()
    names = [n.name for n in ast.parse(entry_points.module_path(f"diffbench.{module}").read_bytes()).body if hasattr(n, "name")]
    assert definition in names, f"{module} has {names}"
    edit(monkeypatch, f"diffbench.{module}", longer(definition))
    assert {stage for stage, code in harness().items() if code != before[stage]} == stages


def test_a_default_of_the_settings_counts_by_its_value(developed, monkeypatch):
    """It stands in the key of the stages that read it; that the file was edited says nothing."""
    before = harness()

    def change(tree):
        (train,) = [n for n in tree.body if getattr(n, "name", None) == "Train"]
        (rate,) = [n for n in train.body if isinstance(n, ast.AnnAssign) and n.target.id == "lr"]
        rate.value = ast.Constant(0.5)
    edit(monkeypatch, "diffbench.contracts.settings", change)
    assert harness() == before
    plan = stage_graph.make_plan(loading.load(MATRIX, REGISTRY), REGISTRY, "cpu")
    (train,) = [stage for stage in plan.stages.values() if stage.name == "train"]
    assert train.identity["train"]["lr"] == 2e-4


def test_machinery_does_not_compute():
    """Told by its imports: who imports torch outside functions computes, and may not be left out of the keys."""
    for module in code_identity.MACHINERY:
        path = entry_points.module_path(module)
        assert path is not None and path.name != "__init__.py", f"{module} is no module"
        for node in ast.parse(path.read_bytes()).body:
            assert not (isinstance(node, ast.Import) and any(a.name.partition(".")[0] == "torch" for a in node.names)), module
            assert not (isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "torch"), module


@pytest.mark.slow
def test_every_function_that_runs_in_a_stage_is_in_its_key(developed, tmp_path, monkeypatch):
    """All stages are run here under a profile: what of diffbench is called while one computes is reached from its function or its components."""

    for module in ("classifier", "noisy_classifier"):
        monkeypatch.setattr(f"diffbench.diffusion.{module}.steps_for", lambda count: 2)
    plan, store = stage_graph.make_plan(loading.load(MATRIX, REGISTRY, smoke=True), REGISTRY, "cpu"), Store(tmp_path)
    store.prepare()
    root, missed = Path(diffbench.__file__).parent, set()
    execution = {"device": "cpu", "threads": 1, "memory_share": 1.0, "checkpoint_seconds": 30.0, "is_deterministic": False, "compile": "off",
                 "plugins": [], "installation": import_path.installation()}
    own = {"diffbench"}.__contains__
    for stage in plan.needed().values():
        content = {"stage": stage.name, "key": stage.key, "task": stage.task, "parents": stage.parents, "execution": execution}
        context, called = opening.context(content, store, silent, tmp_path / "files" / stage.key), set()
        module, _, name = STAGE_KINDS[stage.name].does.partition(":")
        function = getattr(importlib.import_module(module), name)
        sys.setprofile(lambda frame, event, argument, called=called: called.add(frame.f_code) if event == "call" else None)
        try:
            files = function(context)
        finally:
            sys.setprofile(None)
        store.publish(stage.name, stage.key, {"stage": stage.name, "key": stage.key, "identity": stage.identity, "task": stage.task, "parents": stage.parents},
                      files | {"outcome.json": b"{}"})
        classes = [REGISTRY.component(kind, each["component"]) for kind, each in described(stage.task)]
        roots = [code_identity._named(STAGE_KINDS[stage.name].does), *map(code_identity._named, AROUND)]
        reach = code_identity._Reach(lambda top: own(top) or top == "diffbench_components")
        reached = reach.statements([*roots, *map(code_identity._target, classes)])
        digests = {digest for statements in reached.values() for digest in (s.digest for s in statements)}
        for code in called:
            file = Path(code.co_filename)
            if root in file.parents:
                module = ".".join(["diffbench", *file.relative_to(root).with_suffix("").parts])
                name = code.co_qualname.partition(".")[0] if sys.version_info >= (3, 11) else code.co_name
                if not code_identity._is_machinery(module) and name.isidentifier():
                    definitions = code_identity._read(module, file).binds.get(name, [])
                    if definitions and not any(s.digest in digests for s in definitions):
                        missed.add((stage.name, module, name))
    assert not missed


def described(task):
    """(kind, description) of every component in a task."""
    for kind, value in task.items():
        if isinstance(value, dict) and "component" in value:
            yield kind, value
            yield from ((("conditioning"), inner) for inner in value["options"].values() if isinstance(inner, dict) and "component" in inner)
        elif isinstance(value, dict):
            yield from described(value)


HEAD = """
from dataclasses import dataclass
import functools
import diffbench
FACTOR = 2
OTHERS_FACTOR = 3
TABLE = {}
def helper():
    return FACTOR
def others_helper():
    return OTHERS_FACTOR
class Base:
    def step(self):
        return helper()
"""
MINE = """
class Mine(Base):
    def work(self):
        return TABLE, self.step()
"""
NEIGHBOUR = """
@dataclass(frozen=True, kw_only=True)
class Neighbour:
    restart: int = 3
    def work(self):
        return others_helper()
"""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a project and gives the code identity of a class in them, as often as asked for."""
    monkeypatch.syspath_prepend(tmp_path)
    name = f"coded_{tmp_path.name.replace('-', '_')}"

    def identity(text, cls="Mine", **helpers):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for module, content in {"__init__": "", "main": text, **helpers}.items():
            (folder / f"{module}.py").write_text(content)
        importlib.invalidate_caches()
        return code_identity.of_class(type(cls, (), {"__module__": f"{name}.main", "__qualname__": cls}))
    return identity


WHOLE = HEAD + MINE + NEIGHBOUR


@pytest.mark.parametrize("change", [
    ("restart: int = 3", "restart: int = 4"), ("return others_helper()", "return 0"), ("OTHERS_FACTOR = 3", "OTHERS_FACTOR = 4"),
    ("class Base:", "class Base:   # a comment"), ("def helper():", "def helper():\n    # new"), (NEIGHBOUR, ""),
    (NEIGHBOUR, NEIGHBOUR + "import os\n"), (NEIGHBOUR, NEIGHBOUR + "OTHERS_TABLE = dict(a=1)\n"),
    (NEIGHBOUR, NEIGHBOUR + "if __name__ == '__main__':\n    helper()\n"),
], ids=range(9))
def test_an_edit_of_its_neighbours_leaves_a_class_as_it_was(package, change):
    assert package(WHOLE) == package(WHOLE.replace(*change)) and package(WHOLE, "Neighbour") != package(WHOLE)


@pytest.mark.parametrize("change", [
    ("self.step()", "self.step() + 1"), ("return helper()", "return helper() + 1"), ("    return FACTOR", "    return -FACTOR"), ("\nFACTOR = 2", "\nFACTOR = 5"),
    ("class Mine(Base)", "@functools.total_ordering\nclass Mine(Base)"), (NEIGHBOUR, NEIGHBOUR + "TABLE['x'] = 1\n"),
    (NEIGHBOUR, NEIGHBOUR + "Mine.work = others_helper\n"), (NEIGHBOUR, NEIGHBOUR + "print(1)\n"), (NEIGHBOUR, NEIGHBOUR + "unused = helper()\n"),
    (NEIGHBOUR, NEIGHBOUR + "for _ in range(3):\n    pass\n"), (NEIGHBOUR, NEIGHBOUR + "@TABLE.setdefault\ndef other():\n    pass\n"),
    (NEIGHBOUR, NEIGHBOUR + "functools.partial.x = 1\n"), (NEIGHBOUR, NEIGHBOUR + "class Other:\n    TABLE.clear()\n"),
    (NEIGHBOUR, NEIGHBOUR + "class Other(Base, name='x'):\n    pass\n"), (NEIGHBOUR, NEIGHBOUR + "def other(x=helper()):\n    pass\n"),
], ids=range(15))
def test_an_edit_of_what_a_class_reaches_or_of_what_runs_for_all_changes_it(package, change):
    assert package(WHOLE) != package(WHOLE.replace(*change))


@pytest.mark.parametrize("trick", [
    "from os.path import *\n", "globals()['x'] = 1\n", "eval('1')\n", "class Meta(type):\n    pass\nclass Odd(metaclass=Meta):\n    pass\n",
    "class Register:\n    def __init_subclass__(cls):\n        pass\n", "def __getattr__(name):\n    raise AttributeError(name)\n",
    "def all_of():\n    return Base.__subclasses__()\n",
], ids=range(7))
def test_where_names_cannot_be_followed_the_whole_module_counts(package, trick):
    assert package(WHOLE + trick) != package((WHOLE + trick).replace("restart: int = 3", "restart: int = 4"))


@pytest.mark.parametrize("imports", [
    "from {p}.inner import f\n", "import {p}.inner as inner\nf = inner.f\n", "from .inner import f\n", "from . import inner\nf = lambda: inner.f()\n",
    "import {p}.inner\ndef f():\n    return {p}.inner.f()\n", "def f():\n    from {p} import inner\n    return inner.f()\n",
    "def f():\n    from .inner import f as g\n    return g()\n", "try:\n    from .inner import f\nexcept ImportError:\n    f = None\n",
    "import importlib\nf = importlib.import_module('{p}.inner').f\n", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from .inner import f\n",
], ids=range(10))
def test_helpers_of_the_same_package_count_however_they_are_imported(package, imports, tmp_path):
    text = imports.format(p=f"coded_{tmp_path.name.replace('-', '_')}") + "class Mine:\n    def work(self):\n        return f()\n"
    inner = "from .deepest import constant\ndef f():\n    return constant\ndef unused():\n    return 1\n"
    before = package(text, inner=inner, deepest="constant = 1\n")
    assert package(text, inner=inner, deepest="constant = 2\n") != before
    assert package(text, inner=inner.replace("return constant", "return -constant"), deepest="constant = 1\n") != before
    if "import_module" not in imports:
        assert package(text, inner=inner.replace("return 1", "return 2"), deepest="constant = 1   # as it was\n") == before


def test_code_beside_a_package_counts_and_installed_packages_do_not(package, tmp_path):
    (tmp_path / "beside.py").write_text("x = 1\n")
    text = "import json, beside\nclass Mine:\n    def work(self):\n        return beside.x, json.dumps\n"
    before = package(text)
    (tmp_path / "beside.py").write_text("x = 2\n")
    assert package(text) != before


def test_source_that_is_broken_or_missing_is_named(package):
    with pytest.raises(BrokenComponent, match=r"the source of coded_\w+\.main cannot be read: SyntaxError"):
        package("class Mine(:\n")
    with pytest.raises(BrokenComponent, match="Mine is defined in nowhere_at_all, whose source cannot be read: write the class into a file of its own"):
        code_identity.of_class(type("Mine", (), {"__module__": "nowhere_at_all"}))
    with pytest.raises(BrokenComponent, match="the source of diffbench.nowhere cannot be read, so its results cannot be told apart"):
        code_identity.of_harness("diffbench.nowhere:train")


def test_whole_modules_count_without_comments_and_docstrings(tmp_path, monkeypatch):
    for name, text in {"v1": "def f():\n    '''Doc.'''\n    return 1\n", "v2": "# new\ndef f():\n    '''Other.'''\n    return 1  # one\n",
                       "v3": "def f():\n    '''Doc.'''\n    return 2\n"}.items():
        (tmp_path / f"hashed_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert code_identity.whole("hashed_v1") == code_identity.whole("hashed_v2") != code_identity.whole("hashed_v3")
