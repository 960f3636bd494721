"""The stages that judge: extractor and judge, what they see, and the metrics, of images and of denoisers."""

from __future__ import annotations

from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from diffbench import training
from diffbench.classifier import Classifier, fit_classifier
from diffbench.context import Context, Files, as_json
from diffbench.denoiser import as_condition, condition_of
from diffbench.errors import Diverged
from diffbench.evaluation import Dataset, SampleMetric
from diffbench.frechet import Moments, moments
from diffbench.uncertainty import Jackknife
from diffbench.values import Denoise, Evidence, Prediction, Real, Split, TrainedModel

INTERVAL = ("_debiased", "_low", "_high")                 # what a jackknife adds to the name of its value


def extractor(context: Context) -> Files:
    """The weights of the feature extractor, fitted to the training split."""
    weights, facts = context.component("extractor").fit(_split(context, "train"), context.task["seed"], context.device, context.progress)
    return {"weights.safetensors": safetensors.torch.save(weights), "facts.json": as_json(facts)}


def classifier(context: Context) -> Files:
    """The judge: a classifier used for nothing but class accuracy."""
    dataset: Dataset = context.component("dataset")
    splits = dataset.load()
    model, facts = fit_classifier(splits["train"].images, splits["train"].labels, dataset.classes, seed=context.task["seed"], device=context.device,
                                  progress=context.progress)
    held_out = splits["held_out"]
    facts = facts | {"held_out_accuracy": float((model.predict(held_out.images, context.device) == held_out.labels).double().mean())}
    return {"weights.safetensors": safetensors.torch.save(model.weights()), "facts.json": as_json(facts)}


def reference(context: Context) -> Files:
    """What extractor and judge see in the reference and in the held-out split, and in the training split where a metric asks for it."""
    splits = context.component("dataset").load()
    names = ("reference", "held_out", "train") if context.task["needs_training"] else ("reference", "held_out")
    seen = {name: _seen(context, splits[name].images, splits[name].labels) for name in names}
    mean, root = moments(seen["reference"]["features"])
    seen["reference"] |= {"mean": mean, "root": root.contiguous()}                 # once, for every cell that is compared with it
    files = {f"{name}.safetensors": safetensors.torch.save(tensors) for name, tensors in seen.items()}
    return files | {"facts.json": as_json({f"{name}_count": len(splits[name].images) for name in names})}


def features(context: Context) -> Files:
    """What extractor and judge see in the samples of a cell."""
    samples = context.tensors("sample", "images.safetensors")
    seen = _seen(context, samples["images"], samples.get("labels"))
    return {"seen.safetensors": safetensors.torch.save(seen), "facts.json": as_json({
        "feature_count": seen["features"].shape[1], "remark": context.component("extractor").remark(tuple(samples["images"].shape[1:]))})}


def evaluate(context: Context) -> Files:
    """One metric of one set of images, or of one trained denoiser."""
    metric = context.component("metric")
    measured = metric.measure(_model(context), context.progress) if metric.looks_at == "denoiser" else _of_samples(context, metric)
    found = as_columns(measured)
    if "held_out" in context.parents:
        found["values"] |= beside(context.store.read_json("evaluate", context.parents["held_out"], "values.json")["values"])
    return {"values.json": as_json(found)}


def beside(floor: dict[str, float]) -> dict[str, float]:
    """What held-out real images have, by the names under which a row of generated ones gives it; without its interval."""
    return {f"{name}_of_held_out": value for name, value in floor.items() if not name.endswith(INTERVAL)}


def _of_samples(context: Context, metric: SampleMetric) -> dict[str, float | Jackknife]:
    """Of a split of real images where no samples are given: the floor, and what copies would have."""
    names = ("reference", "held_out", "train") if metric.needs_training else ("reference", "held_out")
    real = Real(**{name: _evidence(context.tensors("reference", f"{name}.safetensors")) for name in names})
    if "features" in context.parents:
        generated = _evidence(context.tensors("features", "seen.safetensors"))
    else:
        generated = getattr(real, context.task["split"]) if context.task["split"] in names else _evidence(context.tensors("reference", "train.safetensors"))
        generated = some_of(generated, context.task.get("count"))
    return metric.measure(generated, real)


def _model(context: Context) -> TrainedModel:
    """The denoiser of a training, plainly conditional: no guidance, no clipping."""
    cell = context.cell()
    network = training.build(cell, context.device).eval().requires_grad_(False)
    network.load_state_dict(context.tensors("train", "weights.safetensors"))
    held_out = cell.dataset.load()["held_out"]
    conditions = condition_of(held_out)

    def of_rows(rows: Tensor) -> Denoise:
        told = None if conditions is None else as_condition(conditions[rows].to(context.device))

        def denoise(x_t: Tensor, t: float) -> Prediction:
            said = network.denoise(x_t.float(), t, told, torch.zeros(len(x_t), dtype=torch.bool, device=x_t.device))
            return Prediction(*(None if part is None else part.to(x_t.dtype) for part in said))
        return denoise
    return TrainedModel(denoise=of_rows, schedule=cell.noise_schedule, held_out=held_out, device=context.device, seed=cell.seed)


def as_columns(measured: dict[str, float | Jackknife]) -> dict[str, dict[str, Any]]:
    """`values`: numbers by name, four for each jackknife; `left_out`: the 20 values of each jackknife, by the name of its value."""
    values: dict[str, float] = {}
    for name, number in measured.items():
        if isinstance(number, Jackknife):
            around = dict(zip(INTERVAL, (number.debiased, number.low, number.high), strict=True))
            values |= {name: number.value} | {f"{name}{end}": end_value for end, end_value in around.items()}
        else:
            values[name] = number
    return {"values": values, "left_out": {name: list(j.left_out) for name, j in measured.items() if isinstance(j, Jackknife)}}


def _split(context: Context, name: str) -> Split:
    return context.component("dataset").load()[name]


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
        judge = Classifier.from_weights(context.tensors("classifier", "weights.safetensors"))
        seen["predicted"] = judge.predict(images, context.device)
    return seen


def some_of(evidence: Evidence, count: int | None) -> Evidence:
    """So many images of a split, each class in proportion; all of them where `count` is None or larger."""
    if count is None or count >= len(evidence.images):
        return evidence
    order = torch.arange(len(evidence.images)) if evidence.labels is None else evidence.labels.argsort(stable=True)
    chosen = order[torch.arange(count) * len(order) // count]
    return Evidence(**{name: None if value is None or name == "moments" else value[chosen] for name, value in vars(evidence).items()})


def _evidence(seen: dict[str, Tensor]) -> Evidence:
    return Evidence(images=seen["images"], labels=seen.get("labels"), features=seen["features"], predicted=seen.get("predicted"), logits=seen.get("logits"),
                    moments=Moments(seen["mean"], seen["root"]) if "mean" in seen else None)
