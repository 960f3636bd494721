"""Whether a cell of a matrix can work, before anything is run. Used by `stage_graph`."""

from __future__ import annotations

from diffbench.contracts import labels
from diffbench.contracts.cell import Cell
from diffbench.contracts.refusals import first_refusal
from diffbench.matrix.matrix import Matrix
from diffbench.registry.describing import Names


def why_not(cell: Cell, matrix: Matrix, names: Names) -> str | None:
    """Why a cell cannot work, or None: first what does not fit together, then what a component refuses."""
    missing = cell.conditioning.ports - cell.backbone.ports
    if missing:
        has = ", ".join(sorted(cell.backbone.ports)) or "no socket"
        return (f"{names.label(cell.conditioning)} fills the socket {', '.join(sorted(missing))}, and "
                f"{names.full(cell.backbone)} has {has}")
    if reason := labels.why_not(cell):
        return reason
    if not cell.dataset.class_names and cell.text_encoder.tokenize(("",)) is not None:
        return f"{names.label(cell.text_encoder)} reads the names of classes, and {names.label(cell.dataset)} has none"
    if cell.conditioning.needs_classifier and not (cell.process.is_gaussian and cell.autoencoder.is_identity):
        return (f"{names.label(cell.conditioning)} is guided by a classifier of images under Gaussian noise, and this "
                f"cell has the process {names.label(cell.process)} and the autoencoder {names.label(cell.autoencoder)}")
    sees_samples = any(metric.looks_at == "samples" for metric in matrix.metrics)
    return first_refusal(cell, (matrix.extractor,) if sees_samples else ())
