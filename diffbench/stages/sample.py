"""The stage `sample`: images of a trained denoiser."""

from __future__ import annotations

import contextlib
import hashlib

import torch

from diffbench.contracts.cell import Cell
from diffbench.contracts.model import Helpers
from diffbench.diffusion.denoiser import Denoiser
from diffbench.stages import batch_size, drawing, training_loop
from diffbench.stages.checkpoints import Piece
from diffbench.stages.compiling import Compiling
from diffbench.stages.context import Context, Files, as_json


def sample(context: Context) -> Files:
    """Images of a trained denoiser, uint8, with the labels that were asked for."""
    cell = context.cell()
    model = training_loop.build(cell, context.device).eval()
    with context.weights("train") as weights:
        model.load_state_dict(weights)
    with (context.weights("noisy_classifier") if cell.conditioning.needs_classifier
          else contextlib.nullcontext() as weights):
        helpers = drawing.helpers_for(cell, context.device, weights)
    # smaller after a try that ran out of memory
    asked = context.execution.get("batch_size") or cell.sample.batch_size
    batch = _searched(context, cell, model, helpers) if asked == "auto" else asked
    compiling = Compiling(kind="sample", asked=context.execution["compile"], device=context.device,
                          is_deterministic=context.execution["is_deterministic"])
    blocks = drawing.blocks(cell, model, helpers, context.device, context.pieces(batch_size=batch), batch,
                            context.progress, compiling)
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in blocks[0].tensors}
    facts = {"nfe": sum(block.facts["evaluations"] for block in blocks) / cell.sample.count,
             "sample_count": cell.sample.count,
             "distinct_count": len({hashlib.sha256(image.numpy()).digest() for image in tensors["images"]}),
             "flat_count": int((tensors["images"].flatten(2).amax(2) == tensors["images"].flatten(2).amin(2)).all(
                 1).sum()),
             "clamped_share": sum(block.facts["clamped"] for block in blocks) / tensors["images"].numel(),
             "batch_size": batch,
             "batch_size_asked": batch if cell.sample.batch_size == "auto" else cell.sample.batch_size,
             "threads": context.threads, "dtype": "float32",
             "is_deterministic": context.execution["is_deterministic"], **compiling.facts()}
    return {"images.safetensors": context.write_tensors("images.safetensors", tensors), "facts.json": as_json(facts)}


def _searched(context: Context, cell: Cell, model: Denoiser, helpers: Helpers) -> int:
    """The fastest batch size, found once for all tries of a stage: blocks that one try leaves must fit the next."""
    pieces, beyond = context.pieces(), cell.sample.count                         # no block has this number
    piece = pieces.read(beyond)
    if piece is None:
        batch, rates = batch_size.fastest(drawing.one_evaluation(cell, model, helpers, context.device),
                                          cell.sample.count, context.device)
        piece = Piece(tensors={}, facts={"batch_size": batch,
                                         "images_per_second": {str(size): rate for size, rate in rates.items()}})
        pieces.write(beyond, piece)
    return piece.facts["batch_size"]
