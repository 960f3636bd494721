"""What is measured: one case for each registered component and way of using it, a stranger's included, and those of the harness.

Making the list imports no component. A case is prepared on a device, which may refuse with a reason, and gives work that can be repeated.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from diffbench.errors import DiffbenchError, unknown_name
from diffbench.registry import HOME, Ref, Registry


class Unmeasurable(DiffbenchError):
    """A case that cannot be prepared here; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Prepared work, to be run as often as one likes."""

    run: Callable[[], object]
    evaluations: Callable[[], float] | None = None        # network evaluations per sample so far; none where no sampler or guidance is at work
    images: int = 0                                       # that one run goes through, where it makes sense to say
    traced: tuple[Any, tuple[Any, ...]] | None = None     # (module, arguments) that torch.compile is to take in one piece


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure."""

    suite: str                        # one of SUITES
    name: str                         # "scheduler ddim: a step of 64x3x32x32"; unique
    prepare: Callable[[torch.device], Work]               # raises DiffbenchError with the reason where it cannot
    is_timed: bool = True
    is_counted: bool = True
    is_ours: bool = True              # offered by this distribution; a stranger's has no stored count


Maker = Callable[[Registry, Ref], Iterator[Case]]
JOINING = ("and", "or", "not", "(", ")")
SUITES = ("scheduler", "backbone", "conditioning", "objective", "dataset", "extractor", "frechet", "training", "sampling", "plan", "store", "run")


def cases(registry: Registry, suites: Iterable[str] = (), expression: str = "") -> list[Case]:
    """The cases of some suites, all where none is named, whose name fits an expression such as "ddim or (unet and not backward)".

    Raises DiffbenchError for a suite that does not exist and for an expression that cannot be read.
    """
    from diffbench.benching.harness import harness_cases
    from diffbench.benching.parts import BY_KIND

    wanted = tuple(suites) or SUITES
    for suite in wanted:
        if suite not in SUITES:
            raise DiffbenchError(f"--suite: {unknown_name('suite', suite, SUITES)}")
    found = [case for kind, maker in BY_KIND.items() for ref in registry.refs(kind) for case in maker(registry, ref)]
    found += harness_cases(registry)
    fits = chooser(expression)
    return [case for case in found if case.suite in wanted and fits(case.name)]


def chooser(expression: str) -> Callable[[str], bool]:
    """Whether a name fits phrases joined by `and`, `or`, `not` and brackets; a phrase fits where it is part of the name. Everything fits ""."""
    tokens: list[str] = []
    for word in re.findall(r"[()]|[^\s()]+", expression):
        if word in JOINING:
            tokens.append(word)
        elif tokens and tokens[-1] not in JOINING:
            tokens[-1] += f" {word}"                      # '10 steps' is one phrase
        else:
            tokens.append(word)
    try:
        tree = ast.parse(" ".join(token if token in JOINING else repr(token) for token in tokens) or "''", mode="eval").body
        _fits(tree, "")
    except (SyntaxError, KeyError):
        raise DiffbenchError(f"-k: expected phrases joined by 'and', 'or', 'not' and brackets, such as \"ddim and not backward\", got {expression!r}") from None
    return lambda name: _fits(tree, name)


def _fits(tree: ast.expr, name: str) -> bool:
    """KeyError for a tree that is no expression of phrases."""
    if isinstance(tree, ast.Constant):
        return tree.value in name
    if isinstance(tree, ast.UnaryOp):
        return not _fits(tree.operand, name)
    if isinstance(tree, ast.BoolOp):
        return (all if isinstance(tree.op, ast.And) else any)([_fits(part, name) for part in tree.values])
    raise KeyError(type(tree).__name__)


def make(registry: Registry, ref: Ref) -> Any:
    """The component with its defaults, or its first example where an option has none; raises Unmeasurable where it names no examples."""
    from diffbench.testing.stand_ins import examples

    if "required" not in dict(ref.summary().options).values():
        return registry.create(ref.kind, ref.full_name)
    made = examples(registry, ref.kind, ref.full_name)
    if not made:
        raise Unmeasurable(f"{ref.kind} {ref.full_name} has options without a default and names no examples")
    return made[0]


def is_ours(ref: Ref) -> bool:
    """Whether this distribution offers it."""
    return ref.distribution == HOME


def size(shape: Iterable[int]) -> str:
    """'64x3x32x32'."""
    return "x".join(map(str, shape))
