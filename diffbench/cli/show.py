"""diffbench show"""

from __future__ import annotations

import inspect
from dataclasses import MISSING, fields
from typing import Any

import click

from diffbench.cli import completing
from diffbench.cli.common import JSON, PLUGIN
from diffbench.cli.output import say, say_data


@click.command()
@click.argument("kind", shell_complete=completing.kinds)
@click.argument("name", shell_complete=completing.components)
@JSON
@PLUGIN
def command(kind: str, name: str, as_json: bool, plugins: tuple[str, ...]) -> None:
    """Show a component: its docstring, its options with range, default and meaning, what it claims,
    where it comes from.
    """
    from diffbench.contracts.options import accepts, comments, half_of
    from diffbench.registry.registry import load_registry

    registry = load_registry(plugins)
    component_kind = registry.kind(kind)
    kind, half = component_kind.name, component_kind.half
    ref = registry.find(kind, name)
    cls = registry.load(ref)
    meaning = comments(cls)
    options = [{"name": f.name, "accepts": accepts(cls, f.name), "default": None if f.default is MISSING else f.default,
                "required": f.default is MISSING,
                "meaning": meaning[f.name], "affects": half_of(f, half)} for f in fields(cls)]
    facts = claims(cls, kind)
    if as_json:
        say_data({"kind": kind, "name": ref.full_name, "origin": ref.origin, "target": ref.target,
                               "aliases": list(cls.aliases),
                               "presets": dict(cls.presets), "docstring": inspect.getdoc(cls), "options": options,
                               "claims": facts}, indent=1, default=str)
        return
    say(f"{kind} {ref.full_name}   ({ref.origin}, {ref.target})\n")
    say(inspect.getdoc(cls) or "(no docstring)")
    say("\nOptions" if options else "\nNo options")
    for option in options:
        default = "required" if option["required"] else f"default {option['default']!r}"
        is_marked = option["affects"] == "sampling" and half == "training"
        mark = "  [sampling only: cells that differ in it share one training]" if is_marked else ""
        say(f"  {option['name']}: {option['accepts']}, {default}{mark}")
        if option["meaning"]:
            say(f"      {option['meaning']}")
    for claim, value in facts.items():
        say(f"{claim}: {value}")
    for preset, chosen in cls.presets.items():
        say(f"preset {preset}: " + ", ".join(f"{option} {value}" for option, value in chosen.items()))
    if cls.aliases:
        say(f"also known as: {', '.join(cls.aliases)}")


def claims(cls: type, kind: str) -> dict[str, Any]:
    """Properties that a component states of itself and the tests check."""
    if kind == "scheduler":
        component = cls()
        return {"order of convergence": component.order,
                "network evaluations": f"{component.nfe(component.steps)} for {component.steps} steps",
                "adds noise": component.is_stochastic}
    if kind == "noise_schedule":
        end = cls().at(1.0)
        return {"grid points": cls().grid or "continuous", "terminal SNR": f"{(end.alpha / end.sigma) ** 2:.3g}",
                "at t = 1": f"alpha {end.alpha:.4g}, sigma {end.sigma:.4g}"}
    if kind == "backbone":
        return {"sockets": ", ".join(sorted(cls.ports)) or "none"}
    return {}
