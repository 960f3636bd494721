"""docs/hooks.md against the hooks: each with its exact signature, its sentence, when and where; none missing and none too many."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TREE = ast.parse((ROOT / "diffbench" / "registry" / "hooks.py").read_text())
HOOKS = {node.name: node for node in TREE.body if isinstance(node, ast.FunctionDef)}
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", (ROOT / "docs" / "hooks.md").read_text(), re.MULTILINE | re.DOTALL))


def test_every_hook_has_a_section_and_every_section_a_hook():
    assert set(SECTIONS) == set(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_a_section_says_what_the_hook_says(name):
    node, text = HOOKS[name], SECTIONS.get(name, "")
    signature = f"def {name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}"
    assert f"```python\n{signature}\n```" in text, f"write {signature}"
    assert " ".join(ast.get_docstring(node).split()) in " ".join(text.split())
    assert re.search(r"^- When: \w", text, re.MULTILINE) and re.search(r"^- Where: \w", text, re.MULTILINE)


@pytest.mark.parametrize("name", HOOKS)
def test_its_sentence_is_one(name):
    assert ast.get_docstring(HOOKS[name]).endswith(".") and "\n\n" not in ast.get_docstring(HOOKS[name])
