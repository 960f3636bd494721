"""Reading packages without importing them: entry points, and what the syntax tree says of a class."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffbench

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


@dataclass(frozen=True)
class Point:
    """An entry point and what its distribution is."""

    name: str
    value: str                        # "module:attribute"
    distribution: str
    version: str
    is_editable: bool
    extras: tuple[str, ...]
    load: Callable[[], object]

    @property
    def label(self) -> str:
        """Name of a plug-in: "my-samplers:night"."""
        return f"{self.distribution}:{self.name}"


def entry_points(group: str) -> Iterator[Point]:
    """The entry points of a group, in an order that does not depend on the file system."""
    return iter(_installed(_path_state()).get(group, ()))


def groups() -> list[str]:
    """Every group of entry points that begins with ours, misspelt ones too."""
    return sorted(_installed(_path_state()))


def distributions() -> list[str]:
    """Every distribution with an entry point of ours."""
    return sorted({point.distribution for points in _installed(_path_state()).values() for point in points})


def requirements(distribution: str) -> set[str]:
    """Requirements of a distribution, extras too: names as pip compares them; none where it is not installed."""
    try:
        declared = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return set()
    return {re.sub(r"[-_.]+", "-", re.split(r"[\s;<>=!~\[(]", text.strip(), maxsplit=1)[0]).lower()
            for text in declared}


@functools.lru_cache(maxsize=1)
def _installed(state: tuple[tuple[str, int], ...]) -> dict[str, list[Point]]:
    """All entry points of ours by group, read once: every look at a distribution's facts parses its files again."""
    groups: dict[str, dict[tuple[str, str], Point]] = {}
    for distribution in importlib.metadata.distributions():
        about: tuple[str, str, bool, tuple[str, ...]] | None = None
        for point in distribution.entry_points:
            if point.group.partition(".")[0] == "diffbench":
                about = about or (distribution.name, distribution.version, is_editable(distribution),
                                  tuple(distribution.metadata.get_all("Provides-Extra") or ()))
                # An editable install may be met twice on the path; the first is the one that is imported.
                groups.setdefault(point.group, {}).setdefault(
                    (about[0], point.name), Point(point.name, point.value, *about, point.load))
    return {group: [points[key] for key in sorted(points)] for group, points in groups.items()}


def _path_state() -> tuple[tuple[str, int], ...]:
    """Changes when a distribution is installed or a folder joins the path."""
    return tuple((folder, os.stat(folder).st_mtime_ns) for folder in sys.path if os.path.isdir(folder))


def is_editable(distribution: importlib.metadata.Distribution) -> bool:
    """Whether a distribution is installed in development mode (PEP 610)."""
    text = distribution.read_text("direct_url.json")
    return text is not None and bool(json.loads(text).get("dir_info", {}).get("editable", False))


@functools.cache
def summary(target: str) -> Summary:
    """The summary of "module:Class"; empty where there is no source to read."""
    class_tree = _class_tree(target)
    if class_tree is None:
        return Summary(text="(no source found)")
    tree, module = class_tree
    options = {name: default for base in _bases(tree, module, target) for name, default in summary(base).options}
    facts = {}
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if "ClassVar" in ast.unparse(node.annotation):
                facts[node.target.id] = node.value
            else:
                options[node.target.id] = "required" if node.value is None else _default(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            facts[node.targets[0].id] = node.value
    return Summary(text=(ast.get_docstring(tree) or "").partition("\n")[0], options=tuple(options.items()),
                   aliases=tuple(_literal(facts.get("aliases"), ())),
                   is_default=bool(_literal(facts.get("default_of_kind"), False)))


def _bases(tree: ast.ClassDef, module: ast.Module, target: str) -> list[str]:
    """The classes a component shares its options with, as "module:Class"; the kinds themselves have none."""
    homes = {alias.asname or alias.name: (node.module, alias.name) for node in module.body
             if isinstance(node, ast.ImportFrom) and node.module
             for alias in node.names}
    targets = []
    for base in (b.id for b in tree.bases if isinstance(b, ast.Name)):
        home, name = homes.get(base, (target.partition(":")[0], base))
        home = vars(diffbench)["_HOME_OF"].get(name, home) if home == "diffbench" else home
        if home != "diffbench.contracts.model":
            targets.append(f"{home}:{name}")
    return targets


def _class_tree(target: str) -> tuple[ast.ClassDef, ast.Module] | None:
    module, _, attribute = target.partition(":")
    path = module_path(module)
    if path is None:
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, OSError, UnicodeDecodeError):
        return None
    return next(((n, tree) for n in tree.body if isinstance(n, ast.ClassDef) and n.name == attribute), None)


def module_path(module: str) -> Path | None:
    """The file of a module. Only the top package is asked of the import system: that imports nothing."""
    loaded = getattr(sys.modules.get(module), "__file__", None)
    # a console has no file, standard input one that is not there
    if loaded and (module != "__main__" or Path(loaded).is_file()):
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
    if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        and node.func.id in ("sampling_option", "incidental_option")):
        return ast.unparse(node.args[0]) if node.args else "required"
    return ast.unparse(node)


def _literal(node: ast.expr | None, otherwise: Any) -> Any:
    try:
        return ast.literal_eval(node) if node is not None else otherwise
    except ValueError:
        return otherwise
