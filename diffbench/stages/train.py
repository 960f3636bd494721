"""What the stages of a denoiser do: each reads its parents from the store, computes,
and returns the files of its artefact.
"""

from __future__ import annotations

from diffbench.stages import ranks
from diffbench.stages.context import Context, Files
from diffbench.stages.gradients import ALONE
from diffbench.stages.training_share import train_share


def train(context: Context) -> Files:
    """The averaged weights of a denoiser, and its loss curve."""
    return ranks.train(context) if context.gpus > 1 else train_share(context, ALONE)
