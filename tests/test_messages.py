"""Every message a user can meet is named by a test, and those of the troubleshooting page are provoked here as they stand there."""

import ast
import functools
import importlib.util
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
