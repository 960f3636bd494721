"""Every message a user can meet is named by a test, and those of the troubleshooting page are provoked here as they stand there."""

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WINDOW = 16                           # characters of a message's own words that a test must spell out
# Not provoked by any test, and why.
NOT_PROVOKED = {
    "train.gpus is ": "it needs a machine with GPUs, fewer than asked for",
    "the ranks of this training read different checkpoints": "it needs processes one of which cannot read a file that the others can",
    " is longer than it says": "Python's zipfile stops at the declared size by itself; a second line of defence",
}


@functools.cache
def catalogue():
    """docs/site/messages.py, which also makes the page of all messages."""
    spec = importlib.util.spec_from_file_location("site_messages", ROOT / "docs" / "site" / "messages.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return list(module.messages())


@functools.cache
def spelt():
    """Every text in the tests, escapes of regular expressions undone; `\\0` keeps texts apart."""
    found = []
    for path in (p for p in (ROOT / "tests").rglob("*.py") if p != Path(__file__)):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) > 5:
                found.append(re.sub(r"\\(\W)", r"\1", node.value))
    return "\0".join(found)


def is_named(message):
    """Whether a test spells out enough of its own words to be about no other."""
    for words in message.own_words:
        pieces = [words[i:i + WINDOW] for i in range(max(1, len(words) - WINDOW + 1))]
        if len(words) >= min(WINDOW, max(map(len, message.own_words))) and any(piece in spelt() for piece in pieces):
            return True
    return False


def unnamed():
    return [message for message in catalogue() if not is_named(message)]


def test_every_message_is_named_by_a_test():
    left = [f"{m.file}:{m.line}: {m.text}" for m in unnamed() if not any(words in m.text for words in NOT_PROVOKED)]
    assert len(catalogue()) > 200
    assert not left, "no test spells these out:\n" + "\n".join(left)
    assert all(any(words in m.text for m in catalogue()) for words in NOT_PROVOKED), "stale"


def said_in_the_source():
    """Every text of diffbench and its components, parts of one message joined."""
    text = sys.modules["site_messages"]._text
    for path in (*(ROOT / "diffbench").rglob("*.py"), *(ROOT / "components").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant) and isinstance(getattr(node, "value", ""), str):
                yield text(node)


HEADINGS = re.findall(r"^### (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(), re.MULTILINE)


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_troubleshooting_page_speaks_of_messages_that_exist_and_are_provoked(heading):
    """Its words stand in one message of the source, in their order, and in the text of a test."""
    catalogue()
    words = [part for part in re.split(r"\s*…[.,:;]?\s*", heading) if len(part) > 3]
    pattern = re.compile(".*".join(map(re.escape, words)), re.DOTALL)
    assert any(pattern.search(said) for said in said_in_the_source()), f"no message says {words}"
    windows = [word[i:i + 12] for word in words for i in range(max(1, len(word) - 11))]
    assert any(window in spelt() for window in windows if len(window) == 12 or max(map(len, words)) < 12), f"no test spells out any of {words}"
