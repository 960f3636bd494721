"""Verdicts of checks apart from pass and fail. Used by the conformance suite and the suite of launchers."""

from __future__ import annotations


class NotApplicable(Exception):
    """Raised by a check that does not apply to a configuration; the message is the reason."""
