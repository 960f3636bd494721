"""What each stage does: it reads its parents from the store, computes, and returns the files of its artefact."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import safetensors.torch
import torch

from diffbench import batching, drawing, judging, ranks, speed, training
from diffbench.checkpoints import Checkpoints, Piece
from diffbench.classifier import fit_noisy_classifier
from diffbench.compiling import Compiling
from diffbench.context import Context, Files, as_json
from diffbench.denoiser import Denoiser
from diffbench.evaluation import Dataset
from diffbench.matrix import Cell
from diffbench.parallel import ALONE, Ranks
from diffbench.values import Helpers


def train(context: Context) -> Files:
    """The averaged weights of a denoiser, and its loss curve."""
    return ranks.train(context) if context.gpus > 1 else train_share(context, ALONE)


def train_share(context: Context, share: Ranks) -> Files:
    """What one of the processes that share a training makes of it; all make the same."""
    cell = context.cell()
    split = cell.dataset.load()["train"]
    dtype = "bfloat16" if training.uses_bfloat16(cell, context.device) else "float32"
    checkpoints = Checkpoints(pieces=context.pieces(dtype=dtype, gpus=share.count), seconds=context.execution["checkpoint_seconds"])
    compiling = Compiling(kind="train", asked=context.execution["compile"], device=context.device, processes=share.count,
                          is_deterministic=context.execution["is_deterministic"])
    trained = training.train(cell, split, context.device, context.progress, checkpoints=checkpoints, ranks=share, compiling=compiling)
    facts = {"losses": trained.losses, "steps_per_loss": training.CHUNK, "train_loss": trained.losses[-1] if trained.losses else None,
             "train_seconds": trained.seconds, "resumed_at": trained.resumed_at, "train_count": len(split.images), "threads": context.threads,
             "gpus": share.count, "dtype": dtype, "is_deterministic": context.execution["is_deterministic"], **compiling.facts()}
    return {"weights.safetensors": safetensors.torch.save(trained.weights), "facts.json": as_json(facts)}


def sample(context: Context) -> Files:
    """Images of a trained denoiser, uint8, with the labels that were asked for."""
    cell = context.cell()
    model = training.build(cell, context.device).eval()
    model.load_state_dict(context.tensors("train", "weights.safetensors"))
    classifier = context.tensors("noisy_classifier", "weights.safetensors") if cell.conditioning.needs_classifier else None
    helpers = drawing.helpers_for(cell, context.device, classifier)
    asked = context.execution.get("batch_size") or cell.sample.batch_size        # smaller after a try that ran out of memory
    batch = _searched(context, cell, model, helpers) if asked == "auto" else asked
    compiling = Compiling(kind="sample", asked=context.execution["compile"], device=context.device, is_deterministic=context.execution["is_deterministic"])
    blocks = drawing.blocks(cell, model, helpers, context.device, context.pieces(batch_size=batch), batch, context.progress, compiling)
    tensors = {name: torch.cat([block.tensors[name] for block in blocks]) for name in blocks[0].tensors}
    facts = {"nfe": sum(block.facts["evaluations"] for block in blocks) / cell.sample.count, "sample_count": cell.sample.count,
             "distinct_count": len({hashlib.sha256(image.numpy()).digest() for image in tensors["images"]}),
             "flat_count": int((tensors["images"].flatten(2).amax(2) == tensors["images"].flatten(2).amin(2)).all(1).sum()),
             "clamped_share": sum(block.facts["clamped"] for block in blocks) / tensors["images"].numel(), "batch_size": batch,
             "batch_size_asked": batch if cell.sample.batch_size == "auto" else cell.sample.batch_size, "threads": context.threads, "dtype": "float32",
             "is_deterministic": context.execution["is_deterministic"], **compiling.facts()}
    return {"images.safetensors": safetensors.torch.save(tensors), "facts.json": as_json(facts)}


def _searched(context: Context, cell: Cell, model: Denoiser, helpers: Helpers) -> int:
    """The fastest batch size, found once for all tries of a stage: blocks that one try leaves must fit the next."""
    pieces, beyond = context.pieces(), cell.sample.count                         # no block has this number
    found = pieces.read(beyond)
    if found is None:
        batch, rates = batching.fastest(drawing.one_evaluation(cell, model, helpers, context.device), cell.sample.count, context.device)
        found = Piece(tensors={}, facts={"batch_size": batch, "images_per_second": {str(size): rate for size, rate in rates.items()}})
        pieces.write(beyond, found)
    return found.facts["batch_size"]


def noisy_classifier(context: Context) -> Files:
    """The classifier of noised images that guides; never the judge."""
    dataset: Dataset = context.component("dataset")
    splits = dataset.load()
    train_split = splits["train"]
    model, facts = fit_noisy_classifier(train_split.images, train_split.labels, dataset.classes, context.component("noise_schedule"),
                                        seed=context.task["seed"], device=context.device, progress=context.progress)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return {"weights.safetensors": safetensors.torch.save(weights), "facts.json": as_json(facts)}


STAGES: dict[str, Callable[[Context], Files]] = {
    "extractor": judging.extractor, "classifier": judging.classifier, "noisy_classifier": noisy_classifier, "reference": judging.reference,
    "train": train, "sample": sample, "features": judging.features, "evaluate": judging.evaluate, "throughput": speed.throughput,
}
