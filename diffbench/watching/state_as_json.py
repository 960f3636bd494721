"""The state of a run as JSON, for programs. Used by `diffbench watch --json`."""

from __future__ import annotations

from collections import Counter
from typing import Any

from diffbench.watching import time_left
from diffbench.watching.run_state import RunState


def as_json(state: RunState) -> dict[str, Any]:
    """The whole state, for programs; durations in seconds."""
    latest = state.latest
    running = [{"stage": s.kind, "key": key, "label": s.label, "done": s.done, "of": s.of, "figures": s.figures,
                "try": s.tries,
                "seconds": round(state.elapsed(s), 1), "seconds_left": _rounded(time_left.of_stage(state, s))}
               for key, s in state.running.items()]
    writers = [{"log": name, "status": w.status, "host": w.host, "pid": w.pid, "reason": w.reason,
                "seconds": round(state.now(name), 1),
                "silent_seconds": round(state.silence(name), 1)} for name, w in state.writers.items()]
    return {"name": state.name, "status": state.status, "done": state.done, "of": len(state.stages),
            "stages": {kind: {status: n for status, n in counts.items() if n} for kind, counts in state.counts.items()},
            "seconds": None if latest is None else round(state.now(latest), 1),
            "seconds_left": _rounded(time_left.of_run(state)) if state.status == "running" else None,
            "running": running, "cells": dict(Counter(state.rows.values())),
            "bad": [{"stage": s.kind, "label": s.label, "status": s.status, "reason": s.reason} for s in state.bad()],
            "notes": list(state.notes), "writers": writers}


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
