"""A case: one thing that is measured, and the work it prepares.

Used by `components` and by the benchmarks of the harness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from diffbench.errors import DiffbenchError
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry
from diffbench.testing.stand_ins import examples


class Unmeasurable(DiffbenchError):
    """Raised for a case that cannot be prepared here; the message is the reason."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Prepared work, which may be run any number of times."""

    run: Callable[[], object]
    evaluations: Callable[[], float] | None = None     # network evaluations per sample so far; none where no sampler
                                                       # or guidance is at work
    images: int = 0                                    # that one run goes through, where it makes sense to say
    traced: tuple[Any, tuple[Any, ...]] | None = None  # (module, arguments) that torch.compile is to take in one piece


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to measure."""

    name: str                         # "scheduler ddim: a step of 64x3x32x32"; unique
    prepare: Callable[[torch.device], Work]               # raises DiffbenchError with the reason where it cannot
    is_timed: bool = True
    is_counted: bool = True


def make(registry: Registry, ref: Ref) -> Any:
    """The component with its defaults, or its first example where an option has no default. Raises Unmeasurable."""
    if "required" not in dict(ref.summary().options).values():
        return registry.create(ref.kind, ref.full_name)
    components = examples(registry, ref.kind, ref.full_name)
    if not components:
        raise Unmeasurable(f"{ref.kind} {ref.full_name} has options without a default and names no examples")
    return components[0]


def size(shape: Iterable[int]) -> str:
    """A shape as text, such as '64x3x32x32'."""
    return "x".join(map(str, shape))
