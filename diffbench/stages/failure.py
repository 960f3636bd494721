"""Failures of a stage in the words of error.json. Used by workers and by the ranks of a training."""

from __future__ import annotations

import traceback
from pathlib import Path

from diffbench.errors import Damaged, DiffbenchError, DiskFull, Diverged, FailedElsewhere, is_out_of_memory
from diffbench.wording import message_of


class Superseded(DiffbenchError):
    """The claim under which a worker was started is no longer its driver's."""


def failure(error: Exception) -> dict[str, str]:
    """Status, kind and one line for the row."""
    if isinstance(error, FailedElsewhere):
        return error.failure
    text = message_of(error) or "no message"
    if isinstance(error, Damaged):
        kind = "content" if error.is_content else "damaged"
        return {"status": "failed", "kind": kind, "reason": text, "stage": error.stage, "artefact": error.key}
    if isinstance(error, DiskFull):
        return {"status": "failed", "kind": "disk", "reason": text}
    if isinstance(error, Superseded):
        return {"status": "failed", "kind": "superseded", "reason": text}
    if isinstance(error, Diverged):
        return {"status": "diverged", "kind": "diverged", "reason": text}
    if isinstance(error, DiffbenchError):
        return {"status": "failed", "kind": "request", "reason": text}
    if is_out_of_memory(error):
        return {"status": "failed", "kind": "memory", "reason": f"out of memory: {text[:300]}"}
    last = traceback.extract_tb(error.__traceback__)[-1]
    return {"status": "failed", "kind": "code", "reason": f"{type(error).__name__}: {text[:300]} "
                                                          f"({Path(last.filename).name}:{last.lineno})"}
