"""Digests of content: a canonical text and its SHA-256. Used by keys and names of files."""

from __future__ import annotations

import hashlib
import json
from typing import Any

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def canonical(content: Any) -> str:
    """Canonical JSON of a value: sorted keys, no spaces, no NaN."""
    return _CANONICAL.encode(content)


def digest(content: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    return hashlib.sha256(canonical(content).encode()).hexdigest()
