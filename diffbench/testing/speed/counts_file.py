"""The file of reviewed counts, by minor version of torch and case, and comparison with it. Used by `diffbench bench`.

Operators differ between versions of torch, so figures of one are never compared with another's: where the file has none
for the version that runs, cases are measured and not compared.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffbench.errors import DiffbenchError
from diffbench.store.disk import write_atomically

Counts = Mapping[str, int]


def torch_version() -> str:
    """The minor version of torch: '2.15' for '2.15.0+cu132'."""
    import torch

    return ".".join(str(torch.__version__).split(".")[:2])


def read(path: Path) -> dict[str, dict[str, dict[str, int]]]:
    """{torch version: {case: {count: value}}}; nothing where there is no file.
    Raises DiffbenchError for a file that is something else.
    """
    try:
        stored: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DiffbenchError(f"{path} cannot be read: {error}") from None
    versions = stored.values() if isinstance(stored, dict) else [None]
    if not all(isinstance(cases, dict) and all(isinstance(counts, dict) for counts in cases.values())
               for cases in versions):
        raise DiffbenchError(f"{path} is no file of counts: expected {{torch version: {{case: {{count: value}}}}}}")
    return stored


def write(path: Path, version: str, measured: Mapping[str, Counts], whole: bool) -> None:
    """Replaces the counts of these cases for one version of torch. whole: these are all cases, others are removed."""
    stored = read(path)
    other_counts = {} if whole else stored.get(version, {})
    stored[version] = other_counts | {name: dict(counts) for name, counts in measured.items()}
    write_atomically(path, _as_text(stored).encode())


def changes(case: str, stored: Counts, measured: Counts, command: str) -> list[str]:
    """One sentence for each count that differs from the stored one; counts that only one side has are ignored."""
    return [f"{case}: {name} was {stored[name]:,} and is {measured[name]:,}" + _share(stored[name], measured[name])
            + f". Where that is meant, run `{command}` and commit the file" for name in stored if name in measured
            and stored[name] != measured[name]]


def _share(old: float, new: float) -> str:
    return f" ({(new - old) / old:+.1%})" if old else ""


def _as_text(stored: Mapping[str, Mapping[str, Counts]]) -> str:
    """The content of the file, one case a line, so that a review shows which changed."""
    versions = []
    for version, cases in sorted(stored.items(), key=lambda item: [int(part) for part in item[0].split(".")]):
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(dict(counts))}"
                           for name, counts in sorted(cases.items()))
        versions.append(f"  {json.dumps(version)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(versions) + "\n}\n"
