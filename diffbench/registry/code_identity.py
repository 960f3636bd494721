"""The identity of code under development: a hash of the statements that a function or a class reaches. Used in keys by
`stage_graph` and `describing`.

Reach is followed from name to definition through the syntax trees, within a function, a class, a module and from one
module to the next of the same package, imports inside functions and names in annotations included. Nothing is imported
and no list is kept by hand. A statement at the top of a module that may have an effect beyond the name it binds counts
for all who reach the module, as it runs for all of them. A module whose names cannot be followed (a star import,
`globals()`, `eval`, `__init_subclass__`) makes everything that is reached count by whole modules.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import sys
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path

import diffbench
from diffbench.errors import BrokenComponent
from diffbench.registry import entry_points, syntax_tree
from diffbench.registry.syntax_tree import Chain, Module, Statement

HOME = "diffbench"
# The machinery that a stage stands on: it carries inputs to the stage and outputs away. What it carries stands in the
# key itself (components, options, seeds, contents of data), so that an edit of it changes no result under an unchanged
# key. Everything else that a stage reaches counts, a new module too. tests/registry/test_code_identity.py holds that
# none of these computes.
MACHINERY = frozenset(f"{HOME}.{name}" for name in (
    "contracts.options", "errors", "matrix.describing", "matrix.yaml_file", "planning.plan", "planning.stage",
    "planning.stage_book", "planning.stage_graph",
    "registry.describing", "registry.loading", "registry.ref", "registry.registry", "registry.remembered",
    "registry.stage_kinds", "stages.failure", "stages.opening", "stages.worker",
    "store.artefacts", "store.contents", "store.digest", "store.disk", "store.manifest", "store.shapes",
    "store.stage_kinds", "store.tensor_shapes", "wording"))
# what these hold stands in the keys, only their methods are code
VALUES = frozenset({f"{HOME}.contracts.settings", f"{HOME}.matrix.settings"})

Target = tuple[str, str | None]       # (module, name of a definition); None: the whole module


def of_class(cls: type) -> str:
    """SHA-256 of the code of a class under development:
    of its own package, and of what lies beside that or beside its file.
    """
    if _top_folder(cls.__module__) is None:
        raise BrokenComponent(_unreadable(cls))
    return _of_own(_target(cls))


def of_function(target: str) -> str:
    """The same of a function, "module:name", such as what a stage of a plug-in does."""
    return _of_own(_named(target))


def of_harness(*targets: str | type) -> dict[str, str]:
    """{"harness": SHA-256 of what classes or "module:name" reach in diffbench};
    empty where diffbench is released: its versions count there.
    """
    if not entry_points.is_editable(importlib.metadata.distribution(HOME)):
        return {}
    roots = [_target(target) if isinstance(target, type) else _named(target) for target in targets]
    own = {HOME, *(module.partition(".")[0] for module, _ in roots)}
    return {"harness": _digest(roots, own.__contains__, lambda module: module.partition(".")[0] == HOME)}


def reached(roots: Iterable[Target], is_own: Callable[[str], bool]) -> dict[str, list[Statement]]:
    """The statements that definitions reach, by module; is_own: whether the code of a top-level package counts."""
    return _Reach(is_own).statements(roots)


def whole(*modules: str) -> str:
    """SHA-256 of modules as they stand, without comments and docstrings."""
    code = hashlib.sha256()
    for module in sorted(modules):
        for statement in _read(module, _path(module)).all:
            code.update(statement.digest)
    return code.hexdigest()


def _of_own(target: Target) -> str:
    own = target[0].partition(".")[0]
    root = _top_folder(target[0])
    # Modules side by side, outside the folders of installed packages, are of one project.
    return _digest([target], lambda top: top == own or top != HOME and root not in _installed()
                   and _top_folder(top) == root)


def _digest(roots: Iterable[Target], is_own: Callable[[str], bool],
            counts: Callable[[str], bool] = lambda module: True) -> str:
    pairs = reached(roots, is_own).items()
    modules = [b"".join(sorted({statement.digest for statement in statements})) for module, statements in pairs
               if counts(module)]
    # by content: a script that is run has another name
    return hashlib.sha256(b"\0".join(sorted(filter(None, modules)))).hexdigest()


class _Reach:
    """One walk from definitions to all they reach."""

    def __init__(self, is_own: Callable[[str], bool]):
        self.is_own = functools.cache(is_own)
        self.modules: dict[str, Module | None] = {}
        self.done: set[Target] = set()
        self.walked: set[tuple[str, ...]] = set()
        self.found: dict[str, dict[int, Statement]] = {}
        self.waiting: list[Target] = []

    def statements(self, roots: Iterable[Target]) -> dict[str, list[Statement]]:
        self.waiting = list(roots)
        for module, _ in self.waiting:
            _path(module)
        while self.waiting:
            self.visit(*self.waiting.pop())
        if any(self.modules[module].is_dynamic for module in self.found):
            self.waiting = [(module, None) for module in self.found]
            while self.waiting:
                self.visit(self.waiting.pop()[0], None)
        return {module: list(statements.values()) for module, statements in self.found.items()}

    def read(self, module: str) -> Module | None:
        """A module whose code counts, or None."""
        if module not in self.modules:
            path = (entry_points.module_path(module) if self.is_own(module.partition(".")[0])
                    and not _is_machinery(module) else None)
            self.modules[module] = None if path is None else _read(module, path)
        return self.modules[module]

    def visit(self, name: str, definition: str | None) -> None:
        module = self.read(name)
        if module is None or (name, definition) in self.done:
            return
        self.done.add((name, definition))
        if name not in self.found:
            self.found[name] = {}
            self.enter(name, module)
        statements = module.all if definition is None else module.binds.get(definition, module.all)
        for statement in statements:
            self.add(name, module, statement)

    def enter(self, name: str, module: Module) -> None:
        """Adds what running a module's file runs besides: the packages around it, what it imports, what has effects."""
        around = name.rpartition(".")[0]
        for other in (*module.imported, *([around] if around else ())):
            self.run(other)
        for statement in module.runs:
            self.add(name, module, statement)

    def run(self, name: str) -> None:
        module = self.read(name)
        if module is not None and name not in self.found:
            self.found[name] = {}
            self.enter(name, module)

    def add(self, name: str, module: Module, statement: Statement) -> None:
        if id(statement) in self.found[name]:
            return
        self.found[name][id(statement)] = statement
        for chain in statement.reads:
            self.follow(name, module, statement, chain)
        for text in statement.texts:
            named, _, attribute = text.partition(":")
            if named.replace(".", "").isidentifier() and self.read(named) is not None:
                self.waiting.append((named, attribute or None))

    def follow(self, name: str, module: Module, statement: Statement, chain: Chain) -> None:
        root, *rest = chain
        if root in module.binds:
            self.waiting.append((name, root))
        for binding in (*module.imports, *statement.imports):
            if binding.bound == root:
                self.walk(binding.module, [*([binding.attribute] if binding.attribute else []), *rest])

    def walk(self, name: str, attributes: list[str]) -> None:
        """Goes on with an attribute of an attribute ... of a module."""
        if (name, *attributes) in self.walked:            # modules may hand names on in a circle
            return None
        self.walked.add((name, *attributes))
        while attributes or self.read(name) is not None:
            head, *rest = attributes or [""]
            module = self.read(name)
            home = vars(diffbench)["_HOME_OF"].get(head) if name == HOME else None
            handed_on = [binding for binding in module.imports if binding.bound == head] if module is not None else []
            if home is not None:                          # a public name, which is imported when it is first asked for
                name = home
            elif module is not None and head in module.binds:
                return self.waiting.append((name, head))
            elif handed_on:
                for binding in handed_on:
                    self.walk(binding.module, [*([binding.attribute] if binding.attribute else []), *rest])
                return None
            elif (head and self.is_own(name.partition(".")[0])
                  and entry_points.module_path(f"{name}.{head}") is not None):
                name, attributes = f"{name}.{head}", rest
            elif module is not None:
                # the module itself, or a name made while running: nobody can say by what
                return self.waiting.append((name, None))
            else:
                return None
        return None


def _target(cls: type) -> Target:
    return cls.__module__, cls.__qualname__.partition(".")[0]


def _is_machinery(module: str) -> bool:
    return module == HOME or module in MACHINERY


def _named(target: str) -> Target:
    module, _, name = target.partition(":")
    return module, name


def _path(module: str) -> Path:
    path = entry_points.module_path(module)
    if path is None:
        raise BrokenComponent(f"the source of {module} cannot be read, so its results cannot be told apart from those "
                              "of another version")
    return path


def _read(module: str, path: Path) -> Module:
    content = path.read_bytes()
    if path.suffix != ".py":                              # compiled: it counts as a whole
        return syntax_tree.opaque(content)
    try:
        return syntax_tree.read(content, module if path.name == "__init__.py" else module.rpartition(".")[0],
                                module in VALUES)
    except (SyntaxError, ValueError) as error:
        raise BrokenComponent(f"the source of {module} cannot be read: {type(error).__name__}: {error}") from error


def _top_folder(module: str) -> Path | None:
    """The folder from which the package of a module was imported."""
    path = entry_points.module_path(module.partition(".")[0])
    return path and (path.parent.parent if path.name == "__init__.py" else path.parent).resolve()


@functools.cache
def _installed() -> set[Path]:
    """The folders of the standard library and of installed packages."""
    return {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}


def _unreadable(cls: type) -> str:
    where = ("in the notebook or console" if cls.__module__ == "__main__"
             and not hasattr(sys.modules["__main__"], "__file__") else f"in {cls.__module__}")
    return (f"{cls.__name__} is defined {where}, whose source cannot be read: write the class into a file of its own "
            "and name the file with "
            "plugins=[...] or --plugin, so that workers find it and its results can be told apart from those of "
            "another version")
