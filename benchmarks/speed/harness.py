"""Cases of the harness: distance, training, sampling, plan, store, and a whole small run. Used by `cases`."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from diffbench.contracts.settings import Train
from diffbench.contracts.values import silent
from diffbench.errors import DataError
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.registry.ref import HOME
from diffbench.registry.registry import Registry
from diffbench.stages import drawing, training_loop
from diffbench.stats import frechet
from diffbench.store.artefacts import Store
from diffbench.store.digest import digest
from diffbench.testing.speed.case import Case, Unmeasurable, Work, make
from diffbench.testing.stand_ins import StandInImages, all_examples, cell_with

TRAIN = Train(steps=10, batch_size=16, warmup=2)
SEEDS = 200
ARTEFACT = 100_000                    # bytes


def harness_cases(registry: Registry) -> list[Case]:
    """Whatever is registered, these are the same work, of components of this distribution."""
    registry = registry.part(lambda ref: ref.distribution == HOME)

    def case(suite: str, name: str, prepare: Callable[..., Work], is_counted: bool = True) -> Case:
        return Case(name=f"{suite}: {name}", prepare=prepare, is_counted=is_counted)
    return [
        *(case("frechet", f"distance of 1000 from {count} features of length {length}",
               partial(_distance, count, length))
          for count, length in ((1000, 64), (2000, 256))),
        case("training", f"{TRAIN.steps} steps with {TRAIN.batch_size} images", partial(_training, registry)),
        case("sampling", "20 images in 10 steps", partial(_sampling, registry)),
        case("plan", f"{SEEDS} cells", partial(_plan, registry), is_counted=False),
        case("store", f"publish {ARTEFACT // 1000} kB", _publish, is_counted=False),
        case("run", "a smoke run of one cell", partial(_run, registry), is_counted=False),
    ]


def _distance(count: int, length: int, device: torch.device) -> Work:
    """On the host, as everywhere."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, length, dtype=torch.float64, generator=generator) for n in (1000, count))
    return Work(run=lambda: frechet.frechet_distance(x, y))


def _small_cell(registry: Registry) -> Any:
    """The built-in backbone with the fewest parameters and the first built-in scheduler, on stand-in images."""
    ours = {kind: all_examples(registry, kind) for kind in ("backbone", "scheduler")}
    if not all(ours.values()):
        raise Unmeasurable("there is no built-in backbone or no built-in scheduler")
    cells = [cell_with(registry, backbone=b, scheduler=ours["scheduler"][0], train=TRAIN, dataset=StandInImages())
             for b in ours["backbone"]]
    fitting = [cell for cell in cells if cell.backbone.why_not(cell) is None]

    def parameters(cell: Any) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in training_loop.Denoiser(cell).parameters())
    return min(fitting, key=parameters)


def _training(registry: Registry, device: torch.device) -> Work:
    cell = _small_cell(registry)
    split = cell.dataset.load()["train"]
    return Work(run=lambda: training_loop.train(cell, split, device), images=TRAIN.steps * TRAIN.batch_size)


def _sampling(registry: Registry, device: torch.device) -> Work:
    cell = _small_cell(registry)
    cell = replace(cell, scheduler=replace(cell.scheduler, steps=10))
    model, helpers = training_loop.build(cell, device).eval(), drawing.helpers_for(cell, device)
    return Work(run=lambda: drawing.draw(cell, model, None, helpers, device, range(20), silent), images=20,
                evaluations=lambda: model.evaluations / 20)


def _content(registry: Registry, **axes: Any) -> dict[str, Any]:
    """A matrix of built-in components on the smallest images that are here."""
    sizes: list[tuple[int, str]] = []
    for ref in registry.refs("dataset"):
        if "required" in dict(ref.summary().options).values():
            continue
        dataset = make(registry, ref)
        try:
            dataset.fingerprint()
        except DataError:
            continue                                      # not on this machine
        if dataset.classes is not None and dataset.condition_shape is None:
            sizes.append((math.prod(dataset.image_shape), ref.full_name))
    if not sizes:
        raise Unmeasurable("the data of no built-in data set are here")
    small = _small_cell(registry)
    parts = {kind: {registry.ref_of(part).full_name: _as_written(part)} for kind in ("backbone", "scheduler")
             for part in (getattr(small, kind),)}
    return {"diffbench": 1, "name": "bench", "dataset": min(sizes)[1], "axes": parts | axes, "metrics": [],
            "throughput": {"repeats": 3, "batch_size": 1}}


def _as_written(component: Any) -> dict[str, Any]:
    """Its options as a matrix would give them."""
    values = {f.name: getattr(component, f.name) for f in fields(component)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def _plan(registry: Registry, device: torch.device) -> Work:
    """From a mapping to keys."""
    content = _content(registry, seed=list(range(SEEDS)))
    return Work(run=lambda: stage_graph.make_plan(loading.load(content, registry), registry, "cpu"))


def _publish(device: torch.device) -> Work:
    """A new artefact each time, flushed to the disk as any is."""
    folder = tempfile.TemporaryDirectory(prefix="diffbench-bench-")
    store, numbers = Store(Path(folder.name)), itertools.count()
    store.prepare()
    files = {"facts.json": b"{}", "weights.safetensors": bytes(ARTEFACT), "outcome.json": b"{}"}

    def run() -> None:
        key = digest({"number": next(numbers), "in": folder.name})
        store.publish("train", key, {"stage": "train", "key": key, "identity": {}, "task": {}, "parents": {}}, files)
    return Work(run=run)


def _run(registry: Registry, device: torch.device) -> Work:
    """Workers, stages, tables and pictures; nothing is found in the store."""
    from diffbench.api import running

    content = _content(registry)

    def run() -> None:
        with tempfile.TemporaryDirectory(prefix="diffbench-bench-") as folder:
            running.run(content, out=Path(folder) / "out", device=device.type, jobs=1, smoke=True,
                        store=Store(Path(folder) / "home"), threads=1)
    return Work(run=run)
