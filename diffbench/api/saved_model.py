"""The folder of a saved model: weights as safetensors and one JSON file. Written by `Model.save`, read by `load_model`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import safetensors
import safetensors.torch
from torch import Tensor

import diffbench
from diffbench.contracts.cell import Cell
from diffbench.contracts.dataset import Dataset
from diffbench.contracts.labels import shares_of
from diffbench.contracts.needs import Read
from diffbench.contracts.values import Split
from diffbench.errors import DataError, DiffbenchError
from diffbench.matrix.describing import describe_cell, rebuild_cell
from diffbench.registry.describing import Names
from diffbench.registry.registry import Registry
from diffbench.store import disk, shapes
from diffbench.store.shapes import count, fields, flag, list_of, mapping, one_of, optional, text
from diffbench.wording import message_of

FORMAT = 1
CONFIG = "model.json"
WEIGHTS = "weights.safetensors"
# folder of what its components need: needs/ROLE/FILE, a colon in a role being a folder
NEEDS = "needs"
_SHAPE = list_of(count, least=1)
_CHECK = fields(
    diffbench_model=count, source=mapping, cell=fields(train=mapping, sample=mapping, seed=count),
    drawn=fields(device=one_of("cpu", "cuda"), threads=count, batch_size=count, is_deterministic=flag),
    shares=optional(list_of(count, least=1)),
    data=fields(name=text, image_shape=_SHAPE, shape=_SHAPE, classes=optional(count), class_names=list_of(text),
                condition_shape=optional(_SHAPE)))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a model is made of."""

    cell: Cell
    weights: dict[str, Tensor]        # of the denoiser, by parameter: network.* and condition.*
    read: Read                        # reads what its components need
    needed: dict[tuple[str, str], dict[str, Tensor]] = field(default_factory=dict)  # by role and file: what was read so
                                                                                    # far
    shares: tuple[int, ...] | None    # of the classes among samples; None: as the data set has them
    origin: str                       # where it comes from, for messages
    drawn: Mapping[str, Any]          # device, threads, batch_size, is_deterministic of the row's samples
    source: Mapping[str, Any]         # run, cell_id, train_key

    def tensors(self, role: str, file: str) -> dict[str, Tensor]:
        """Tensors of a file that a component needs, read once."""
        if (role, file) not in self.needed:
            self.needed[role, file] = self.read(role, file)
        return self.needed[role, file]


@dataclass(frozen=True, kw_only=True)
class SavedData(Dataset):
    """What a saved model knows of its data: shapes and classes, and no images."""

    name: str                         # of the data set, with its options
    image_shape: tuple[int, ...] = ()                     # type: ignore[assignment]
    shape: tuple[int, ...] = ()                           # type: ignore[assignment]
    classes: int | None = None                            # type: ignore[assignment]
    class_names: tuple[str, ...] = ()                     # type: ignore[assignment]
    condition_shape: tuple[int, ...] | None = None        # type: ignore[assignment]

    def fingerprint(self) -> str:
        """Raises DataError: there is no content."""
        self._absent()

    def load(self) -> dict[str, Split]:
        """Raises DataError: there are no images."""
        self._absent()

    def _absent(self) -> NoReturn:
        raise DataError(f"a saved model has no images of {self.name}: give the conditions that samples are drawn under")


def is_saved(folder: Path) -> bool:
    """Whether a folder is that of a saved model."""
    return (folder / CONFIG).is_file()


def write(folder: Path, parts: Parts, registry: Registry) -> Path:
    """Writes the folder, the configuration last; raises DiffbenchError where it holds something."""
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise DiffbenchError(f"{folder} holds something already: name a folder that is empty or not there")
    names, cell = Names(registry), parts.cell
    classed = cell.dataset.classes is not None and cell.dataset.condition_shape is None
    config = {
        "diffbench_model": FORMAT, "diffbench": diffbench.__version__, "source": dict(parts.source),
        "drawn": dict(parts.drawn), "shares": list(parts.shares or shares_of(cell)) if classed else None,
        "data": {"name": cell.dataset.name if isinstance(cell.dataset, SavedData) else names.label(cell.dataset),
                 "image_shape": cell.dataset.image_shape, "shape": cell.dataset.shape, "classes": cell.dataset.classes,
                 "class_names": cell.dataset.class_names, "condition_shape": cell.dataset.condition_shape},
        "cell": describe_cell(cell, names, without="dataset"),
    }
    files = {folder / WEIGHTS: parts.weights} | {_needed(folder, role) / file: tensors
                                                 for (role, file), tensors in parts.needed.items()}
    for path, tensors in files.items():
        disk.make_folders(path.parent)
        disk.write_atomically(path, safetensors.torch.save(tensors))
    disk.write_atomically(folder / CONFIG, json.dumps(config, indent=1).encode())
    return folder


def read(folder: Path, registry: Registry) -> Parts:
    """The parts of a saved model; raises DiffbenchError for what is missing or damaged."""
    path = folder / CONFIG
    try:
        config = shapes.parse(path.read_bytes())
        _CHECK(config, CONFIG)
        if config["diffbench_model"] != FORMAT:
            raise ValueError(f"its format is {config['diffbench_model']}, and this version reads {FORMAT}")
        data = {name: tuple(value) if isinstance(value, list) else value for name, value in config["data"].items()}
        cell = rebuild_cell(config["cell"], registry, dataset=SavedData(**data))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DiffbenchError(f"{path} is no saved model: {message_of(error)}; save the model again") from None

    def needed(role: str, file: str) -> dict[str, Tensor]:
        return _tensors(_needed(folder, role) / file)
    return Parts(cell=cell, weights=_tensors(folder / WEIGHTS), read=needed,
                 shares=None if config["shares"] is None else tuple(config["shares"]), origin=str(folder),
                 drawn=config["drawn"], source=config["source"])


def _needed(folder: Path, role: str) -> Path:
    """The folder of what the components of a saved model need, by role: needs/train/teacher."""
    return folder.joinpath(NEEDS, *role.split(":", 1))


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise DiffbenchError(f"{path} is not there: copy the whole folder of the saved model") from None
    except (OSError, safetensors.SafetensorError) as error:
        raise DiffbenchError(f"{path} is no file of tensors: {message_of(error)}; save the model again") from None
