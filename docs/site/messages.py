"""Every message a user can meet, read from the source:
the texts of errors and of mistakes in a matrix, with a dot where something is filled in.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GAP = "…"
# What carries a message, and the place of the message among its arguments.
CARRIERS = {
    "DiffbenchError": 0, "OptionError": 0, "UnknownComponent": 0, "BrokenComponent": 0, "DataError": 0, "DiskFull": 0,
    "Diverged": 0, "Damaged": 0,
    "ArchiveError": 0, "MatrixError": 0, "Problem": 1, "PluginProblem": 1, "fault": 1, "_refused": 0, "damaged": 3}
AREAS = {
    "matrix.yaml": ("yaml_file", "matrix", "expansion", "specs", "settings", "rules", "measured", "options"),
    "Components and plug-ins": ("registry", "source", "tracking", "conformance", "sampling", "components"),
    "Data and weights": ("datasets", "extractors", "weights", "graph", "classifier"),
    "A run": ("api", "engine", "events", "drawing", "training", "ranks", "judging", "ode", "launchers", "frechet",
              "uncertainty", "metrics"),
    "The store, archives, comparisons": (),
}


@dataclass(frozen=True)
class Message:
    """One place in the source that says something to a user."""

    file: str
    line: int
    text: str                         # with GAP for what is filled in

    @property
    def area(self) -> str:
        """The part of the page it belongs to."""
        parts = Path(self.file).with_suffix("").parts
        return next((area for area, words in AREAS.items() if set(words) & set(parts)), list(AREAS)[-1])

    @property
    def own_words(self) -> list[str]:
        """Its fixed texts."""
        return [part.strip() for part in self.text.split(GAP) if len(part.strip()) > 1]


def messages() -> Iterator[Message]:
    """All of them, in the order of files and lines; those that only pass on what another says are left out."""
    for path in (*sorted((ROOT / "diffbench").rglob("*.py")),
                 *sorted((ROOT / "components" / "diffbench_components").rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place = CARRIERS.get(ast.unparse(node.func).rpartition(".")[2])
            if place is not None and len(node.args) > place:
                said = Message(str(path.relative_to(ROOT)), node.lineno, " ".join(_text(node.args[place]).split(" ")))
                if len("".join(said.own_words)) > 8:
                    yield said


def page() -> str:
    """The page that lists them, as Markdown."""
    found = list(messages())
    lines = ["# All messages", "", f"Every sentence in which diffbench says that a request cannot be met, {len(found)} "
                                   "of them, as the source has them, by their first words; "
             f"{GAP} stands for what is filled in. Each is named by a test. What to do about the frequent ones: "
             "[Troubleshooting](../troubleshooting.md).", ""]
    for area in AREAS:
        lines += [f"## {area}", ""]
        lines += sorted(f"- {_plain(' '.join(m.text.split()))}" for m in found if m.area == area) + [""]
    return "\n".join(lines)


def _plain(text: str) -> str:
    return re.sub(r"([*<])", r"\\\1", text)


def _text(node: ast.expr) -> str:
    """The constant parts of a text expression, GAP for the others."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    if isinstance(node, ast.List) and len(node.elts) == 1:
        return _text(node.elts[0])
    return GAP
