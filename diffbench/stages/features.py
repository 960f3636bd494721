"""The stages `reference` and `features`: what extractor and judge see in real images and in samples."""

from __future__ import annotations

from torch import Tensor

from diffbench.diffusion.classifier import Classifier
from diffbench.errors import Diverged
from diffbench.stages.context import Context, Files, as_json
from diffbench.stats.frechet import moments


def reference(context: Context) -> Files:
    """Files with what extractor and judge see in the reference and in the held-out split,
    and in the training split where a metric asks for it.
    """
    splits = context.component("dataset").load()
    names = ("reference", "held_out", "train") if context.task["needs_training"] else ("reference", "held_out")
    seen = {name: _seen(context, splits[name].in_memory().images, splits[name].labels) for name in names}
    mean, root = moments(seen["reference"]["features"])
    # once, for every cell that is compared with it
    seen["reference"] |= {"mean": mean, "root": root.contiguous()}
    files: Files = {f"{name}.safetensors": context.write_tensors(f"{name}.safetensors", tensors)
                    for name, tensors in seen.items()}
    return files | {"facts.json": as_json({f"{name}_count": len(splits[name].images) for name in names})}


def features(context: Context) -> Files:
    """Files with what extractor and judge see in the samples of a cell."""
    samples = context.tensors("sample", "images.safetensors")
    seen = _seen(context, samples["images"], samples.get("labels"))
    return {"seen.safetensors": context.write_tensors("seen.safetensors", seen), "facts.json": as_json({
        "feature_count": seen["features"].shape[1], "remark": context.component("extractor").remark(
            tuple(samples["images"].shape[1:]))})}


def _seen(context: Context, images: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Features and judgement of a set of images, checked finite."""
    weights = context.tensors("extractor", "weights.safetensors")
    looked = context.component("extractor").look(weights, images, context.device, context.progress)
    seen = {"images": images, **{name: tensor.contiguous() for name, tensor in looked.items()}}
    if not seen["features"].isfinite().all():
        raise Diverged("the extractor's features are not finite")
    if labels is not None:
        seen["labels"] = labels
    if "classifier" in context.parents:
        with context.weights("classifier") as weights:
            judge = Classifier.from_weights(weights)
        seen["predicted"] = judge.predict(images, context.device)
    return seen
