"""Which installed plug-ins take part, and what is wrong with the others: every fault is named with its distribution and
touches nothing else.

A package says which version of the plug-in interface it was written for by an entry point of the group `diffbench.api`:

    [project.entry-points."diffbench.api"]
    v1 = "my_samplers"

It may name several. One that names none is taken for version 1. `DIFFBENCH_BLOCK=my-samplers,other-package` keeps
packages out.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pluggy

from diffbench.registry import entry_points, hooks, loading
from diffbench.wording import did_you_mean

# version of contracts and hooks; raised when a plug-in that worked would no longer
API = 1
OLDEST_API = 1                        # the oldest that is still understood
API_GROUP = "diffbench.api"
# beside one for each kind
OTHER_GROUPS = ("diffbench", "diffbench.launcher", "diffbench.tracker", API_GROUP)
BLOCK = "DIFFBENCH_BLOCK"

SLOW_HOOKS_SECONDS = 1.0              # of a module of hooks, which every command imports
SLOW_COMPONENT_SECONDS = 5.0          # of a component, torch and diffbench apart; it is imported where it is used
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "scipy")             # not to be imported by a module of hooks


@dataclass(frozen=True)
class PluginProblem:
    """Something wrong with an installed plug-in, and whose it is."""

    distribution: str
    message: str


def kept_out() -> dict[str, str]:
    """Why a distribution takes no part, by its name:
    it is blocked, or written for another version of the plug-in interface.
    """
    blocked = _named_to_block()
    reasons = {name: f"it is blocked by {BLOCK}" for name in entry_points.distributions() if canonical(name) in blocked}
    for name, declared in _declared().items():
        versions = [int(match[1]) for version in declared if (match := re.fullmatch(r"v([1-9]\d{0,3})", version))]
        if versions and not any(OLDEST_API <= v <= API for v in versions):
            newer = min(versions) > API
            reasons.setdefault(name, f"it is written for version {', '.join(map(str, sorted(versions)))} of the "
                                     "plug-in interface, and this diffbench has "
                                     f"{_between(OLDEST_API, API)}: upgrade {'diffbench' if newer else name}")
    return reasons


def faults(groups: Iterable[str]) -> Iterator[PluginProblem]:
    """Faults in what packages declare, read without importing them; groups: those of the kinds that exist."""
    known = {*groups, *OTHER_GROUPS}
    for group in entry_points.groups():
        if group not in known:
            for name in sorted({point.distribution for point in entry_points.entry_points(group)}):
                near = did_you_mean(group, known)
                yield PluginProblem(name, f"{name} has entry points of the group {group!r}, which nobody reads.{near} "
                                          f"Groups are: {', '.join(sorted(known))}")
    for name, declared in _declared().items():
        wrong = [version for version in declared if not re.fullmatch(r"v[1-9]\d{0,3}", version)]
        if wrong:
            yield PluginProblem(name, f"{name} declares {wrong[0]!r} as its version of the plug-in interface; write "
                                      f"v{API} under {API_GROUP!r}")
    installed = {canonical(name): name for name in entry_points.distributions()}
    for word in sorted(_named_to_block() - set(installed)):
        yield PluginProblem(BLOCK, f"{BLOCK} names {word!r}, and no plug-in of that name is "
                                   f"installed.{did_you_mean(word, installed)}")
    for name, reason in kept_out().items():
        if BLOCK not in reason:
            yield PluginProblem(name, f"{name} is left out: {reason}")


def load_hooks(manager: pluggy.PluginManager, out: Iterable[str], only: Iterable[str] | None = None) -> Iterator[
        PluginProblem]:
    """Registers every package's hooks but those of `out`, one by one: pluggy's own loader stops at the first broken
    package and keeps one of two that share a name. Gives what is wrong; a package with a misspelt hook is not
    registered. only: the labels of those to load.
    """
    for point in entry_points.entry_points("diffbench"):
        if point.distribution in out:
            continue
        label = point.label
        if only is not None and label not in only:
            continue
        before = set(sys.modules)
        try:
            with loading.importing(f"plug-in {label} ({point.value})"):
                start = time.perf_counter()
                plugin = point.load()
                seconds = time.perf_counter() - start
        except Exception as error:  # noqa: BLE001  a stranger's module may raise anything
            yield PluginProblem(point.distribution, f"plug-in {label} ({point.value}) cannot be loaded: "
                                                    f"{why(error, point.distribution)}")
            continue
        yield from _slow(label, point, seconds, before)
        wrong = list(misspelt(plugin))
        for reason in wrong:
            yield PluginProblem(point.distribution, f"plug-in {label} is switched off: {reason}")
        if not wrong:
            manager.register(plugin, name=label)
            yield from (PluginProblem(point.distribution, f"plug-in {label}: {reason}") for reason in unmarked(plugin))


def misspelt(plugin: object) -> Iterator[str]:
    """Faults in the hook implementations of a module:
    a hook that does not exist, an argument that it does not give.
    """
    for name, function in vars(plugin).items():
        marks = getattr(function, "diffbench_impl", None)
        if marks is None:
            continue
        hook = marks["specname"] or name
        if hook not in HOOKS:
            if not marks["optionalhook"]:
                yield f"there is no hook {hook!r}.{did_you_mean(hook, HOOKS)} Hooks are: {', '.join(HOOKS)}"
            continue
        given = list(inspect.signature(HOOKS[hook]).parameters)
        for argument in inspect.signature(function).parameters:
            if argument not in given and argument != "self":
                near, gives = did_you_mean(argument, given), ", ".join(given) or "nothing"
                yield f"its {name} asks for {argument!r}, which the hook does not give.{near} It gives: {gives}"


def unmarked(plugin: object) -> Iterator[str]:
    """Functions with the name of a hook that are none, because nothing marks them: they would never be called."""
    for name, function in vars(plugin).items():
        if (name in HOOKS and inspect.isfunction(function) and not hasattr(function, "diffbench_impl")
            and not hasattr(function, "diffbench_spec")):
            yield f"{name} is never called: write @diffbench.hookimpl above it"


def why(error: BaseException, distribution: str) -> str:
    """An error of an import, with what to do where a dependency is missing."""
    text = f"{type(error).__name__}: {error}"
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return text
    missing = error.name.partition(".")[0]
    if canonical(missing) in entry_points.requirements(distribution):
        return f"{text}; {distribution} declares it: pip install --force-reinstall {distribution} brings it"
    return f"{text}; {distribution} does not declare it as a dependency: install it, and tell its author"


def canonical(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _slow(label: str, point: entry_points.Point, seconds: float, before: set[str]) -> Iterator[PluginProblem]:
    heavy = [name for name in HEAVY if name in sys.modules and name not in before]
    if heavy or seconds > SLOW_HOOKS_SECONDS:
        cost = f"imports {', '.join(heavy)} ({seconds:.1f} s)" if heavy else f"takes {seconds:.1f} s to import"
        advice = f"import what is heavy inside the functions of {point.value}"
        yield PluginProblem(point.distribution, f"plug-in {label} {cost}, and every command waits for it: {advice}")


def _named_to_block() -> set[str]:
    return {canonical(word.strip()) for word in os.environ.get(BLOCK, "").split(",") if word.strip()}


def _declared() -> dict[str, list[str]]:
    """The versions each distribution declares, as written."""
    versions: dict[str, list[str]] = {}
    for point in entry_points.entry_points(API_GROUP):
        versions.setdefault(point.distribution, []).append(point.name)
    return versions


def _between(low: int, high: int) -> str:
    return f"version {high}" if low == high else f"versions {low} to {high}"


HOOKS: dict[str, Callable[..., Any]] = {name: function for name, function in vars(hooks).items()
                                        if hasattr(function, "diffbench_spec")}
