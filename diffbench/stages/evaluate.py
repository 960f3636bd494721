"""The stage `evaluate`: a metric of samples, or of a trained denoiser."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.evaluation import Evidence, Real, SampleMetric, TrainedModel
from diffbench.contracts.values import Denoise, Prediction
from diffbench.diffusion.pixels import as_condition, condition_of
from diffbench.stages import training_loop
from diffbench.stages.context import Context, Files, as_json
from diffbench.stats.frechet import Moments
from diffbench.stats.jackknife import INTERVAL, Jackknife, Measured, NoInterval


def evaluate(context: Context) -> Files:
    """One metric of one set of images, or of one trained denoiser."""
    metric = context.component("metric")
    measured = (metric.measure(_model(context), context.progress) if metric.looks_at == "denoiser"
                else _of_samples(context, metric))
    columns = as_columns(measured)
    if "held_out" in context.parents:
        columns["values"] |= beside(context.store.read_json("evaluate", context.parents["held_out"], "values.json")[
            "values"])
    return {"values.json": as_json(columns)}


def beside(floor: dict[str, float]) -> dict[str, float]:
    """Values of held-out real images, by the names under which a row of generated ones gives them; without their
    intervals.
    """
    return {f"{name}_of_held_out": value for name, value in floor.items() if not name.endswith(INTERVAL)}


def _of_samples(context: Context, metric: SampleMetric) -> dict[str, Measured]:
    """Of a split of real images where no samples are given: the floor, and what copies would have."""
    names = ("reference", "held_out", "train") if metric.needs_training else ("reference", "held_out")
    real = Real(**{name: _evidence(context.tensors("reference", f"{name}.safetensors")) for name in names},
                class_names=tuple(context.task.get("class_names", ())))
    if "features" in context.parents:
        generated = _evidence(context.tensors("features", "seen.safetensors"))
    else:
        generated = (getattr(real, context.task["split"]) if context.task["split"] in names
                     else _evidence(context.tensors("reference", "train.safetensors")))
        generated = some_of(generated, context.task.get("count"))
    return metric.measure(generated, real)


def _model(context: Context) -> TrainedModel:
    """The denoiser of a training, plainly conditional: no guidance, no clipping."""
    cell = context.cell()
    network = training_loop.build(cell, context.device).eval().requires_grad_(False)
    with context.weights("train") as weights:
        network.load_state_dict(weights)
    held_out = cell.dataset.load()["held_out"]

    def of_rows(rows: Tensor) -> Denoise:
        condition = as_condition(condition_of(held_out, rows), context.device)

        def denoise(x_t: Tensor, t: float) -> Prediction:
            output = network.denoise(x_t.float(), t, condition,
                                     torch.zeros(len(x_t), dtype=torch.bool, device=x_t.device))
            return Prediction(*(None if part is None else part.to(x_t.dtype) for part in output))
        return denoise
    return TrainedModel(denoise=of_rows, schedule=cell.noise_schedule, held_out=held_out, device=context.device,
                        seed=cell.seed)


def as_columns(measured: dict[str, Measured]) -> dict[str, dict[str, Any]]:
    """`values`: numbers by name, four for each jackknife. By the name of a value: `left_out`, its 20 values of the
    jackknife, and `no_interval`, why there is none."""
    values: dict[str, float] = {}
    for name, number in measured.items():
        if isinstance(number, Jackknife):
            around = dict(zip(INTERVAL, (number.debiased, number.low, number.high), strict=True))
            values |= {name: number.value} | {f"{name}{end}": end_value for end, end_value in around.items()}
        else:
            values[name] = number.value if isinstance(number, NoInterval) else number
    left_out = {name: list(j.left_out) for name, j in measured.items() if isinstance(j, Jackknife) and j.left_out}
    no_interval = {name: number.reason for name, number in measured.items() if isinstance(number, NoInterval)}
    return {"values": values, "left_out": left_out, "no_interval": no_interval}


def some_of(evidence: Evidence, count: int | None) -> Evidence:
    """So many images of a split, each class in proportion; all of them where `count` is None or larger."""
    if count is None or count >= len(evidence.images):
        return evidence
    order = torch.arange(len(evidence.images)) if evidence.labels is None else evidence.labels.argsort(stable=True)
    chosen = order[torch.arange(count) * len(order) // count]
    return Evidence(**{name: None if value is None or name == "moments" else value[chosen]
                       for name, value in vars(evidence).items()})


def _evidence(seen: dict[str, Tensor]) -> Evidence:
    return Evidence(images=seen["images"], labels=seen.get("labels"), features=seen["features"],
                    predicted=seen.get("predicted"), logits=seen.get("logits"),
                    moments=Moments(seen["mean"], seen["root"]) if "mean" in seen else None)
