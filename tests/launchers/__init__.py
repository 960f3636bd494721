"""Launchers: one suite for all, and what each promises beyond it."""

import time
from pathlib import Path

import pytest

from diffbench.testing.verdicts import NotApplicable


def run(check, bench):
    """A check of the suite as a test; what it measured is printed."""
    try:
        measured = check(bench)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    if measured is not None:
        print(f"{check.__name__}: {measured}")


def gone(mark):
    """Fails unless all processes that were started, at any remove, with this mark in their environment end soon."""
    deadline = time.monotonic() + 120
    while left := _marked(mark):
        assert time.monotonic() < deadline, [Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in left]
        time.sleep(0.1)


def _marked(mark):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if str(mark).encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found
