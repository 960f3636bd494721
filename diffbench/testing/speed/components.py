"""The cases of registered components, with networks, images or conditions that cost nothing.

Used by `diffbench bench`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from diffbench.contracts.condition import Condition
from diffbench.contracts.model import Helpers
from diffbench.contracts.values import Io, Level, Noised, Prediction, Signals, per_sample
from diffbench.diffusion import noise
from diffbench.diffusion.denoiser import io_of
from diffbench.diffusion.pixels import as_condition, condition_of
from diffbench.registry.ref import Ref
from diffbench.registry.registry import Registry
from diffbench.testing.conformance import subjects
from diffbench.testing.speed.case import Case, Unmeasurable, Work, make, size
from diffbench.testing.stand_ins import StandInImages, all_examples, cell_with

SHAPES = ((64, 1, 8, 8), (16, 3, 32, 32), (64, 3, 32, 32))
STEPS = 10
BATCH = (2, 3, 16, 16)                # of networks
T = 0.5                               # where guidance is measured


def cases_of(registry: Registry, names: Sequence[str] = (), phrases: Sequence[str] = ()) -> list[Case]:
    """The cases of components, named as for `diffbench check`, whose names hold every phrase. Imports no component."""
    cases = [case for ref in subjects(registry, tuple(names)) if ref.kind in BY_KIND
             for case in BY_KIND[ref.kind](registry, ref)]
    return [case for case in cases if all(phrase in case.name for phrase in phrases)]


class Free:
    """A denoiser that costs nothing and counts the images it is sent."""

    def __init__(self, samples: int):
        self.samples, self.images, self.answers = samples, 0, {}

    def __call__(self, x_t: Tensor, t: float, *_: object) -> Prediction:
        self.images += len(x_t)
        if len(x_t) not in self.answers:
            self.answers[len(x_t)] = Prediction(x0=torch.zeros_like(x_t), eps=torch.ones_like(x_t),
                                                variance=torch.zeros_like(x_t))
        return self.answers[len(x_t)]

    def evaluations(self) -> float:
        return self.images / self.samples


def _refuse(reason: str | None) -> None:
    if reason:
        raise Unmeasurable(reason)


def _scheduler_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    for shape in SHAPES:
        yield Case(name=f"scheduler {ref.full_name}: a step of {size(shape)}", is_counted=shape == SHAPES[0],
                   prepare=partial(_step, registry, ref, shape))
    yield Case(name=f"scheduler {ref.full_name}: {STEPS} steps", is_timed=False,
               prepare=partial(_steps, registry, ref))


def _walk(registry: Registry, ref: Ref, shape: tuple[int, ...], device: torch.device) -> tuple[Any, Free, Tensor, Any]:
    """(step(x, state, index), the denoiser, x, state before the first step); noise is drawn beforehand."""
    scheduler = replace(make(registry, ref), steps=STEPS)
    _refuse(scheduler.why_not(cell_with(registry, scheduler=scheduler)))
    schedule = registry.default("noise_schedule")
    times, denoise = registry.default("spacing")(schedule, STEPS).tolist(), Free(shape[0])
    drawn_noise = noise.normal(range(shape[0]), shape[1:], 0, device=device)

    def step(x: Tensor, state: Any, index: int) -> tuple[Tensor, Any]:
        return scheduler.step(denoise, schedule, x, times[index], times[index + 1], state, lambda draw=0: drawn_noise)
    return step, denoise, drawn_noise, scheduler.init()


def _step(registry: Registry, ref: Ref, shape: tuple[int, ...], device: torch.device) -> Work:
    """The sixth step of ten, past any warm-up."""
    step, _, x, state = _walk(registry, ref, shape, device)
    for index in range(5):
        x, state = step(x, state, index)
    return Work(run=lambda: step(x, state, 5), images=shape[0])


def _steps(registry: Registry, ref: Ref, device: torch.device) -> Work:
    step, denoise, x_T, _ = _walk(registry, ref, SHAPES[0], device)
    scheduler = make(registry, ref)

    def run() -> Tensor:
        x, state = x_T, scheduler.init()
        for index in range(STEPS):
            x, state = step(x, state, index)
        return x
    return Work(run=run, evaluations=denoise.evaluations, images=len(x_T))


def _backbone_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    for passes, prepare in (("forward", _forward), ("forward and backward", _backward)):
        yield Case(name=f"backbone {ref.full_name}: {passes} of {size(BATCH)}", prepare=partial(prepare, registry, ref))


def _network(registry: Registry, ref: Ref, device: torch.device) -> tuple[nn.Module, tuple[Tensor, Tensor, Signals]]:
    """The network of the default configuration, with a vector where it has the socket, and its inputs."""
    backbone = make(registry, ref)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = backbone.build(Io(shape=BATCH[1:], signal_width=backbone.signal_width,
                                    ports=backbone.ports & {"vector"}))
    x = noise.normal(range(BATCH[0]), BATCH[1:], 0, device=device)
    signals = (Signals(vector=torch.zeros(BATCH[0], backbone.signal_width, device=device)) if "vector" in backbone.ports
               else Signals())
    return network.to(device), (x, torch.full((BATCH[0],), 500.0, device=device), signals)


def _forward(registry: Registry, ref: Ref, device: torch.device) -> Work:
    network, inputs = _network(registry, ref, device)
    network.eval()

    @torch.no_grad()
    def run() -> Tensor:
        return network(*inputs)
    return Work(run=run, images=BATCH[0], traced=(network, inputs))


def _backward(registry: Registry, ref: Ref, device: torch.device) -> Work:
    network, inputs = _network(registry, ref, device)
    network.train()

    def run() -> None:
        network(*inputs).square().mean().backward()
        network.zero_grad(set_to_none=True)
    return Work(run=run, images=BATCH[0])


def _conditioning_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    for part, prepare in (("signals and their gradients", _signals), ("one guided prediction", _guided)):
        yield Case(name=f"conditioning {ref.full_name}: {part}", prepare=partial(prepare, registry, ref))


def _cell(registry: Registry, ref: Ref) -> Any:
    """A cell with this conditioning, on the first backbone that has its sockets."""
    conditioning, reasons = make(registry, ref), []
    for backbone in all_examples(registry, "backbone"):
        cell = cell_with(registry, conditioning=conditioning, backbone=backbone, dataset=StandInImages())
        missing = conditioning.ports - backbone.ports
        reason = (f"no backbone has the socket {', '.join(sorted(missing))}" if missing
                  else conditioning.why_not(cell) or backbone.why_not(cell))
        if reason is None:
            return cell
        reasons.append(reason)
    raise Unmeasurable(reasons[0] if reasons else "no backbone is registered")


def _condition(cell: Any, device: torch.device) -> Condition | None:
    return as_condition(condition_of(cell.dataset.load()["train"], torch.arange(SHAPES[0][0])), device)


def _signals(registry: Registry, ref: Ref, device: torch.device) -> Work:
    cell = _cell(registry, ref)
    module, cond = cell.conditioning.build(io_of(cell)).to(device), _condition(cell, device)
    drop = torch.arange(len(cond), device=device) % 10 == 0

    def run() -> None:
        signals = module(cond, drop)
        filled = [value for port in ("maps", "tokens", "vector") if (value := getattr(signals, port)) is not None]
        if any(value.requires_grad for value in filled):
            torch.autograd.backward([value.sum() for value in filled if value.requires_grad])
            module.zero_grad(set_to_none=True)
    return Work(run=run, images=len(cond))


def _guided(registry: Registry, ref: Ref, device: torch.device) -> Work:
    """Guidance alone: the network and the classifier cost nothing."""
    cell = _cell(registry, ref)
    cond, shape = _condition(cell, device), SHAPES[0]
    classifier = ((lambda x_t, t: torch.stack([-x_t.flatten(1).sum(1), x_t.flatten(1).sum(1)], dim=1))
                  if cell.conditioning.needs_classifier else None)
    denoise = Free(shape[0])
    guided = cell.conditioning.guide(denoise, cond, Helpers(schedule=cell.noise_schedule, classifier=classifier))
    x_t = noise.normal(range(shape[0]), shape[1:], 0, device=device)

    @torch.no_grad()
    def run() -> Prediction:
        return guided(x_t, T)
    return Work(run=run, evaluations=denoise.evaluations, images=shape[0])


def _objective_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    yield Case(name=f"objective {ref.full_name}: loss and gradient of {size(SHAPES[1])}",
               prepare=partial(_loss, registry, ref))


def _loss(registry: Registry, ref: Ref, device: torch.device) -> Work:
    objective, shape = make(registry, ref), SHAPES[1]
    cell = cell_with(registry, objective=objective)
    _refuse(objective.why_not(cell))
    schedule = cell.noise_schedule
    t = schedule.snapped(objective.times(torch.linspace(0.05, 0.95, shape[0], dtype=torch.float64), schedule))

    x_0, eps = (noise.normal(range(shape[0]), shape[1:], step, device=device) for step in (0, 1))

    def level_at(t: Tensor) -> Level:
        return Level(*(per_sample(part.float().to(device), x_0) for part in schedule.level(t)))
    level = level_at(t)
    previous = level_at(((t * schedule.grid).round() - 1) / schedule.grid) if objective.learns_variance else None
    noised = Noised(x_0, eps, level.alpha * x_0 + level.sigma * eps, level, previous)
    out = (torch.cat([eps, 0.1 * x_0], dim=1) if objective.learns_variance else 0.5 * eps).requires_grad_()

    def run() -> None:
        objective.loss(out, noised, schedule, cell.parameterization).mean().backward()
        out.grad = None
    return Work(run=run, images=shape[0])


def _dataset_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    yield Case(name=f"dataset {ref.full_name}: load", is_counted=False, prepare=partial(_load, registry, ref))


def _load(registry: Registry, ref: Ref, device: torch.device) -> Work:
    """Loading from the disk to three splits in memory, on the host whatever the device is."""
    dataset = make(registry, ref)
    dataset.fingerprint()                                 # DataError where data are missing
    return Work(run=dataset.load, images=sum(len(split.images) for split in dataset.load().values()))


def _extractor_cases(registry: Registry, ref: Ref) -> Iterator[Case]:
    yield Case(name=f"extractor {ref.full_name}: features of 200 images of 1x8x8",
               prepare=partial(_features, registry, ref))


def _features(registry: Registry, ref: Ref, device: torch.device) -> Work:
    extractor = make(registry, ref)
    _refuse(extractor.why_not(cell_with(registry, dataset=StandInImages())))
    extractor.fingerprint()
    splits = StandInImages().load()
    weights, images = extractor.fit(splits["train"], 0, device)[0], splits["reference"].images
    return Work(run=lambda: extractor.features(weights, images, device), images=len(images))


BY_KIND: dict[str, Callable[[Registry, Ref], Iterator[Case]]] = {
    "scheduler": _scheduler_cases, "backbone": _backbone_cases, "conditioning": _conditioning_cases,
    "objective": _objective_cases,
    "dataset": _dataset_cases, "extractor": _extractor_cases,
}
