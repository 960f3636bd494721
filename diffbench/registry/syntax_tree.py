"""Statements of a Python file as its syntax tree shows them: what each binds, reads and runs. Used by `code_identity`.

Nothing is imported. Where a file could do one thing or another, the answer is the one that counts more code.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

Chain = tuple[str, ...]               # a dotted name: ("torch", "nn", "Module")

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_DOCUMENTED = (ast.Module, ast.ClassDef, *_FUNCTIONS)
# Decorators whose only effect is on what they decorate. Any other may enter it into a table that something else reads.
_LOCAL_DECORATORS = {
    "dataclass", "dataclasses.dataclass", "register", "diffbench.register", "hookimpl", "diffbench.hookimpl",
    "abstractmethod", "abc.abstractmethod",
    "cache", "lru_cache", "wraps", "total_ordering", "functools.cache", "functools.lru_cache", "functools.wraps",
    "functools.total_ordering",
    "contextmanager", "contextlib.contextmanager", "final", "overload", "runtime_checkable", "typing.final",
    "typing.overload",
    "typing.runtime_checkable", "torch.no_grad", "torch.inference_mode", "torch.enable_grad",
}
_DYNAMIC_CALLS = {"globals", "locals", "exec", "eval", "__import__"}
_DYNAMIC_NAMES = {"__subclasses__", "__init_subclass__", "__getattr__"}
_CHANGING_CALLS = {"setattr", "delattr", "exec", "eval"}


@dataclass(frozen=True)
class Import:
    """A name that an import binds: to a module, or to an attribute of one."""

    bound: str
    module: str
    attribute: str | None = None      # None: the module itself


@dataclass(frozen=True)
class Statement:
    """A statement of a module's top level."""

    digest: bytes                     # of its syntax tree without docstrings and comments
    reads: frozenset[Chain]           # dotted names in it, those of its functions' bodies too
    texts: frozenset[str]             # string constants that may name a module
    imports: tuple[Import, ...]       # by statements inside it


@dataclass
class Module:
    """A file of source, statement by statement."""

    all: list[Statement] = field(default_factory=list)
    binds: dict[str, list[Statement]] = field(default_factory=dict)  # name -> the statements that make it what it is
    runs: list[Statement] = field(default_factory=list)              # those with an effect beyond the name they bind
    imports: list[Import] = field(default_factory=list)              # of the top level
    imported: list[str] = field(default_factory=list)                # modules that running the file runs
    is_dynamic: bool = False                                         # its names cannot be followed: it counts as a
                                                                     # whole


@functools.lru_cache(maxsize=4096)
def read(text: bytes, package: str, without_defaults: bool = False) -> Module:
    """The statements of a source file; package: against which it imports relatively.

    without_defaults: values of annotated class attributes are left out. Remembered by the text, so that an edit is seen
    at once.
    """
    tree, module = ast.parse(text), Module()
    module.is_dynamic = any(map(_is_dynamic, ast.walk(tree)))
    acting = {node.name for node in tree.body if isinstance(node, _FUNCTIONS) or isinstance(node, ast.ClassDef)
              and _has_constructor(node)}
    _without_docstrings(tree)
    if without_defaults:
        _without_default_values(tree)
    _Reader(module, package, acting).statements(tree.body)
    return module


def opaque(content: bytes) -> Module:
    """A module without source: one statement, which runs."""
    statement = Statement(hashlib.sha256(content).digest(), frozenset(), frozenset(), ())
    return Module(all=[statement], runs=[statement], is_dynamic=True)


class _Reader:
    """Sorts the statements of one module."""

    def __init__(self, module: Module, package: str, acting: set[str]):
        self.module, self.package, self.acting = module, package, acting

    def statements(self, body: Iterable[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node, runs=True)
            elif isinstance(node, ast.If) and _last(node.test) == "TYPE_CHECKING":
                for inner in node.body:                   # never run, but they say what an annotation means
                    if isinstance(inner, ast.Import | ast.ImportFrom):
                        self._import(inner, runs=False)
                self.statements([*(n for n in node.body if not isinstance(n, ast.Import | ast.ImportFrom)),
                                 *node.orelse])
            elif not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
                self._add(node)

    def _import(self, node: ast.Import | ast.ImportFrom, *, runs: bool) -> None:
        if any(alias.name == "*" for alias in node.names):
            self.module.is_dynamic = True
        self.module.imports += _bindings(node, self.package)
        if runs:
            self.module.imported += _modules(node, self.package)

    def _add(self, node: ast.stmt) -> None:
        statement = _statement(node, self.package)
        self.module.all.append(statement)
        names, has_effects = self._bound(node)
        for name in names:
            self.module.binds.setdefault(name, []).append(statement)
        if has_effects:
            self.module.runs.append(statement)
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    self._import(inner, runs=True)

    def _bound(self, node: ast.stmt) -> tuple[set[str], bool]:
        """(names that a statement makes or changes, whether it has an effect beyond them)."""
        if isinstance(node, _FUNCTIONS):
            defaults = [*node.args.defaults, *(d for d in node.args.kw_defaults if d is not None)]
            return {node.name}, not _are_local(node.decorator_list) or any(map(self._acts, defaults))
        if isinstance(node, ast.ClassDef):
            plain = all(isinstance(n, (ast.Assign, ast.AnnAssign, ast.Pass, ast.ClassDef, *_FUNCTIONS)) or _is_text(n)
                        for n in node.body)
            values = [n.value for n in node.body if isinstance(n, ast.Assign | ast.AnnAssign) and n.value is not None]
            return ({node.name}, bool(node.keywords) or not plain or not _are_local(node.decorator_list)
                    or any(map(self._sets, values)))
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {name for target in targets for name in _roots(target)}
            plain = {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)
                     and isinstance(n.ctx, ast.Store)}
            foreign = {i.bound for i in self.module.imports} & (names - plain)
            return names, bool(foreign) or node.value is not None and self._acts(node.value)
        if is_main_guard(node):                          # does not run where the file is imported
            return set(), False
        return {name for inner in ast.walk(node) for name in _names_bound(inner)}, True

    def _acts(self, value: ast.expr) -> bool:
        """Whether working out a value runs a function of this package, or changes something by name."""
        top = self.package.partition(".")[0]
        imported = {i.bound for i in self.module.imports if top and i.module.partition(".")[0] == top
                    and i.bound[:1].islower()}
        return any(isinstance(n, ast.Call) and _roots(n.func) & (self.acting | imported | _CHANGING_CALLS)
                   for n in run_at_once(value))

    def _sets(self, value: ast.expr) -> bool:
        return any(isinstance(n, ast.Call) and _last(n.func) in _CHANGING_CALLS for n in run_at_once(value))


def _statement(node: ast.stmt, package: str) -> Statement:
    reads: set[Chain] = set()
    _reads(node, reads)
    inner = [n for n in ast.walk(node) if isinstance(n, ast.Import | ast.ImportFrom)]
    texts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)
             and "." in n.value and len(n.value) < 200}
    return Statement(hashlib.sha256(ast.dump(node).encode()).digest(), frozenset(reads), frozenset(texts),
                     tuple(binding for n in inner for binding in _bindings(n, package)))


def _reads(node: ast.AST, found: set[Chain]) -> None:
    """Every dotted name in a tree; names in annotations that are written as texts too."""
    chain = chain_of(node)
    if chain is not None:
        found.add(chain)
        return
    for name in ("annotation", "returns"):
        written = getattr(node, name, None)
        if isinstance(written, ast.Constant) and isinstance(written.value, str):
            try:
                _reads(ast.parse(written.value, mode="eval"), found)
            except SyntaxError:                           # a text that is no type names nothing
                continue
    for child in ast.iter_child_nodes(node):
        _reads(child, found)


def chain_of(node: ast.AST) -> Chain | None:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    return (node.id, *reversed(names)) if isinstance(node, ast.Name) else None


def _last(node: ast.AST) -> str:
    return (chain_of(node) or ("",))[-1]


def _roots(node: ast.AST) -> set[str]:
    """The names at the bottom of what is assigned to or called: 'a' of a, a.b, a[0] and a().b."""
    if isinstance(node, ast.Tuple | ast.List):
        return {name for element in node.elts for name in _roots(element)}
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _names_bound(node: ast.AST) -> Iterator[str]:
    if isinstance(node, (ast.ClassDef, *_FUNCTIONS)):
        yield node.name
    elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        yield node.id


def run_at_once(node: ast.AST) -> Iterator[ast.AST]:
    """The nodes of an expression that run when it is worked out: all but the bodies of lambdas."""
    yield node
    if not isinstance(node, ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from run_at_once(child)


def _bindings(node: ast.Import | ast.ImportFrom, package: str) -> list[Import]:
    if isinstance(node, ast.Import):
        return [Import(a.asname, a.name) if a.asname else Import(a.name.partition(".")[0], a.name.partition(".")[0])
                for a in node.names]
    home = _home(node, package)
    return [Import(a.asname or a.name, home, a.name) for a in node.names if a.name != "*"]


def _modules(node: ast.Import | ast.ImportFrom, package: str) -> list[str]:
    """The modules that an import may run; `from a import b` may mean the module a.b."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    home = _home(node, package)
    return [home, *(f"{home}.{alias.name}" for alias in node.names)]


def _home(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    base = package.split(".")[:len(package.split(".")) - node.level + 1]
    return ".".join([*base, *([node.module] if node.module else [])])


def _is_dynamic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        called = chain_of(node.func)
        return called is not None and (called[0] in _DYNAMIC_CALLS and len(called) == 1
                                       or called in (("vars",), ("dir",)) and not node.args)
    if isinstance(node, ast.Attribute):
        return node.attr in _DYNAMIC_NAMES or chain_of(node) == ("sys", "modules")
    return (isinstance(node, _FUNCTIONS) and node.name == "__init_subclass__" or isinstance(node, ast.keyword)
            and node.arg == "metaclass" or (
                isinstance(node, ast.Module) and any(isinstance(n, _FUNCTIONS) and n.name == "__getattr__"
                                                     for n in node.body)))


def _are_local(decorators: list[ast.expr]) -> bool:
    return all(".".join(chain_of(d.func if isinstance(d, ast.Call) else d) or ("?",)) in _LOCAL_DECORATORS
               for d in decorators)


def _has_constructor(node: ast.ClassDef) -> bool:
    return any(isinstance(n, _FUNCTIONS) and n.name in ("__new__", "__init__", "__post_init__") for n in node.body)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def is_main_guard(node: ast.AST) -> bool:
    return (isinstance(node, ast.If) and not node.orelse and isinstance(node.test, ast.Compare)
            and isinstance(node.test.left, ast.Name)
            and node.test.left.id == "__name__" and isinstance(node.test.ops[0], ast.Eq))


def _without_docstrings(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if (isinstance(node, _DOCUMENTED) and node.body and _is_text(node.body[0])
            and isinstance(node.body[0].value.value, str)):
            node.body[0] = ast.Expr(ast.Constant(""))


def _without_default_values(tree: ast.Module) -> None:
    for owner in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for node in owner.body:
            if isinstance(node, ast.AnnAssign) and "ClassVar" not in ast.dump(node.annotation):
                node.value = None
