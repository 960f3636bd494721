"""Weights that are there already."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from diffbench import (
    Cell,
    DataError,
    Recipe,
    denoiser_tensors,
    incidental_option,
    misfit,
    read_tensors,
    user_path,
)
from diffbench_components.methods.scratch import Scratch

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
SAVED = "model.json"                  # of a folder that `Model.save` wrote


@dataclass(frozen=True, kw_only=True)
class Pretrained(Scratch):
    """Weights from a file or a folder are used as they are; nothing is trained.

    weights: a safetensors file with the tensors of the denoiser (`network.*`, `condition.*`), or of the backbone's
    module where there is nothing else; a folder that `Model.save` wrote; or what the backbone itself reads. Where they
    say by which noise schedule and parameterization they were trained, a cell with others is skipped with both.
    """

    weights: str = incidental_option()                         # the file or folder; its content counts, not its place

    default_of_kind = False
    trains: ClassVar[bool] = False
    examples = ()                                              # none without a file

    def fingerprint(self) -> str:
        path, whole = self._path(), hashlib.sha256()
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(str(file.relative_to(path)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return whole.hexdigest()

    def why_not(self, cell: Cell) -> str | None:
        if cell.seed != 0:
            return ("pretrained weights are one training whatever the seed: leave the seed out (0) and vary "
                    "`sample.seed` for other noise")
        path = self._path()
        if reason := cell.backbone.why_not_from(path, cell):
            return reason
        config = _config(path)
        if config is not None and (reason := _conflict(config, path, cell)):
            return reason
        own = denoiser_tensors(cell)
        problems = misfit(own, self.initial(own, cell))
        return (f"the weights in {path} are of another architecture than this {cell.backbone.component_name()} with "
                f"{cell.conditioning.component_name()}; tensors {problems}" if problems else None)

    def initial(self, own: Mapping[str, Tensor], recipe: Recipe) -> dict[str, Tensor]:
        path = self._path()
        of_backbone = recipe.backbone.weights_in(path)
        if of_backbone is not None:
            return _of_network(of_backbone)
        if path.is_dir():
            if _config(path) is None:
                raise DataError(f"{path} holds no {SAVED}, and {recipe.backbone.component_name()} reads no folder: "
                                "name a folder that Model.save wrote, or a safetensors file")
            return _tensors(path / "weights.safetensors")
        tensors = _tensors(path)
        return tensors if any(name in own for name in tensors) else _of_network(tensors)

    def prepare(self, model: nn.Module) -> list[nn.Parameter]:
        return []

    def finish(self, model: nn.Module, average: Sequence[Tensor]) -> dict[str, Tensor]:
        return model.state_dict()

    def _path(self) -> Path:
        """Path of the weights; raises DataError where there are none, and for a pickle."""
        path = user_path(self.weights)
        if path.suffix in PICKLES and not path.is_dir():
            raise DataError(f"{path}: a pickle can run any code when it is read, and is refused; convert it where you "
                            "trust it, with safetensors.torch.save_file(torch.load(FILE, weights_only=True), "
                            "'weights.safetensors')")
        if not path.exists():
            raise DataError(f"pretrained: weights: {path} is not there; name a safetensors file or a folder with "
                            "weights")
        return path


def _tensors(path: Path) -> dict[str, Tensor]:
    """Those of a file, read once for the cells of a plan."""
    if not path.is_file():
        raise DataError(f"{path} is not there: copy the whole folder")
    state = path.stat()
    return _read(path, state.st_mtime_ns, state.st_size)


@functools.lru_cache(maxsize=1)
def _read(path: Path, modified: int, size: int) -> dict[str, Tensor]:
    return read_tensors(path)


def _config(path: Path) -> dict[str, Any] | None:
    """What a saved model says of itself; None where a path is none."""
    if not (path / SAVED).is_file():
        return None
    try:
        config = json.loads((path / SAVED).read_bytes())
        config["cell"]["noise_schedule"]["options"], config["cell"]["parameterization"]["options"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path / SAVED} is not what Model.save writes ({type(error).__name__}): save the model "
                        "again") from None
    return config


def _conflict(config: dict[str, Any], path: Path, cell: Cell) -> str | None:
    """What a saved model was trained with and a cell has otherwise."""
    for kind in ("noise_schedule", "parameterization"):
        then, now = config["cell"][kind], getattr(cell, kind)
        was = then["component"].rpartition(".")[2]
        differ = [] if was != now.component_name() else [name for name, value in then["options"].items()
                                                         if _plain(getattr(now, name)) != value]
        if was != now.component_name() or differ:
            return (f"the weights in {path} were trained with the {kind} "
                    f"{_named(was, {name: then['options'][name] for name in differ})}, and this cell has "
                    f"{_named(now.component_name(), {name: _plain(getattr(now, name)) for name in differ})}")
    return None


def _of_network(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"network.{name}": tensor for name, tensor in tensors.items()}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _named(name: str, options: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})" if options else name
