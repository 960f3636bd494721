"""The conformance suite: what every component of a kind must do, checked on any registered one, a stranger's included.

    diffbench check my-samplers                                   # on the command line
    test_rk4 = conformance("my-samplers.rk4")                     # in the author's own tests

A check is one statement about one configuration. It holds, fails with a sentence, or does not apply for a reason; one that does not
apply is never counted as passed.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench.errors import DiffbenchError, UnknownComponent
from diffbench.registry import Ref, Registry, load_registry
from diffbench.specs import label


class NotApplicable(Exception):
    """Raised by a check that has nothing to say about a configuration; the message is the reason."""


@dataclass(frozen=True)
class Check:
    """One statement about one configuration of a component."""

    subject: str                      # the configuration: "ddim(eta=0.5)"
    statement: str                    # "converges at order 1 on cosine"
    run: Callable[[], Any]            # returns what it measured, or raises AssertionError or NotApplicable


@dataclass(frozen=True)
class Outcome:
    """What became of a check."""

    check: Check
    status: str                       # "passed", "failed", "not applicable"
    detail: str = ""                  # why, where it did not pass
    measured: Any = None


def checks(registry: Registry, ref: Ref, *, quick: bool = False) -> Iterator[Check]:
    """Every check of a registered component: of its form, and of its kind for each of its `examples`.

    It is checked beside the built-in components and those of its own package. quick: beside one noise schedule of each sort instead of
    all; what is a schedule itself is checked as ever.
    """
    from diffbench.testing.checks import BY_KIND
    from diffbench.testing.checks.form import form_checks
    from diffbench.testing.stand_ins import examples, one_schedule_of_a_sort, surroundings

    makers = [BY_KIND[ref.kind]] if ref.kind in BY_KIND else []
    makers += [maker for maker in registry.answers("diffbench_checks", kind=ref.kind) if maker is not None]
    try:
        made = examples(registry, ref.kind, ref.full_name)
    except (AssertionError, DiffbenchError) as error:
        message = str(error)

        def unmakeable() -> None:
            raise AssertionError(message)
        yield Check(ref.full_name, "can be made", unmakeable)
        return
    for statement, run in form_checks(registry, ref):
        yield Check(ref.full_name, statement, run)
    beside = surroundings(registry, ref)
    if quick and makers and ref.kind != "noise_schedule":
        beside = one_schedule_of_a_sort(beside)
    for component in made:
        for maker in makers:
            for statement, run in maker(beside, component):
                yield Check(label(component, registry), statement, run)


def outcome(check: Check) -> Outcome:
    """Runs one check; whatever it raises becomes its outcome."""
    try:
        return Outcome(check, "passed", measured=check.run())
    except NotApplicable as reason:
        return Outcome(check, "not applicable", str(reason))
    except AssertionError as error:
        return Outcome(check, "failed", str(error) or _place(error))
    except Exception as error:  # noqa: BLE001  a component that raises has failed its check
        return Outcome(check, "failed", f"{type(error).__name__}: {error} ({_place(error)})")


def subjects(registry: Registry, wanted: tuple[str, ...] = ()) -> list[Ref]:
    """The components meant by names: 'ddim', 'my-samplers.rk4', 'scheduler ddim' as two words, a kind, or a distribution; all where none is given."""
    everything = [ref for kind in registry.kinds for ref in registry.refs(kind)]
    if not wanted:
        return everything
    if len(wanted) == 2 and wanted[0].replace("-", "_") in registry.kinds:
        return [registry.find(wanted[0].replace("-", "_"), wanted[1])]
    found: list[Ref] = []
    for name in wanted:
        folded = name.replace("-", "_")
        named = [ref for ref in everything if folded in (ref.kind, ref.name, *(n.replace("-", "_") for n in (ref.full_name, ref.distribution)))]
        if not named:
            raise UnknownComponent(f"there is no component, kind or package named {name!r} to check; `diffbench list` shows what is installed")
        found += [ref for ref in named if ref not in found]
    return found


def conformance(name: str, *, quick: bool = False) -> Callable[[], None]:
    """A test function that runs every check of one component, or of every component of a package, and reports all that fail.

    quick: as for `checks`.
    """
    def test() -> None:
        import torch

        threads, registry = torch.get_num_threads(), load_registry()
        torch.set_num_threads(1)                          # many small tensors: more threads only wait for each other
        try:
            outcomes = [outcome(check) for ref in subjects(registry, (name,)) for check in checks(registry, ref, quick=quick)]
        finally:
            torch.set_num_threads(threads)
        failed = [o for o in outcomes if o.status == "failed"]
        assert not failed, "\n".join(f"{o.check.subject} {o.check.statement}: {o.detail}" for o in failed)
        assert any(o.status == "passed" for o in outcomes), f"no check applies to {name}"
    test.__doc__ = f"Conformance of {name}."
    return test


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}: {last.line}"
