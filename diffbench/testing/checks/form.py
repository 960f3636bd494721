"""Checks of the form of a component: a frozen, documented dataclass that a plan can rebuild. Used by `conformance`."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from diffbench.contracts.options import comments
from diffbench.registry.describing import describe, rebuild
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry
from diffbench.testing.stand_ins import examples
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]


def form_checks(registry: Registry, ref: Ref) -> Checks:
    """Checks of a registered component that do not depend on its options."""
    for statement, check in (("is registered under its class's name in snake case", _name),
                             ("is a frozen, keyword-only dataclass", _dataclass),
                             ("has a docstring of its own", _docstring), ("says what each option means", _meanings),
                             ("is the same when it is rebuilt from a plan", _rebuilt)):
        yield statement, partial(check, registry, ref)


def where(registry: Registry, ref: Ref) -> str:
    """The place of a component's class, 'file.py:12', or its target where there is no source."""
    try:
        cls = registry.load(ref)
        return f"{Path(inspect.getsourcefile(cls) or '')}:{inspect.getsourcelines(cls)[1]}"
    except (OSError, TypeError, ImportError):
        return ref.target


def _name(registry: Registry, ref: Ref) -> None:
    name = registry.load(ref).component_name()
    assert name == ref.name, (f"the entry point is {ref.name!r}, and class {registry.load(ref).__name__} is {name!r}: "
                              "one of them is to be renamed")


def _dataclass(registry: Registry, ref: Ref) -> None:
    cls = registry.load(ref)
    assert is_dataclass(cls) and "__dataclass_params__" in vars(
        cls), f"write @dataclass(frozen=True, kw_only=True) above class {cls.__name__}"
    assert cls.__dataclass_params__.frozen, (f"class {cls.__name__} is not frozen: write @dataclass(frozen=True, "
                                             "kw_only=True)")
    loose = [f.name for f in fields(cls) if not f.kw_only]
    assert not loose, f"{', '.join(loose)} can be given without a name: write @dataclass(frozen=True, kw_only=True)"


def _docstring(registry: Registry, ref: Ref) -> None:
    cls = registry.load(ref)
    own = vars(cls).get("__doc__") or ""
    assert own.strip() and not own.startswith(f"{cls.__name__}("), (
        f"class {cls.__name__} has none: its first line is what `diffbench list` shows")


def _meanings(registry: Registry, ref: Ref) -> None:
    cls = registry.load(ref)
    meanings = comments(cls)
    if not meanings:
        raise NotApplicable("it has no options")
    silent = [name for name, text in meanings.items() if not text]
    assert not silent, f"write a comment on the line of {', '.join(silent)}: `diffbench show` gives it as the meaning"


def _rebuilt(registry: Registry, ref: Ref) -> None:
    for component in examples(registry, ref.kind, ref.full_name):
        again = rebuild(ref.kind, json.loads(json.dumps(describe(component, registry))), registry)
        assert again == component, f"{component} comes back as {again}"
