"""Loose plug-in files: `--plugin FILE.py`, and the script in which a component is registered."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from pathlib import Path

from diffbench.errors import BrokenComponent
from diffbench.registry import entry_points
from diffbench.registry.loading import StateChanged, importing
from diffbench.registry.syntax_tree import chain_of, is_main_guard, run_at_once

PREFIX = "diffbench_plugin_"
_WORK = ("run", "execute", "plan", "rerun", "parse_args", "main")         # calls for whose answer a script exists
_SETTINGS = ("sys", "warnings", "logging")            # modules whose calls only set the scene
_folders: set[Path] = set()                           # of the files that were run


def run(path: str) -> None:
    """Runs a loose plug-in file once; its @diffbench.register classes are then known. It may import the modules beside
    it.

    Raises BrokenComponent where it is no file of Python source, fails, or changes the state that everybody computes
    with.
    """
    file = Path(path).resolve()
    name = _module_name(file)
    if name in sys.modules:
        return
    if not file.is_file():
        raise BrokenComponent(f"--plugin {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise BrokenComponent(f"--plugin {path}: this is no file of Python source; its name must end in .py")
    import torch  # noqa: F401  first, so that what the file changes in it can be told

    _refuse_mixing(path, file, set())
    _folders.add(file.parent)
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))                 # last: it hides nothing
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        with importing(f"--plugin {path}"):
            spec.loader.exec_module(module)
    except StateChanged as error:
        del sys.modules[name]
        raise BrokenComponent(f"--plugin {path} cannot be used: {error}") from error
    except Exception as error:
        del sys.modules[name]
        raise BrokenComponent(f"--plugin {path} failed with {type(error).__name__}: {error}") from error


def file_for_workers(cls: type, about: str) -> str:
    """The file that a worker must run to know a registered class.

    Raises BrokenComponent, with what to do, where no worker can know it. about: the component's name, for the message.
    """
    module = cls.__module__
    path = entry_points.module_path(module)
    if path is None:
        raise BrokenComponent(f"{about} is registered in a notebook, a console or standard input, and workers cannot "
                              "import it: write its class into a file of its own and name the file with plugins=[...]")
    if "." in module:
        raise BrokenComponent(f"{about} is registered in {module}, a module of a package, and workers do not import "
                              "it: give it an entry point, or "
                              "write its class into a file of its own and name the file with plugins=[...]")
    if module == "__main__":
        line = working_line(path.read_bytes())
        if line is not None:
            raise BrokenComponent(f"{about} is registered in the script {path}, which workers would run as a whole, "
                                  f"line {line} included: put what the "
                                  "script does under `if __name__ == '__main__':`, or write the class into a file of "
                                  "its own and name the file with plugins=[...]")
    return str(path.resolve())


def are_two(one: type, other: type) -> bool:
    """Whether two classes come from two loose files that are both loaded."""
    modules = {cls.__module__ for cls in (one, other)}
    return len(modules) == 2 and all(name.startswith(PREFIX) and name in sys.modules for name in modules)


def working_line(text: bytes) -> int | None:
    """The line of the first statement that does work when a script is imported; None where it only defines and imports.
    """
    return next((line for node in ast.parse(text).body if (line := _working_line(node)) is not None), None)


def _module_name(file: Path) -> str:
    name = f"{PREFIX}{file.stem}"
    loaded = getattr(sys.modules.get(name), "__file__", str(file))
    return name if loaded == str(file) else f"{name}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"


def _refuse_mixing(path: str, file: Path, seen: set[Path]) -> None:
    """Two plug-ins in two folders with neighbours of one name: the second would be given the neighbour of the first."""
    seen.add(file)
    for name in sorted(_imported_names(file.read_bytes())):
        beside = next((p for p in (file.parent / f"{name}.py", file.parent / name / "__init__.py") if p.is_file()),
                      None)
        if beside is None or beside in seen:
            continue
        other = entry_points.module_path(name)
        if other is not None and other.resolve() != beside and {other.resolve().parent,
                                                                other.resolve().parent.parent} & _folders:
            raise BrokenComponent(f"--plugin {path} imports {name}, and {other} of another plug-in has that name too, "
                                  f"which is not {beside}: rename one of them")
        _refuse_mixing(path, beside, seen)


def _imported_names(text: bytes) -> set[str]:
    """The top-level names of the modules that a source imports absolutely, inside functions too;
    none where it is no source.
    """
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):                     # importing it says so
        return set()
    names = {alias.name.partition(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module.partition(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module
                    and not node.level}


def _working_line(node: ast.stmt) -> int | None:
    if (isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.Pass | ast.FunctionDef | ast.AsyncFunctionDef)
        or is_main_guard(node)):
        return None
    if isinstance(node, ast.If | ast.Try):
        parts = [*node.body, *node.orelse, *getattr(node, "finalbody", ()),
                 *(n for h in getattr(node, "handlers", ()) for n in h.body)]
        return next((line for part in parts if (line := _working_line(part)) is not None), None)
    value = getattr(node, "value", None)
    if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
        calls = [n.func for n in run_at_once(value) if isinstance(n, ast.Call)] if value is not None else []
        return node.lineno if any((chain_of(called) or ("",))[-1] in _WORK for called in calls) else None
    is_setting = isinstance(value, ast.Call) and (chain_of(value.func) or ("",))[0] in _SETTINGS
    return None if is_setting or isinstance(value, ast.Constant) else node.lineno
