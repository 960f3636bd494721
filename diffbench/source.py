"""Reading packages without importing them: entry points, and what the syntax tree says of a class."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from diffbench.errors import BrokenComponent

NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the source of a component says without being run."""

    text: str = ""                                        # first line of the docstring
    options: tuple[tuple[str, str], ...] = ()             # (name, default as written)
    aliases: tuple[str, ...] = ()
    is_default: bool = False


def is_name(name: str) -> bool:
    """Whether this may be the name of a component, an axis or a run: it can then never be a path."""
    return NAME.fullmatch(name) is not None


def entry_points(group: str) -> Iterator[importlib.metadata.EntryPoint]:
    """The entry points of a group, in an order that does not depend on the file system."""
    seen = set()
    for point in sorted(importlib.metadata.entry_points(group=group), key=lambda p: (p.dist.name, p.name)):
        if (point.dist.name, point.name) not in seen:     # an editable install may be met twice on the path
            seen.add((point.dist.name, point.name))
            yield point


def is_editable(distribution: importlib.metadata.Distribution) -> bool:
    """Whether a distribution is installed in development mode (PEP 610)."""
    text = distribution.read_text("direct_url.json")
    return bool(text) and json.loads(text).get("dir_info", {}).get("editable", False)


@functools.cache
def summary(target: str) -> Summary:
    """The summary of "module:Class"; empty where there is no source to read."""
    tree = _class_tree(target)
    if tree is None:
        return Summary(text="(no source found)")
    options, facts = [], {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            if "ClassVar" in ast.unparse(node.annotation):
                facts[node.target.id] = node.value
            else:
                options.append((node.target.id, _default(node.value)))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and "ClassVar" not in ast.unparse(node.annotation):
            options.append((node.target.id, "required"))
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            facts[node.targets[0].id] = node.value
    return Summary(text=(ast.get_docstring(tree) or "").partition("\n")[0], options=tuple(options),
                   aliases=tuple(_literal(facts.get("aliases"), ())), is_default=bool(_literal(facts.get("default_of_kind"), False)))


def code_hash(module: str) -> str:
    """SHA-256 of a module's source without comments and docstrings: what a component under development is cached by."""
    path = _module_path(module)
    if path is None:
        raise BrokenComponent(f"the source of {module} cannot be read, so its results cannot be told apart from those of another version")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node, clean=False) is not None:
            node.body[0].value.value = ""
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def run_file(path: str) -> None:
    """Runs a loose plug-in file once; its @diffbench.register classes are then known."""
    file = Path(path).resolve()
    name = f"diffbench_plugin_{file.stem}"
    if getattr(sys.modules.get(name), "__file__", None) == str(file):
        return
    if not file.is_file():
        raise BrokenComponent(f"--plugin {path}: there is no such file")
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BrokenComponent(f"--plugin {path} failed with {type(error).__name__}: {error}") from error


def _class_tree(target: str) -> ast.ClassDef | None:
    module, _, attribute = target.partition(":")
    path = _module_path(module)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, OSError, UnicodeDecodeError):
        return None
    return next((n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == attribute), None)


def _module_path(module: str) -> Path | None:
    """The file of a module. Only the top package is asked of the import system: that imports nothing."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    if loaded:
        return Path(loaded)
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        stem = Path(folder, *rest)
        for path in (stem.with_suffix(".py"), stem / "__init__.py"):
            if path.is_file():
                return path
    return None


def _default(node: ast.expr) -> str:
    """The default as written; of a marked option, the marked value."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("sampling_option", "incidental_option"):
        return ast.unparse(node.args[0]) if node.args else "required"
    return ast.unparse(node)


def _literal(node: ast.expr | None, otherwise: object) -> object:
    try:
        return ast.literal_eval(node) if node is not None else otherwise
    except ValueError:
        return otherwise
