"""The public interface as text, read from the source: what `diffbench` exports, what `diffbench.testing` does, and the command line.

    python -m tests.public_api        # after a change on purpose: writes docs/public-api.md and diffbench/__init__.pyi
"""

from __future__ import annotations

import ast
from pathlib import Path

import click

import diffbench

ROOT = Path(__file__).resolve().parents[1]
PAGE, STUB = ROOT / "docs" / "public-api.md", ROOT / "diffbench" / "__init__.pyi"
HEAD = """# Public interface

Everything that others may rely on, with its signature. A test compares this page with the code, so that a change of the interface is a change of this page, to be seen in review;
`python -m tests.public_api` writes it anew. What is not here may change without notice; [hooks](hooks.md) have a page of their own.

Until 1.0 a change that breaks a line below raises the second number of the version and is in the changelog; results are kept apart by the versions of components and stages in any case.

"""


def stub() -> str:
    """diffbench/__init__.pyi: what type checkers see, for whom names imported on first use would all be Any."""
    lines = ['"""The public names and where they live; written by tests/public_api.py."""', ""]
    for module, names in sorted(diffbench._HOMES.items()):
        lines += [f"from {module} import {name} as {name}" for name in sorted(names, key=str.lower)]
    return "\n".join([*lines, "", "__version__: str", "__all__: list[str]", ""])


def page() -> str:
    """docs/public-api.md."""
    parts = []
    for module, names in sorted(diffbench._HOMES.items()):
        parts.append("\n\n".join(described(module, name) for name in sorted(names)))
    named = "\n\n".join(parts)
    testing = described("diffbench.testing.conformance", "conformance")
    return f"{HEAD}## diffbench\n\n```text\n{named}\n```\n\n## diffbench.testing\n\n```text\n{testing}\n```\n\n## Command line\n\n```text\n{commands()}\n```\n"


def described(module: str, name: str) -> str:
    """A public name: a function's signature, a class with its public members, anything else as it is assigned."""
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return signature(node)
        if isinstance(node, ast.ClassDef) and node.name == name:
            return "\n".join([f"class {name}({', '.join(map(ast.unparse, node.bases))})", *(f"    {line}" for line in members(node))])
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return ast.unparse(node)
    raise LookupError(f"{module} does not define {name}")


def members(node: ast.ClassDef) -> list[str]:
    """Options, class variables and methods of a class, private ones left out; special methods that are called are public."""
    found = []
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and (not item.name.startswith("_") or item.name in ("__init__", "__call__")):
            kinds = [ast.unparse(decorator) for decorator in item.decorator_list]
            found.append("".join(f"@{kind} " for kind in kinds) + signature(item))
        if isinstance(item, ast.AnnAssign) and not ast.unparse(item.target).startswith("_"):
            found.append(ast.unparse(item))
        if isinstance(item, ast.Assign) and not ast.unparse(item.targets[0]).startswith("_"):
            found.append(ast.unparse(item))
    return found


def signature(node: ast.FunctionDef) -> str:
    """'def name(arguments) -> result'."""
    return f"def {node.name}({ast.unparse(node.args)})" + (f" -> {ast.unparse(node.returns)}" if node.returns else "")


def commands() -> str:
    """Every command with its arguments and options."""
    from diffbench.cli import cli

    context = click.Context(cli)
    lines = []
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        words = [p.human_readable_name if isinstance(p, click.Argument) else "/".join((*p.opts, *p.secondary_opts)) for p in command.params]
        lines.append(" ".join(["diffbench", name, *words]))
    return "\n".join(lines)


if __name__ == "__main__":
    STUB.write_text(stub())
    PAGE.write_text(page())
