"""The reference as text in the repository: what a matrix may say, the contract and components of each kind, messages.

    python docs/site/reference.py              # after a change on purpose: writes docs/reference anew
    python docs/site/reference.py --check      # exit code 1, with the names of pages that are not what it would write
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import component_pages
import messages
from figures import built_in

import diffbench
from diffbench import Registry
from diffbench.contracts.options import accepts, comments, half_of
from diffbench.matrix.matrix import BLOCKS

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "reference"

MATRIX_HEAD = """# matrix.yaml

| key | meaning |
|:--|:--|
| `diffbench` | version of the file's schema, 1 |
| `name` | of the run and of its folder, `runs/<name>` |
| `dataset` | [one](dataset.md), or several under `axes` |
| `axes` | kind, `seed`, `train.<option>` or `sample.<option>` to a value or a list of them; cells are the product |
| `together` | groups of axes that change in step instead of multiplying |
| `exclude` | cells to leave out: any of the axes, and `why`; one that matches nothing is a mistake |
| `include` | single cells outside the product, never excluded |
| `extractor` | what sees the images: [extractors](extractor.md) |
| `metrics` | what is measured: [metrics](metric.md) |
| `train`, `sample`, `throughput`, `run`, `report` | below |

A component is its name, or its name and options: `ddim`, `ddim: {steps: 20}`. A list inside an option is a grid; for an
option that itself is a list, a list of lists. Wherever a list is expected, a single value needs no brackets: `metrics:
fid`, `exclude: {backbone: dit}`, `report: {rows: backbone}`. `preset: NAME` stands for published options. Every mistake
is told at once (up to a hundred), with line and column, before anything is trained; `--set train.steps=50`, `--only
scheduler=ddim` and `--smoke` vary a run without editing, and a mistake of `--set` is shown as `--set`.

**YAML 1.2**: `1e-4` is a number, `no`, `12:30` and `2024-01-15` are texts, an integer has at most 64 bits. A key is
text and stands once. Anchors, aliases and merge keys work (`ddim: {<<: *short, eta: 0.5}`): the mapping's own keys win,
then the first of several that are merged; a mistake inside of what was merged is shown where it is written. Tags,
`%YAML 1.1`, a second document and other encodings than UTF-8 are refused.

**Limits**, counted before anything is made: 256 KiB, 32 levels, 50,000 nodes and 1 MiB of text with aliases written
out, 1,000 merges, 100 metrics, and `--max-cells` cells (10,000), which also bound a grid inside an option.

**Paths** in a matrix, such as `image_folder: {path: ...}`, are relative to the working folder in which diffbench is
started, not to the file. A leading `~` is the home folder there, on the command line (`--out=~/runs/a` too) and in
`DIFFBENCH_HOME`, `DIFFBENCH_DATA` and the variables of weights. A matrix may be a pipe, as in `diffbench plan
<(make-matrix)`.
"""


def pages(registry: Registry) -> dict[str, str]:
    """Name of a file -> its text."""
    kinds = {f"{kind}.md": kind_page(registry, kind) for kind in registry.kinds if built_in(registry, kind)}
    return {"README.md": index(registry, list(kinds)), "matrix.md": matrix_page(), "messages.md": messages.page(),
            **kinds}


def index(registry: Registry, names: list[str]) -> str:
    """The page of all pages."""
    lines = ["# Reference", "",
             "Made of the code by `python docs/site/reference.py`; a test compares.", "",
             "- [matrix.yaml](matrix.md): what a matrix may say", "- [Messages](messages.md): every sentence that "
             "refuses a request", "- [Hooks](../hooks.md), [public interface](../public-api.md), "
             "[file formats](../file-formats.md)", "", "| kind | what it is | built in |", "|:--|:--|:--|"]
    for name in names:
        kind = name.removesuffix(".md")
        components = ", ".join(f"`{ref.name}`" for ref in built_in(registry, kind))
        lines.append(f"| [{kind}]({name}) | {plain(registry.kinds[kind].summary)} | {components} |")
    lines += ["", "## Every component", "", *contract(diffbench.Component)]
    return "\n".join(lines).rstrip() + "\n"


def kind_page(registry: Registry, kind: str) -> str:
    """One kind: its contract, a worked example, its components."""
    offered = registry.kinds[kind]
    module, _, name = offered.base.partition(":")
    home = importlib.import_module(module)
    base, members = getattr(home, name), vars(home).values()
    bases = [cls for cls in members if isinstance(cls, type) and cls.__module__ == module and issubclass(cls, base)]
    lines = [f"# {kind}", "", f"{offered.summary[0].upper()}{offered.summary[1:]}.", "", "## Contract", ""]
    for cls in bases:
        lines += [f"### `diffbench.{cls.__name__}`", "", *contract(cls)]
    example = ROOT / "diffbench" / "scaffold" / f"{kind}.py"
    if example.exists():
        lines += ["## Worked example", "", f"As `diffbench new {kind} NAME` writes it, with a test of its own; "
                  f"`diffbench check` holds it to the contract.", "", "```python", example.read_text().rstrip(), "```",
                  ""]
    lines += ["## Components", ""]
    for ref in built_in(registry, kind):
        cls = registry.load(ref)
        lines += [f"### `{ref.name}`", "", *text(inspect.getdoc(cls) or ""), "", "```yaml",
                  component_pages.example(registry, ref, cls), "```", ""]
        if ref.summary().is_default:
            lines[-1:] = ["", "The default of its kind.", ""]
        if fields(cls):
            meaning = comments(cls)
            lines += ["| option | accepts | default | meaning | affects |", "|:--|:--|:--|:--|:--|"]
            for option in fields(cls):
                default = "required" if option.default is MISSING else f"`{option.default!r}`"
                affects = component_pages.HALVES[half_of(option, offered.half)].partition(":")[0]
                lines.append(f"| `{option.name}` | {plain(accepts(cls, option.name))} | {default} | "
                             f"{plain(meaning[option.name])} | {affects} |")
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def matrix_page() -> str:
    """Everything a matrix may say, its blocks read from their classes."""
    lines = [MATRIX_HEAD]
    for name, block in BLOCKS.items():
        lines += [f"## {name}", "", *text(inspect.getdoc(block) or ""), "",
                  "| option | accepts | default | meaning |", "|:--|:--|:--|:--|"]
        for option in fields(block):
            default = component_pages.yaml(option.default)
            lines.append(f"| `{option.name}` | {plain(accepts(block, option.name))} | `{default}` | "
                         f"{plain(comments(block)[option.name])} |")
        lines.append("")
    return "\n".join(lines) + "\n"


def contract(cls: type) -> list[str]:
    """A class: its docstring, and each public attribute and method with what it means."""
    lines, source = [*text(inspect.getdoc(cls) or ""), ""], inspect.getsource(cls)
    for name, signature, is_abstract, meaning in attributes(source):
        must = " (must be defined)" if is_abstract else ""
        lowered = meaning[0].lower() + meaning[1:] if meaning[:2].istitle() else meaning
        lines.append(f"- `{signature or name}`{must}: {lowered}")
    return [*lines, ""]


def attributes(source: str) -> list[tuple[str, str, bool, str]]:
    """(name, signature, whether it must be defined, meaning) of each public member of a class, in the source's order.
    """
    node, rows = ast.parse(source).body[0], source.splitlines()
    assert isinstance(node, ast.ClassDef)
    found = []
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name == "__call__"):
            decorators = [ast.unparse(decorator) for decorator in item.decorator_list]
            returns = f" -> {ast.unparse(item.returns)}" if item.returns else ""
            shown = item.name + (returns.replace(" ->", ":") if "property" in decorators
                                 else f"({ast.unparse(item.args)}){returns}")
            meaning = " ".join((ast.get_docstring(item) or "").split())
            found.append((item.name, shown, "abstractmethod" in decorators, meaning))
        elif isinstance(item, ast.AnnAssign) and not (name := ast.unparse(item.target)).startswith("_"):
            value = f" = {ast.unparse(item.value)}" if item.value is not None else ""
            declared = f"{name}: {ast.unparse(item.annotation)}{value}"
            found.append((name, declared, item.value is None, _comment(rows, item)))
    return found


def _comment(rows: list[str], item: ast.AnnAssign) -> str:
    """The comment beside a line, with those that hang below it; else the lines of comment above it."""
    last = rows[item.end_lineno - 1][item.end_col_offset:]
    if match := re.search(r"#\s(.*)$", last):
        parts, at = [match[1]], item.end_lineno
        while at < len(rows) and (more := re.match(r"\s{12,}# (.*)$", rows[at])):
            parts, at = [*parts, more[1]], at + 1
        return " ".join(parts)
    parts, at = [], item.lineno - 2
    while at >= 0 and (above := re.match(r"    # (.*)$", rows[at])):
        parts, at = [above[1], *parts], at - 1
    return " ".join(parts)


def text(docstring: str) -> list[str]:
    """A docstring as lines of Markdown; what it indents stays as it stands."""
    return docstring.splitlines()


def plain(words: str) -> str:
    """Words that may stand in a cell of a Markdown table, readable as they are."""
    return words.replace("|", "\\|").replace("*", "\\*")


def main() -> int:
    """Writes the pages, or compares them."""
    made = pages(diffbench.load_registry())
    there = {path.name: path.read_text() for path in FOLDER.glob("*.md")}
    if "--check" in sys.argv:
        stale = sorted(name for name in made.keys() | there.keys() if made.get(name) != there.get(name))
        print("\n".join(stale))
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for name in there.keys() - made.keys():
        (FOLDER / name).unlink()
    for name, content in made.items():
        (FOLDER / name).write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
