"""The share of one process in a training. Used by the stage `train` and by its ranks."""

from __future__ import annotations

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
