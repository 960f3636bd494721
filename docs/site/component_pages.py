"""The page of each component, made from the component:
docstring, figure, options, claims, measured orders, presets, source.
"""

from __future__ import annotations

import html
import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import typeset
from figures import built_in

from diffbench import Registry
from diffbench.cli.show import claims
from diffbench.contracts.options import accepts, comments, half_of
from diffbench.registry.ref import Ref

ROOT = Path(__file__).resolve().parents[2]
HALVES = {"training": "training", "sampling": "sampling only: cells that differ in it share one training",
          "measuring": "measuring",
          "incidental": "nothing: it cannot change a result"}
SEEN = {
    "noise_schedule": "This schedule against the others (grey), each with its defaults.",
    "scheduler": "This scheduler against the others (grey), each with its defaults: how far the mean and standard "
                 "deviation of x_0 are from the exact ones. "
                 "Nothing is drawn, so there is no noise in the curve. One task says nothing of another: measure "
                 "yours.",
    "spacing": "The times of this spacing and of the others (grey).",
    "parameterization": "What an error of the network's output F does to the two predictions, at each noise level.",
    "objective": "Weight over time: the same error everywhere, under this loss and the others (grey), with epsilon and "
                 "the default schedule.",
    "dataset": "The first forty images of the training split.",
}


def index(registry: Registry) -> str:
    """The page of all kinds."""
    lines = ["# Components", "", "Each page is made from the component itself, so that what it says of options and "
                                 "claims is what the code does. "
             "`diffbench list` and `diffbench show KIND NAME` say the same of what is installed, plug-ins included.",
             ""]
    lines += ["| kind | what it is | built in |", "|:--|:--|:--|"]
    for kind in registry.kinds.values():
        names = ", ".join(f"[`{ref.name}`]({kind.name}/{ref.name}.md)" for ref in built_in(registry, kind.name))
        lines.append(f"| [{kind.name}]({kind.name}/index.md) | {cell(kind.summary)} | {names} |")
    return "\n".join(lines) + "\n"


def kind_page(registry: Registry, kind: str) -> str:
    """The page of one kind: its components."""
    lines = [f"# {kind}", "", f"{registry.kinds[kind].summary[0].upper()}{registry.kinds[kind].summary[1:]}.", "",
             "| name | what it is |", "|:--|:--|"]
    for ref in built_in(registry, kind):
        first = typeset.line_of_text(ref.summary().text).replace("|", "&#124;")
        lines.append(f"| [`{ref.name}`]({ref.name}.md){' (default)' if ref.summary().is_default else ''} | {first} |")
    lines += ["", f"What a component of this kind must do: [its contract](../../reference/{kind}.md). Your own: "
              "[a component in ten minutes](../../add-a-component.md). "
              f"Checked by `diffbench check {kind}`."]
    return "\n".join(lines) + "\n"


def page(registry: Registry, ref: Ref, has_figure: bool, orders: dict[str, list[tuple[str, str]]]) -> str:
    """The page of one component, as Markdown."""
    cls = registry.load(ref)
    lines = [f"# {ref.name}", "", f"[{ref.kind}](index.md): {registry.kinds[ref.kind].summary}. " + _standing(ref, cls),
             "",
             f'<div class="docstring">{typeset.docstring(inspect.getdoc(cls) or "")}</div>', ""]
    if has_figure:
        lines += [f"![{ref.kind} {ref.name}]({ref.name}.svg)", "", typeset.symbols(SEEN[ref.kind]), ""]
    lines += ["## Options", "", *options(registry, ref, cls), "", "```yaml", example(registry, ref, cls), "```", ""]
    lines += _claimed(ref, cls)
    if ref.name in orders and ref.kind == "scheduler":
        lines += ["## Measured order of convergence", "",
                  "| configuration | claimed | measured, over all noise schedules |", "|:--|--:|--:|"]
        lines += [f"| `{name}` | {said} |" for name, said in orders[ref.name]]
        lines += ["", "The whole table and how it is measured: [measured orders](../../orders.md).", ""]
    if cls.presets:
        lines += ["## Presets", "", "| preset | options |", "|:--|:--|"]
        lines += [f"| `{name}` | {cell(', '.join(f'{option} {value}' for option, value in chosen.items()))} |"
                  for name, chosen in cls.presets.items()] + [""]
    source = Path(inspect.getsourcefile(cls) or "")
    lines += ["## Source", "", f"`{source.relative_to(ROOT) if source.is_relative_to(ROOT) else ref.target}`, whole:",
              "",
              "```python", source.read_text().rstrip(), "```", ""]
    return "\n".join(lines)


def options(registry: Registry, ref: Ref, cls: type) -> list[str]:
    """The table of a component's options: what each accepts, its default, its meaning, and what it affects."""
    if not fields(cls):
        return ["It has none."]
    meaning, half = comments(cls), registry.kinds[ref.kind].half
    lines = ["| option | accepts | default | meaning | affects |", "|:--|:--|:--|:--|:--|"]
    for option in fields(cls):
        default = "required" if option.default is MISSING else f"`{option.default!r}`"
        lines.append(f"| `{option.name}` | {cell(accepts(cls, option.name))} | {default} | "
                     f"{cell(meaning[option.name])} | {HALVES[half_of(option, half)]} |")
    return lines


def example(registry: Registry, ref: Ref, cls: type) -> str:
    """How a matrix asks for it, with every option at its default."""
    given = {option.name: option.default for option in fields(cls) if option.default is not MISSING}
    given |= {option.name: "digits" if option.name == "inner" else "PATH"
              for option in fields(cls) if option.default is MISSING}
    said = (ref.name if not given
            else f"{{{ref.name}: {{{', '.join(f'{name}: {yaml(value)}' for name, value in given.items())}}}}}")
    return f"metrics: [{said}]" if ref.kind == "metric" else f"{ref.kind}: {said}"


def measured_orders(text: str) -> dict[str, list[tuple[str, str]]]:
    """Scheduler -> [(configuration, "claimed | lowest to highest")], from docs/orders.md."""
    found: dict[str, list[tuple[str, str]]] = {}
    for row in re.findall(r"^\| ([a-z].*) \|$", text, re.MULTILINE):
        name, claimed, *measured = row.split(" | ")
        numbers = [float(number) for number in measured if re.fullmatch(r"[\d.]+", number)]
        if name != "scheduler":
            said = f"{min(numbers):.2f} to {max(numbers):.2f}" if numbers else "no order is claimed"
            found.setdefault(name.partition("(")[0], []).append((name, f"{claimed} | {said}"))
    return found


def cell(text: str) -> str:
    """Text that may stand in a cell of a Markdown table."""
    return typeset.line_of_text(text).replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")


def _standing(ref: Ref, cls: type) -> str:
    said = ["The default of its kind."] if ref.summary().is_default else []
    said += [f"Also known as {', '.join(f'`{alias}`' for alias in cls.aliases)}."] if cls.aliases else []
    return " ".join(said)


def _claimed(ref: Ref, cls: type) -> list[str]:
    """What the component claims and the conformance suite holds it to, in its default configuration."""
    if any(option.default is MISSING for option in fields(cls)):
        return []
    found = {**claims(cls, ref.kind), **_further(ref, cls())}
    if not found:
        return []
    lines = ["## Claims", "", f"With its defaults; `diffbench check {ref.name}` tests them, and everything its kind "
                              "promises.", ""]
    return lines + [f"- {name}: {cell(str(value))}" for name, value in found.items()] + [""]


def _further(ref: Ref, made: Any) -> dict[str, Any]:
    if ref.kind == "conditioning":
        return {"fills": ", ".join(sorted(made.ports)) or "no socket", "evaluations per prediction": made.evaluations,
                "withheld in training": f"{made.drop_rate:.0%}"}
    if ref.kind == "objective":
        return {"learns the variance": "yes" if made.learns_variance else "no"}
    return {}


def yaml(value: Any) -> str:
    """A value as a matrix has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, tuple | list):
        return "[" + ", ".join(yaml(part) for part in value) + "]"
    if hasattr(value, "component_name"):
        return str(value.component_name())
    return html.unescape(f'"{value}"' if isinstance(value, str) and not re.fullmatch(r"[A-Za-z]\w*", value)
                         else str(value))
