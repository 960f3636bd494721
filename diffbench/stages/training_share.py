"""The share of one process in a training. Used by the stage `train` and by its ranks."""

from __future__ import annotations

import torch

from diffbench.contracts.cell import Recipe
from diffbench.diffusion.weights import fill
from diffbench.stages import training_loop
from diffbench.stages.checkpoints import Checkpoints
from diffbench.stages.compiling import Compiling
from diffbench.stages.context import Context, Files, as_json
from diffbench.stages.gradients import Ranks


def train_share(context: Context, share: Ranks) -> Files:
    """Files of a training, made by one of the processes that share it; all make the same, and only the first gives
    them.
    """
    recipe = context.recipe()
    if not recipe.method.trains:
        return _as_they_are(context, recipe) if share.rank == 0 else {}
    split = recipe.dataset.load()["train"]
    dtype = "bfloat16" if training_loop.uses_bfloat16(recipe, context.device) else "float32"
    checkpoints = Checkpoints(pieces=context.pieces(dtype=dtype, gpus=share.count),
                              seconds=context.execution["checkpoint_seconds"])
    compiling = Compiling(kind="train", asked=context.execution["compile"], device=context.device,
                          processes=share.count,
                          is_deterministic=context.execution["is_deterministic"])
    trained = training_loop.train(recipe, split, context.device, context.progress, checkpoints=checkpoints, ranks=share,
                                  compiling=compiling)
    if share.rank > 0:
        return {}
    facts = {"losses": trained.losses, "steps_per_loss": training_loop.CHUNK,
             "train_loss": trained.losses[-1] if trained.losses else None,
             "train_seconds": trained.seconds, "resumed_at": trained.resumed_at, "train_count": len(split.images),
             "threads": context.threads,
             "gpus": share.count, "dtype": dtype, "is_deterministic": context.execution["is_deterministic"],
             **compiling.facts()}
    return {"weights.safetensors": context.write_tensors("weights.safetensors", trained.weights),
            "facts.json": as_json(facts)}


def _as_they_are(context: Context, recipe: Recipe) -> Files:
    """Files of a method that trains nothing: its weights, once they fit."""
    model = training_loop.build(recipe, torch.device("cpu"))
    fill(model, recipe.method.initial(model.state_dict(), recipe), f"the method {recipe.method.component_name()}")
    weights = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    facts = {"losses": [], "steps_per_loss": training_loop.CHUNK, "train_loss": None, "train_seconds": 0.0,
             "resumed_at": [], "train_count": 0, "threads": context.threads, "gpus": 1, "dtype": "float32",
             "is_deterministic": context.execution["is_deterministic"], "compiled": False}
    return {"weights.safetensors": context.write_tensors("weights.safetensors", weights), "facts.json": as_json(facts)}
