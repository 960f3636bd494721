"""What the files of an artefact hold: types, shapes, and numbers that are finite where they must be, as the table of
stage kinds says.

A hash shows that a file is what its manifest names, not that a stage wrote it. So whoever reads a file checks it by
this
table: the store for the stage that needs it, a worker before it publishes, and `diffbench import` before anything is
seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.store import shapes
from diffbench.store.manifest import KEY
from diffbench.store.shapes import Check, count, fields, mapping, mapping_of, number, text
from diffbench.store.stage_kinds import check_of, files_of

if TYPE_CHECKING:
    from torch import Tensor

OF_EVERY_STAGE = {
    "task.json": fields(stage=text, key=shapes.matching(KEY, "a key"), identity=mapping, task=mapping,
                        parents=mapping_of(shapes.matching(KEY, "a key"))),
    "outcome.json": fields(may_have={"seconds": number, "threads": count, "machine": text}),
}


def of_json(data: bytes, stage: str, name: str, most_values: int | None = None) -> Any:
    """The value of a JSON file of an artefact; raises ValueError where it is not what this stage writes."""
    value = shapes.parse(data, most_values)
    _apply(OF_EVERY_STAGE.get(name) or check_of(stage, name), value, name)
    return value


def of_tensors(data: bytes | Path, stage: str, name: str) -> dict[str, Tensor]:
    """The tensors of a file of an artefact; raises ValueError where they are not what this stage writes.

    data: what the file holds, or its path: then no tensor is read into memory before it is looked at.
    """
    import safetensors
    import safetensors.torch

    try:
        tensors = safetensors.torch.load(data) if isinstance(data, bytes) else safetensors.torch.load_file(data)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{name} is no file of tensors: {type(error).__name__}: {error}") from None
    _apply(check_of(stage, name), tensors, name)
    return tensors


def check_files(stage: str, files: Mapping[str, bytes | Path], most_values: int | None = None) -> None:
    """Raises ValueError where the files that a stage has made, in memory or by path, are not those that it writes."""
    for name in files_of(stage):
        if name not in files:
            raise ValueError(f"there is no {name}")
    for name, data in files.items():
        if name.endswith(".json"):
            of_json(data if isinstance(data, bytes) else data.read_bytes(), stage, name, most_values)
        elif name.endswith(".safetensors"):
            of_tensors(data, stage, name)


def check_folder(stage: str, folder: Path, most_values: int) -> None:
    """The same of an artefact on the disk."""
    check_files(stage, {path.name: path for path in sorted(folder.iterdir())}, most_values)


def _apply(check: Check | None, value: Any, name: str) -> None:
    """Raises ValueError whatever the check of a plug-in raises."""
    try:
        if check is not None:
            check(value, name)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{name} cannot be checked: {type(error).__name__}: {error}") from error
