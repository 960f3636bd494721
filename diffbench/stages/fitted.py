"""The stages that fit what others use: the extractor, the judge, and the classifier of noised images that guides."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import safetensors.torch
from torch import Tensor

from diffbench.contracts.values import Split
from diffbench.diffusion.classifier import fit_classifier
from diffbench.diffusion.noisy_classifier import fit_noisy_classifier
from diffbench.stages.context import Context, Files, as_json


def extractor(context: Context) -> Files:
    """The weights of the feature extractor."""
    return _files(*context.component("extractor").fit(_split(context, "train"), context.task["seed"], context.device,
                                                      context.progress))


def classifier(context: Context) -> Files:
    """The judge: a classifier used for nothing but class accuracy."""
    train, held_out = _split(context, "train"), _split(context, "held_out")
    model, facts = fit_classifier(train.images, train.labels, context.component("dataset").classes,
                                  seed=context.task["seed"],
                                  device=context.device, progress=context.progress)
    accuracy = float((model.predict(held_out.images, context.device) == held_out.labels).double().mean())
    return _files(model.weights(), facts | {"held_out_accuracy": accuracy})


def noisy_classifier(context: Context) -> Files:
    """The classifier of noised images that guides; never the judge."""
    train = _split(context, "train")
    model, facts = fit_noisy_classifier(train.images, train.labels, context.component("dataset").classes,
                                        context.component("noise_schedule"), seed=context.task["seed"],
                                        device=context.device,
                                        progress=context.progress)
    return _files({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, facts)


def _split(context: Context, name: str) -> Split:
    return context.component("dataset").load()[name].in_memory()


def _files(weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Files:
    return {"weights.safetensors": safetensors.torch.save(dict(weights)), "facts.json": as_json(facts)}
