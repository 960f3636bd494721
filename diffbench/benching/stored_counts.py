"""Counts that were reviewed: one file, for each minor version of torch the counts of every case, and what has changed since.

Operators differ between versions of torch, so figures of one are never compared with another's: where the file has none for the version that runs,
cases are measured and not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffbench.durable import write_atomically
from diffbench.errors import DiffbenchError

Counts = Mapping[str, int]


def torch_version() -> str:
    """'2.15' of '2.15.0+cu132'."""
    import torch

    return ".".join(str(torch.__version__).split(".")[:2])


def read(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """{torch version: {case: {count: value}}}; nothing where there is no file. Raises DiffbenchError for a file that is something else."""
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DiffbenchError(f"{path} cannot be read: {error}") from None
    versions = found.values() if isinstance(found, dict) else [None]
    if not all(isinstance(cases, dict) and all(isinstance(counts, dict) for counts in cases.values()) for cases in versions):
        raise DiffbenchError(f"{path} is no file of counts: expected {{torch version: {{case: {{count: value}}}}}}")
    return found


def write(path: Path, version: str, measured: Mapping[str, Counts], whole: bool) -> None:
    """Replaces what the file has for these cases under this version of torch; where they are the whole list, those it no longer has go."""
    stored = read(path)
    kept = {} if whole else stored.get(version, {})
    stored[version] = kept | {name: dict(counts) for name, counts in measured.items()}
    write_atomically(path, _as_text(stored).encode())


def changes(case: str, stored: Counts, measured: Counts, command: str) -> list[str]:
    """A sentence for each count that is not what it was; counts that one of the two has not were not measured there and are left alone."""
    return [f"{case}: {name} was {stored[name]:,} and is {measured[name]:,}" + _share(stored[name], measured[name])
            + f". Where that is meant, run `{command}` and commit the file" for name in stored if name in measured and stored[name] != measured[name]]


def _share(old: float, new: float) -> str:
    return f" ({(new - old) / old:+.1%})" if old else ""


def _as_text(stored: Mapping[str, Mapping[str, Counts]]) -> str:
    """A line to a case, so that a review sees which changed."""
    versions = []
    for version, cases in sorted(stored.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(dict(counts))}" for name, counts in sorted(cases.items()))
        versions.append(f"  {json.dumps(version)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(versions) + "\n}\n"
