"""Environments of the runs of a page: machine, versions, settings, matrix and the command that repeats each."""

from __future__ import annotations

from diffbench.report.page.shapes import Environment
from diffbench.report.reading import ReportedRun, Source


def environments(source: Source) -> list[Environment]:
    """By run: what its numbers depend on, and the lines that repeat it."""
    return [_environment(run, label) for run, label in zip(source.runs, source.labels, strict=True)]


def _environment(run: ReportedRun, label: str) -> Environment:
    facts = run.environment
    machine, git = facts.get("machine") or {}, facts.get("git") or {}
    by_name = {"folder": str(run.folder), "machine": ", ".join(f"{k} {v}" for k, v in machine.items()),
             "Python": facts.get("python"),
             "platform": facts.get("platform"), "GPUs": ", ".join(gpu.get("name", "")
                                                                  for gpu in facts.get("gpus") or []),
             "memory": f"{facts['memory_bytes'] / 1e9:.3g} GB" if "memory_bytes" in facts else None,
             "torch settings": ", ".join(f"{k} {v}" for k, v in (facts.get("settings") or {}).items()),
             "variables": ", ".join(f"{k}={v}" for k, v in (facts.get("variables") or {}).items())}
    for owner, state in git.items():
        if state:
            by_name[f"commit of {owner}"] = f"{state['commit']}{' with changes' if state.get('is_dirty') else ''}"
    packages = facts.get("packages") or {}
    return {"label": label, "facts": {k: str(v) for k, v in by_name.items() if v}, "packages": packages,
            "matrix": run.matrix,
            "command": " ".join(facts.get("command") or []), "folder": str(run.folder)}
