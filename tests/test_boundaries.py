"""The harness knows no component by name, and components know the harness by its public names only. Read from the syntax trees."""

import ast
import re
from pathlib import Path

import pytest

import diffbench

ROOT = Path(__file__).resolve().parents[1]
HARNESS = sorted((ROOT / "diffbench").rglob("*.py"))
COMPONENTS = sorted((ROOT / "components" / "diffbench_components").rglob("*.py"))
REPORTS = sorted((ROOT / "reports").glob("*.py"))


def imports(path):
    """(module, names) of each import statement."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", tuple(a.name for a in node.names)


# The folders of diffbench/, upper ones first: a folder imports only from those below it, and those of one line not from each other.
LAYERS = (
    ("cli",), ("scaffold", "testing"), ("api",), ("report", "watching"), ("results",), ("running",), ("launchers",), ("stages",),
    ("diffusion",), ("planning",), ("matrix",), ("registry",), ("contracts", "machine"), ("store", "stats"), ("process",), ("wording",), ("errors",))
RANK = {folder: rank for rank, folders in enumerate(LAYERS) for folder in folders}
TYPES_OF_HOOKS = "diffbench.registry.hooks"               # hooks name in their types what they hand out: a plan, a stage, the context of a stage
TEMPLATES = ROOT / "diffbench" / "scaffold"               # what `diffbench new` writes is no code of the harness


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in HARNESS if path.parent != TEMPLATES or path.name == "__init__.py"}


def arrows():
    """(module, module it imports, whether for types only) of every import of the harness from itself, those inside functions too."""
    for module, path in MODULES.items():
        tree = ast.parse(path.read_text())
        of_types = {id(inner) for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
                    for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names if alias.name in MODULES]
            elif isinstance(node, ast.ImportFrom) and (node.module or "") in MODULES:
                whole = (f"{node.module}.{alias.name}" for alias in node.names)
                targets = [name if name in MODULES else node.module for name in whole]
            else:
                continue
            yield from ((module, target, id(node) in of_types) for target in targets if target not in (module, "diffbench"))


def folder_of(module):
    return module.split(".")[1]


def test_every_folder_has_its_place():
    found = {folder_of(module) for module in MODULES if module not in ("diffbench", "diffbench.__main__")}
    assert found == set(RANK)


def test_the_page_of_the_architecture_shows_the_same_order():
    page = (ROOT / "docs" / "architecture.md").read_text().partition("```text\n")[2].partition("```")[0]
    assert tuple(tuple(line[:23].strip().split(" | ")) for line in page.splitlines()) == LAYERS


def test_a_folder_imports_only_from_those_below_it():
    found = [f"{module} imports {target}" for module, target, is_type in arrows()
             if module != "diffbench.__main__" and folder_of(module) != folder_of(target) and RANK[folder_of(module)] >= RANK[folder_of(target)]
             and not (is_type and module == TYPES_OF_HOOKS)]
    assert not found, "\n".join(found)


def test_no_module_imports_itself_by_a_detour():
    """Types left out: a cell names the kinds of its components, and each of these is asked about a cell."""
    below = {module: set() for module in MODULES}
    for module, target, is_type in arrows():
        if not is_type:
            below[module].add(target)
    while leaves := [module for module, targets in below.items() if not targets & set(below)]:
        for module in leaves:
            del below[module]
    assert not below, f"among these is a cycle: {sorted(below)}"


@pytest.mark.parametrize("path", HARNESS, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_harness_never_names_the_components(path):
    """Not even in a string; the hook for registration has the package's name, but a hook is no module."""
    text = path.read_text()
    assert not re.search(r"diffbench_components[.:/]", text)
    assert not any(module.startswith("diffbench_components") for module, _ in imports(path))


@pytest.mark.parametrize("path", COMPONENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_components_import_public_names_and_their_own_kind_only(path):
    kind = path.parent.name
    for module, names in imports(path):
        top, _, rest = module.partition(".")
        if top == "diffbench":
            assert not rest, f"{module} is not public: import from diffbench"
            assert set(names) <= set(diffbench.__all__), f"not public: {set(names) - set(diffbench.__all__)}"
        if top == "diffbench_components":
            assert rest.partition(".")[0] == kind, f"{module} belongs to another kind"


@pytest.mark.parametrize("path", REPORTS, ids=lambda p: p.name)
def test_reports_need_neither_torch_nor_diffbench(path):
    assert not {module.partition(".")[0] for module, _ in imports(path)} & {"torch", "diffbench", "diffbench_components"}


@pytest.mark.parametrize("path", [*HARNESS, *COMPONENTS], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_pickled(path):
    """But for published weights, read as tensors and nothing else, and handed to a library that takes nothing but its own format."""
    allowed = {"published.py": "torch.load", "inception.py": "torch.save"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called == allowed.get(path.name):
                assert called == "torch.save" or "weights_only=True" in ast.unparse(node)
                continue
            assert called not in ("torch.load", "torch.save", "pickle.load", "pickle.loads", "pickle.dump", "pickle.dumps", "numpy.load", "np.load"), called


def entry_points_of_the_project():
    """[project.entry-points."diffbench.<kind>"] tables of pyproject.toml: lines of 'name = "module:Class"'."""
    found, group = {}, None
    for line in (ROOT / "pyproject.toml").read_text().splitlines():
        if line.startswith("["):
            match = re.fullmatch(r'\[project\.entry-points\."(diffbench\.\w+)"\]', line)
            group = match and match[1]
        elif group and "=" in line:
            name, _, target = line.partition("=")
            found.setdefault(group, {})[name.strip()] = target.strip().strip('"')
    return found


def test_every_component_file_has_an_entry_point_of_its_name():
    declared = entry_points_of_the_project()
    targets = {value.partition(":")[0] for group, points in declared.items() for value in points.values() if group not in ("diffbench.launcher", "diffbench.tracker")}
    for group, points in declared.items():
        for name, target in points.items() if group != "diffbench.launcher" else ():
            assert target.partition(":")[0].rpartition(".")[2] == name, f"{group}: the file of {name} carries its name"
    helpers = {f"diffbench_components.{name}" for name in (
        "backbones.attention", "backbones.embeddings", "backbones.pyramid", "conditionings.labels", "conditionings.tokens", "conditionings.wrapper",
        "datasets.decoding", "datasets.published", "metrics.features", "metrics.torchmetrics_classes", "metrics.torchmetrics_inputs",
        "metrics.torchmetrics_states", "metrics.torchmetrics_weights", "noise_schedules.exploding", "objectives.bound", "objectives.regression",
        "parameterizations.noise_like", "schedulers.slopes", "schedulers.spread", "spacings.noise_levels")}
    modules = {".".join(p.relative_to(ROOT / "components").with_suffix("").parts) for p in COMPONENTS if p.name != "__init__.py"}
    assert modules - helpers == targets


def test_without_the_built_in_entry_points_the_harness_is_empty_and_works(monkeypatch):
    from diffbench.registry import entry_points
    from diffbench.registry import registry as registries

    monkeypatch.setattr(entry_points, "entry_points", lambda group: iter(()))
    monkeypatch.setattr(registries, "_session", {})       # what other tests of this process registered
    empty = registries.Registry()
    assert all(not list(empty.refs(kind)) for kind in empty.kinds)
    with pytest.raises(diffbench.UnknownComponent, match="Known: none is installed"):
        empty.create("scheduler", "ddim")


def test_the_public_names_exist():
    for name in diffbench.__all__:
        assert getattr(diffbench, name) is not None


def test_no_public_name_is_a_module():
    """Importing the module would put it where the name was, and who came first would decide."""
    modules = {path.stem for path in (ROOT / "diffbench").iterdir() if path.suffix == ".py" or path.is_dir()}
    assert not modules & set(diffbench.__all__)
