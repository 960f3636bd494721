"""The conformance suite: checks that every component of a kind must pass.

Used by `diffbench check` and by authors' tests.

    diffbench check my-samplers                                   # on the command line
    test_rk4 = conformance("my-samplers.rk4")                     # in the author's own tests

A check is one statement about one configuration. It holds, fails with a sentence, or does not apply for a reason; one
that does not apply is never counted as passed.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench.errors import DiffbenchError, UnknownComponent
from diffbench.registry.describing import label
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry, load_registry
from diffbench.testing.verdicts import NotApplicable

NO_CHECKS = ("the kind {!r} has no checks but those of form; the package that offers the kind adds them by the hook "
             "diffbench_checks")


@dataclass(frozen=True)
class Check:
    """One statement about one configuration of a component, and the function that checks it."""

    subject: str                      # the configuration: "ddim(eta=0.5)"
    statement: str                    # "converges at order 1 on cosine"
    run: Callable[[], Any]            # returns what it measured, or raises AssertionError or NotApplicable


@dataclass(frozen=True)
class Outcome:
    """The result of one check."""

    check: Check
    status: str                       # "passed", "failed", "not applicable"
    detail: str = ""                  # why, where it did not pass
    measured: Any = None


def checks(registry: Registry, ref: Ref, *, quick: bool = False) -> Iterator[Check]:
    """All checks of a registered component: of its form, and of its kind for each of its `examples`.

    It is checked beside the built-in components and those of its own package. quick: beside one noise schedule of each
    sort instead of all; what is a schedule itself is checked as ever.
    """
    from diffbench.testing.checks.form import form_checks
    from diffbench.testing.stand_ins import examples, one_schedule_of_a_sort, surroundings

    makers = of_kind(registry, ref.kind)
    try:
        components = examples(registry, ref.kind, ref.full_name)
    except (AssertionError, DiffbenchError) as error:
        message = str(error)

        def fail() -> None:
            raise AssertionError(message)
        yield Check(ref.full_name, "can be made", fail)
        return
    for statement, run in form_checks(registry, ref):
        yield Check(ref.full_name, statement, run)
    if not makers:
        def skip() -> None:
            raise NotApplicable(NO_CHECKS.format(ref.kind))
        yield Check(ref.full_name, "does what its kind must", skip)
    neighbours = surroundings(registry, ref)
    if quick and makers and ref.kind != "noise_schedule":
        neighbours = one_schedule_of_a_sort(neighbours)
    for component in components:
        for maker in makers:
            for statement, run in maker(neighbours, component):
                yield Check(label(component, registry), statement, run)


def of_kind(registry: Registry, kind: str) -> list[Callable[..., Iterator[tuple[str, Callable[[], Any]]]]]:
    """The makers of checks for a kind: the suite's own, and those of plug-ins."""
    from diffbench.testing.checks import BY_KIND

    makers = [BY_KIND[kind]] if kind in BY_KIND else []
    return makers + [maker for maker in registry.answers("diffbench_checks", kind=kind) if maker is not None]


def outcome(check: Check) -> Outcome:
    """Runs one check; anything that it raises becomes its outcome."""
    try:
        return Outcome(check, "passed", measured=check.run())
    except NotApplicable as reason:
        return Outcome(check, "not applicable", str(reason))
    except AssertionError as error:
        return Outcome(check, "failed", str(error) or _place(error))
    except Exception as error:  # noqa: BLE001  a component that raises has failed its check
        return Outcome(check, "failed", f"{type(error).__name__}: {error} ({_place(error)})")


def subjects(registry: Registry, names: tuple[str, ...] = ()) -> list[Ref]:
    """The components selected by names: a component, 'scheduler ddim' as two words, a kind or a distribution.

    All by default.
    """
    everything = [ref for kind in registry.kinds for ref in registry.refs(kind)]
    if not names:
        return everything
    if len(names) == 2 and names[0].replace("-", "_") in registry.kinds:
        return [registry.find(names[0].replace("-", "_"), names[1])]
    refs: list[Ref] = []
    for name in names:
        folded = name.replace("-", "_")
        matches = [ref for ref in everything if folded in (ref.kind, ref.name,
                                                           *(n.replace("-", "_")
                                                             for n in (ref.full_name, ref.distribution)))]
        if not matches:
            raise UnknownComponent(f"there is no component, kind or package named {name!r}; `diffbench list` shows "
                                   "what is installed")
        refs += [ref for ref in matches if ref not in refs]
    return refs


def conformance(name: str, *, quick: bool = False) -> Callable[[], None]:
    """A test function that runs all checks of a component, or of all components of a package, and reports failures.

    quick: as for `checks`.
    """
    def test() -> None:
        __tracebackhide__ = True                          # the sentences say it all: pytest need not show this function
        import torch

        threads, registry, trace = torch.get_num_threads(), load_registry(), logging.getLogger("torch.__trace")
        was_disabled = trace.disabled
        torch.set_num_threads(1)                          # many small tensors: more threads only wait for each other
        trace.disabled = True                             # torch.compile writes pages to it, which pytest would show
        try:
            outcomes = [outcome(check) for ref in subjects(registry, (name,))
                        for check in checks(registry, ref, quick=quick)]
        finally:
            torch.set_num_threads(threads)
            trace.disabled = was_disabled
        failed = [f"{o.check.subject} {o.check.statement}: {o.detail}" for o in outcomes if o.status == "failed"]
        if failed:
            raise AssertionError("\n".join([f"{len(failed)} of {len(outcomes)} checks failed", *failed]))
        if not any(o.status == "passed" for o in outcomes):
            raise AssertionError(f"no check applies to {name}")
    test.__doc__ = f"Conformance of {name}."
    return test


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}: {last.line}"
