"""Loading of trained models, of rows of finished runs and of saved folders: `diffbench.load_model`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from diffbench.api import saved_model
from diffbench.api.models import Model
from diffbench.api.saved_model import Parts
from diffbench.errors import Damaged, DiffbenchError, OptionError
from diffbench.machine.fingerprint import resolve_device
from diffbench.matrix.describing import rebuild_cell
from diffbench.registry.registry import Registry, load_registry
from diffbench.results.comparing import ComparedRun
from diffbench.store.artefacts import Store
from diffbench.store.paths import user_path

PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")


def load_model(source: str | Path, row: str | None = None, *, device: str | None = None, plugins: Iterable[str] = (),
               store: Store | None = None) -> Model:
    """A trained model: of a row of a finished run, or of a folder that `Model.save` wrote.

    source: the folder of a run, with `row`: a cell id, its beginning, or conditions such as 'scheduler=ddim,steps=50'
    that mean one row; or a saved folder, without. device: "cpu", "cuda", "cuda:N" or "auto"; None is the kind of device
    that the row was drawn on where there is one here, else the CPU. plugins: loose files whose components it has.
    store: where the run's weights lie, by default the store in use.

    The weights are the moving average that samples are drawn from. Raises DiffbenchError where no row or several are
    meant, where the store has no weights of it, where a file is damaged, or where weights are of another architecture.
    """
    folder, registry = user_path(source), load_registry(plugins)
    if folder.suffix in PICKLES and not folder.is_dir():
        raise DiffbenchError(
            f"{folder}: a pickle can run any code when it is read, and is refused; convert it where you trust it, with "
            "safetensors.torch.save_file(torch.load(FILE, weights_only=True), 'weights.safetensors'), and see "
            "docs/models.md for the folder that is read here")
    if saved_model.is_saved(folder):
        if row is not None:
            raise DiffbenchError(f"{folder} holds one saved model, and so no row {row!r}: leave the row out")
        parts = saved_model.read(folder, registry)
    elif row is None:
        raise DiffbenchError(f"{folder} holds no saved model ({saved_model.CONFIG} is not there); of a run, name the "
                             "row too: a cell id, or conditions such as scheduler=ddim,steps=50")
    else:
        parts = _of_row(folder, row, registry, store or Store.default())
    return Model(parts, registry, _device(device, parts.drawn["device"]))


def _of_row(folder: Path, text: str, registry: Registry, store: Store) -> Parts:
    """The parts of the model of a row; raises DiffbenchError where they are not there."""
    run = ComparedRun(folder)
    rows = run.chosen(text)
    if len(rows) > 1:
        ids = ", ".join(row.cell_id for row in rows[:5]) + (" ..." if len(rows) > 5 else "")
        raise DiffbenchError(f"{text!r} means {len(rows)} rows of {folder}, and one model is loaded at a time: {ids}; "
                             "write one of these, or more conditions")
    row, planned = rows[0], run.planned(rows[0].cell_id)
    cell, stages = rebuild_cell(planned["cell"], registry), planned["stages"]
    weights = _tensors(store, "train", stages["train"], row.cell_id, saved_model.WEIGHTS)
    parents = run.stages()[stages["sample"]]["parents"]

    def read(role: str, file: str) -> dict[str, Tensor]:
        if role not in parents:
            raise OptionError(f"a component needs {role}, and row {row.cell_id} of {folder} was drawn without: run a "
                              "matrix that has the component")
        return _tensors(store, role.partition(":")[0], parents[role], row.cell_id, file)

    facts = store.read_json("train", stages["train"], "facts.json")
    return Parts(cell=cell, weights=weights, read=read,
                 shares=None, origin=f"row {row.cell_id} of {folder}",
                 drawn={"device": str(row.record["device"]).partition(":")[0], "threads": row.record["threads"],
                        "batch_size": row.record["sample_batch_size"],
                        "is_deterministic": facts["is_deterministic"]},
                 source={"run": run.name, "cell_id": row.cell_id, "train_key": stages["train"]})


def _tensors(store: Store, stage: str, key: str, cell_id: str, file: str) -> dict[str, Tensor]:
    try:
        return store.read_tensors(stage, key, file)
    except Damaged:
        if store.is_published(stage, key):
            raise
        raise DiffbenchError(
            f"the weights of row {cell_id} ({stage} {key[:12]}) are not in the store {store.root.resolve()}: set "
            "DIFFBENCH_HOME to the store of the run, or run its matrix again") from None


def _device(asked: str | None, then: str) -> torch.device:
    try:
        return torch.device(resolve_device(asked or then))
    except ValueError as error:
        if asked is None:
            return torch.device("cpu")
        raise OptionError(str(error)) from None
