"""Launchers: one suite for all, and what each promises beyond it."""

import pytest

from diffbench.testing.conformance import NotApplicable


def run(check, bench):
    """A check of the suite as a test; what it measured is printed."""
    try:
        measured = check(bench)
    except NotApplicable as reason:
        pytest.skip(str(reason))
    if measured is not None:
        print(f"{check.__name__}: {measured}")
