"""What each stage does: it reads its parents from the store, computes, and returns the files of its artefact."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from diffbench import sampling, training
from diffbench.classifier import Classifier, NoisyClassifier, fit_classifier, fit_noisy_classifier
from diffbench.contracts import Dataset
from diffbench.denoiser import Denoiser, as_condition, clipped, condition_of, to_pixels
from diffbench.errors import Diverged
from diffbench.matrix import Cell
from diffbench.noise import sample_seeds
from diffbench.planning import rebuild_cell
from diffbench.registry import Registry
from diffbench.specs import rebuild
from diffbench.store import Store
from diffbench.timing import Timing, machine_lock, measure
from diffbench.values import Evidence, Helpers, Split

TIMED_TRAIN_STEPS = 20                # optimiser steps in one timed run of a training

Files = dict[str, bytes]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a stage may rely on."""

    store: Store
    registry: Registry
    device: torch.device
    threads: int
    task: dict[str, Any]
    parents: dict[str, str]           # role -> key
    progress: Callable[..., None]     # (done, of, **figures), such as loss=0.1
    partial: Path                     # folder for what a killed try leaves to the next; not there until something is written
    execution: dict[str, Any]         # what changes no result: device, threads, memory_share, checkpoint_seconds, is_deterministic, batch_size

    def cell(self) -> Cell:
        """The cell of the task."""
        return rebuild_cell(self.task["cell"], self.registry)

    def component(self, kind: str) -> Any:
        """A component of the task."""
        return rebuild(kind, self.task[kind], self.registry)

    def tensors(self, role: str, name: str) -> dict[str, Tensor]:
        """A file of tensors of a parent stage."""
        return self.store.read_tensors(role, self.parents[role], name)


def train(context: Context) -> Files:
    """The averaged weights of a denoiser, and its loss curve."""
    cell = context.cell()
    split = cell.dataset.load()["train"]
    trained = training.train(cell, split, context.device, context.progress)
    facts = {"losses": trained.losses, "steps_per_loss": training.CHUNK, "train_loss": trained.losses[-1] if trained.losses else None,
             "train_seconds": trained.seconds, "train_count": len(split.images), "threads": context.threads,
             "dtype": "bfloat16" if training.uses_bfloat16(cell, context.device) else "float32"}
    return {"weights.safetensors": safetensors.torch.save(trained.weights), "facts.json": _json(facts)}


def sample(context: Context) -> Files:
    """Images of a trained denoiser, uint8, with the labels that were asked for."""
    cell = context.cell()
    model = training.build(cell, context.device).eval()
    model.load_state_dict(context.tensors("train", "weights.safetensors"))
    classifier = context.tensors("noisy_classifier", "weights.safetensors") if cell.conditioning.needs_classifier else None
    cond, labels = asked_for(cell)
    drawn = draw(cell, model, cond, helpers_for(cell, context.device, classifier), context.device, context.progress)
    finite = drawn.flatten(1).isfinite().all(1)
    if not finite.all():
        raise Diverged(f"{int((~finite).sum())} of {len(drawn)} samples are not finite")
    facts = {"nfe": model.evaluations / len(drawn), "sample_count": len(drawn), "threads": context.threads, "dtype": "float32",
             "clamped_share": float((drawn.abs() > 1).float().mean())}
    tensors = {"images": to_pixels(drawn)} | ({} if labels is None else {"labels": labels})
    return {"images.safetensors": safetensors.torch.save(tensors), "facts.json": _json(facts)}


def asked_for(cell: Cell) -> tuple[Tensor | None, Tensor | None]:
    """(condition as stored, labels) of each sample: labels go round; images that are conditions, and what they show, those of the reference split."""
    count = cell.sample.count
    if cell.dataset.condition_shape is not None:
        split = cell.dataset.load()["reference"]
        index = torch.arange(count) % len(split.images)
        return split.conditions[index], None if split.labels is None else split.labels[index]
    labels = None if cell.dataset.classes is None else torch.arange(count) % cell.dataset.classes
    return labels, labels


def helpers_for(cell: Cell, device: torch.device, weights: dict[str, Tensor] | None = None) -> Helpers:
    """What guidance may use in a cell; a classifier of noised images with these weights, or untrained where only time counts."""
    if not cell.conditioning.needs_classifier:
        return Helpers(schedule=cell.noise_schedule)
    classifier = NoisyClassifier(cell.dataset.image_shape, cell.dataset.classes, cell.noise_schedule)
    if weights is not None:
        classifier.load_state_dict(weights)
    return Helpers(schedule=cell.noise_schedule, classifier=classifier.to(device).requires_grad_(False).eval())


def draw(cell: Cell, model: Denoiser, cond: Tensor | None, helpers: Helpers, device: torch.device,
         progress: Callable[..., None] = lambda done, of, **figures: None) -> Tensor:
    """x_0 [count, C, H, W] on the host. Sample i has condition i of `cond` (as stored) and owns its noise."""
    count, batches, start = cell.sample.count, [], time.perf_counter()
    for first in range(0, count, cell.sample.batch_size):
        seeds = sample_seeds(cell.seed, first, min(cell.sample.batch_size, count - first))
        told = None if cond is None else as_condition(cond[first : first + len(seeds)].to(device))
        denoise = cell.conditioning.guide(model.denoise, told, helpers)
        if cell.sample.clip:
            denoise = clipped(denoise, cell.noise_schedule)
        x_T = sampling.initial(cell.noise_schedule, cell.spacing, cell.scheduler.steps, seeds, cell.dataset.image_shape, device)
        batches.append(sampling.sample(denoise, cell.noise_schedule, cell.scheduler, x_T, spacing=cell.spacing, seeds=seeds,
                                       temperature=cell.sample.temperature).x_0)
        progress(first + len(seeds), count, images_per_second=(first + len(seeds)) / (time.perf_counter() - start))
    return torch.cat(batches).cpu()


def noisy_classifier(context: Context) -> Files:
    """The classifier of noised images that guides; never the judge."""
    dataset: Dataset = context.component("dataset")
    splits = dataset.load()
    train_split = splits["train"]
    model, facts = fit_noisy_classifier(train_split.images, train_split.labels, dataset.classes, context.component("noise_schedule"),
                                        seed=context.task["seed"], device=context.device)
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    return {"weights.safetensors": safetensors.torch.save(weights), "facts.json": _json(facts)}


def extractor(context: Context) -> Files:
    """The weights of the feature extractor, fitted to the training split."""
    weights, facts = context.component("extractor").fit(_split(context, "train"), context.task["seed"], context.device)
    return {"weights.safetensors": safetensors.torch.save(weights), "facts.json": _json(facts)}


def classifier(context: Context) -> Files:
    """The judge: a classifier used for nothing but class accuracy."""
    dataset: Dataset = context.component("dataset")
    splits = dataset.load()
    model, facts = fit_classifier(splits["train"].images, splits["train"].labels, dataset.classes, seed=context.task["seed"], device=context.device)
    held_out = splits["held_out"]
    facts = facts | {"held_out_accuracy": float((model.predict(held_out.images, context.device) == held_out.labels).double().mean())}
    return {"weights.safetensors": safetensors.torch.save(model.weights()), "facts.json": _json(facts)}


def reference(context: Context) -> Files:
    """What extractor and judge see in the reference and in the held-out split."""
    splits = context.component("dataset").load()
    files = {f"{name}.safetensors": safetensors.torch.save(_seen(context, splits[name].images, splits[name].labels)) for name in ("reference", "held_out")}
    return files | {"facts.json": _json({"reference_count": len(splits["reference"].images), "held_out_count": len(splits["held_out"].images)})}


def features(context: Context) -> Files:
    """What extractor and judge see in the samples of a cell."""
    samples = context.tensors("sample", "images.safetensors")
    return {"seen.safetensors": safetensors.torch.save(_seen(context, samples["images"], samples.get("labels")))}


def evaluate(context: Context) -> Files:
    """One metric of one set of images; of held-out real images where no samples are given, which is the floor."""
    metric = context.component("metric")
    target = context.tensors("reference", "reference.safetensors")
    generated = context.tensors("features", "seen.safetensors") if "features" in context.parents else context.tensors("reference", "held_out.safetensors")
    return {"values.json": _json(metric.measure(_evidence(generated), _evidence(target)))}


def throughput(context: Context) -> Files:
    """Seconds of a whole sampler run, or of optimiser steps, with the device to itself; networks need no training for that."""
    cell = context.cell()
    settings = context.task["throughput"]
    load_before = os.getloadavg()
    with machine_lock():
        if context.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(context.device)
        facts = _timed_training(cell, settings["repeats"], context) if context.task["of"] == "training" else _timed_sampling(cell, settings, context)
        if context.device.type == "cuda":
            facts["peak_memory_bytes"] = torch.cuda.max_memory_allocated(context.device)
    facts |= {"threads": context.threads, "load_before": load_before[0], "load_after": os.getloadavg()[0]}
    return {"facts.json": _json(facts)}


STAGES: dict[str, Callable[[Context], Files]] = {
    "extractor": extractor, "classifier": classifier, "noisy_classifier": noisy_classifier, "reference": reference, "train": train,
    "sample": sample, "features": features, "evaluate": evaluate, "throughput": throughput,
}


def _timed_sampling(cell: Cell, settings: dict[str, Any], context: Context) -> dict[str, Any]:
    batch = settings["batch_size"]
    cell = replace(cell, sample=replace(cell.sample, batch_size=batch, count=batch))
    model = training.build(cell, context.device).eval()
    split, helpers = _made_up(cell, batch), helpers_for(cell, context.device)
    timing = measure(lambda: draw(cell, model, condition_of(split), helpers, context.device), settings["repeats"], context.device)
    nfe = model.evaluations / batch / (len(timing.seconds) + len(timing.warmup_seconds))
    return _timing_facts(timing) | {"images": batch, "nfe": nfe, "seconds_per_nfe": timing.median / nfe, "batch_size": batch,
                                    "parameters": sum(p.numel() for p in model.parameters()), "gmac_per_nfe": gmac_per_nfe(cell, model, context.device)}


def _timed_training(cell: Cell, repeats: int, context: Context) -> dict[str, Any]:
    cell = replace(cell, train=replace(cell.train, steps=TIMED_TRAIN_STEPS))
    batch = cell.train.batch_size
    split = _made_up(cell, batch)
    timing = measure(lambda: training.train(cell, split, context.device), repeats, context.device)
    return _timing_facts(timing) | {"images": batch * TIMED_TRAIN_STEPS, "batch_size": batch}


def _made_up(cell: Cell, count: int) -> Split:
    """Random images with the shapes of a data set: time does not depend on what they show."""
    generator, dataset = torch.Generator().manual_seed(0), cell.dataset

    def images(shape: tuple[int, int, int]) -> Tensor:
        return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=generator)
    return Split(images=images(dataset.image_shape), labels=None if dataset.classes is None else torch.arange(count) % dataset.classes,
                 conditions=None if dataset.condition_shape is None else images(dataset.condition_shape))


def gmac_per_nfe(cell: Cell, model: Denoiser, device: torch.device) -> float:
    """1e9 multiply-accumulates of one network evaluation of one image, counted by torch (its FLOPs halved)."""
    from torch.utils.flop_counter import FlopCounterMode

    x = torch.zeros(1, *cell.dataset.image_shape, device=device)
    stored = condition_of(_made_up(cell, 1))
    cond = None if stored is None else as_condition(stored.to(device))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.denoise(x, 0.5, cond, torch.zeros(1, dtype=torch.bool, device=device))
    return counter.get_total_flops() / 2e9


def _timing_facts(timing: Timing) -> dict[str, Any]:
    return {"seconds": timing.seconds, "warmup_seconds": timing.warmup_seconds, "median_seconds": timing.median, "quartile_seconds": timing.quartiles}


def _split(context: Context, name: str) -> Split:
    return context.component("dataset").load()[name]


def _seen(context: Context, images: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """Features and judgement of a set of images, checked finite."""
    weights = context.tensors("extractor", "weights.safetensors")
    seen = {"images": images, "features": context.component("extractor").features(weights, images, context.device).contiguous()}
    if not seen["features"].isfinite().all():
        raise Diverged("the extractor's features are not finite")
    if labels is not None:
        seen["labels"] = labels
    if "classifier" in context.parents:
        judge = Classifier.from_weights(context.tensors("classifier", "weights.safetensors"))
        seen["predicted"] = judge.predict(images, context.device)
    return seen


def _evidence(seen: dict[str, Tensor]) -> Evidence:
    return Evidence(images=seen["images"], labels=seen.get("labels"), features=seen["features"], predicted=seen.get("predicted"))


def _json(facts: Any) -> bytes:
    return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False).encode()

