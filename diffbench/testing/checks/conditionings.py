"""Checks of conditionings, with labels and with images as conditions. Used by `conformance`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.cell import Cell
from diffbench.contracts.condition import Condition
from diffbench.contracts.model import Backbone, Conditioning, Helpers
from diffbench.contracts.settings import Train
from diffbench.contracts.values import Prediction, per_sample
from diffbench.diffusion.denoiser import Denoiser, io_of
from diffbench.diffusion.pixels import as_condition, condition_of
from diffbench.registry.registry import Registry
from diffbench.stages import training_loop
from diffbench.testing.stand_ins import StandInImages, all_examples, cell_with
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]
CPU = torch.device("cpu")
TRAIN = Train(steps=150, batch_size=32, lr=5e-3, ema=0.9, warmup=10)


def conditioning_checks(registry: Registry, conditioning: Conditioning) -> Checks:
    """Checks of sockets, gradients, the null condition, guidance, and the effect of the condition."""
    for by_image in (False, True):
        dataset = StandInImages(by_image=by_image)
        kind = "images" if by_image else "labels"
        yield f"fills exactly the sockets it names, {kind}", partial(_sockets, registry, conditioning, dataset)
        yield f"has parameters that all learn, {kind}", partial(_gradients, registry, conditioning, dataset)
        yield f"has one null condition, {kind}", partial(_null, registry, conditioning, dataset)
        yield f"guides without leaving x_t, {kind}", partial(_guides, registry, conditioning, dataset)
        yield f"makes the network evaluations it claims, {kind}", partial(_evaluations, registry, conditioning, dataset)
        yield f"matters after a short training, {kind}", partial(_matters, registry, conditioning, dataset)


def _cell(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> Cell:
    """A small cell in which the plan would accept the conditioning, on the backbone with the fewest parameters."""
    reasons: list[str] = []
    smallest: tuple[int, Cell] | None = None
    for backbone in all_examples(registry, "backbone"):
        cell = cell_with(registry, conditioning=conditioning, dataset=dataset, backbone=backbone, train=TRAIN)
        reason = _refusal(cell, backbone)
        if reason:
            reasons.append(reason)
            continue
        with torch.device("meta"):
            size = sum(p.numel() for p in Denoiser(cell).parameters())
        if smallest is None or size < smallest[0]:
            smallest = size, cell
    if smallest is None:
        raise NotApplicable(reasons[0] if reasons else "no backbone is registered")
    return smallest[1]


def _refusal(cell: Cell, backbone: Backbone) -> str | None:
    missing = cell.conditioning.ports - backbone.ports
    return (cell.conditioning.why_not(cell) or backbone.why_not(cell)
            or (f"no backbone has the socket {', '.join(sorted(missing))}" if missing else None))


def _conditions(dataset: StandInImages) -> Condition:
    """Two dark conditions, then two bright ones, in the form that a conditioning is given."""
    split = dataset.load()["train"]
    return as_condition(condition_of(split, torch.tensor([0, 2, 1, 3])), CPU)


def _signals(module: torch.nn.Module, cond: Condition | None, drop: Tensor) -> dict[str, Tensor]:
    signals = module(cond, drop)
    return {port: value for port in ("maps", "tokens", "vector") if (value := getattr(signals, port)) is not None}


def _sockets(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> None:
    cell = _cell(registry, conditioning, dataset)
    io = io_of(cell)
    filled = _signals(conditioning.build(io), _conditions(dataset), torch.tensor([False, True, False, True]))
    assert set(filled) == conditioning.ports, f"fills {sorted(filled)} and names {sorted(conditioning.ports)}"
    shapes = {"maps": (4, io.map_channels, 8, 8), "vector": (4, io.signal_width), "tokens": (4, None, io.signal_width)}
    for port, value in filled.items():
        expected = shapes[port]
        assert value.ndim == len(expected) and all(e in (None, s)
                                                   for e, s in zip(expected, value.shape,
                                                                   strict=True)), f"{port} are {list(value.shape)}"


def _gradients(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> None:
    module = conditioning.build(io_of(_cell(registry, conditioning, dataset)))
    if not list(module.parameters()):
        raise NotApplicable("it has no parameters")
    filled = _signals(module, _conditions(dataset), torch.tensor([False, True, False, True]))
    generator = torch.Generator().manual_seed(0)
    sum((value * torch.randn(value.shape, generator=generator)).sum() for value in filled.values()).backward()
    still = [name for name, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert not still, f"no gradient reaches {', '.join(still)}"


def _null(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> None:
    """Signals of a withheld condition do not depend on it, and equal those of no condition at all."""
    if not conditioning.ports:
        raise NotApplicable("it tells the network nothing")
    module = conditioning.build(io_of(_cell(registry, conditioning, dataset)))
    drop = torch.ones(4, dtype=torch.bool)
    present, withheld, absent = (_signals(module, c, d) for c,
                                 d in ((_conditions(dataset), ~drop), (_conditions(dataset), drop), (None, drop)))
    for port in conditioning.ports:
        assert torch.equal(withheld[port][0], withheld[port][2]), f"{port} still tell a condition that is withheld"
        assert torch.equal(withheld[port], absent[port]), f"{port} tell a condition withheld from none at all"
        assert torch.equal(present[port][0], present[port][1]), f"{port} of equal conditions differ"
        assert not torch.equal(present[port][0], present[port][2]), f"{port} of different conditions are equal"


def _helpers(cell: Cell) -> Helpers:
    """Helpers with the exact classifier of the stand-in images, whose pixels are all -0.5 or all 0.5 before noise."""
    schedule = cell.noise_schedule

    def classifier(x_t: Tensor, t: float) -> Tensor:
        alpha, sigma = schedule.scales(t)
        bright = 0.5 * alpha * x_t.flatten(1).sum(1) / sigma**2
        return torch.stack([-bright, bright], dim=1)
    return Helpers(schedule=schedule, classifier=classifier if cell.conditioning.needs_classifier else None)


def _guides(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> None:
    """The guided prediction lies on x_t, its samples are independent, and a learned variance is kept."""
    cell = _cell(registry, conditioning, dataset)
    schedule, cond, t = cell.noise_schedule, _conditions(dataset), 0.5
    alpha, sigma = schedule.scales(t)

    def network(x_t: Tensor, t: float, cond: Condition | None, drop: Tensor) -> Prediction:
        if cond is None:
            condition_value = torch.zeros(len(x_t))
        else:
            condition_value = cond.image.double().flatten(1).mean(1) if cond.image is not None else cond.label.double()
        x0 = torch.tanh(x_t) + per_sample(torch.where(drop, -0.3, 0.1 * condition_value), x_t)
        return Prediction(x0=x0, eps=(x_t - alpha * x0) / sigma, variance=x0)
    x_t = torch.randn(4, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prediction = conditioning.guide(network, cond, _helpers(cell))(x_t, t)
        prediction_alone = conditioning.guide(network, cond[:1], _helpers(cell))(x_t[:1], t)
    gap = float((alpha * prediction.x0 + sigma * prediction.eps - x_t).abs().max())
    assert gap < 1e-10, f"alpha x0_hat + sigma eps_hat misses x_t by {gap:.2g}: x_0 and eps are not guided alike"
    assert torch.allclose(prediction.x0[:1], prediction_alone.x0), "the guidance of a sample depends on the others"
    assert prediction.variance is not None and prediction.variance.shape == x_t.shape, "the learned variance is lost"


def _evaluations(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> None:
    """The number of evaluations is the claimed one at the time where it is largest: some guidances rest at times."""
    cell = _cell(registry, conditioning, dataset)
    images = 0

    def network(x_t: Tensor, t: float, cond: Condition | None, drop: Tensor) -> Prediction:
        nonlocal images
        images += len(x_t)
        return Prediction(x0=0 * x_t, eps=x_t)
    denoise, evaluations = conditioning.guide(network, _conditions(dataset), _helpers(cell)), 0.0
    for t in (0.1, 0.3, 0.5, 0.7, 0.9):
        images = 0
        with torch.no_grad():
            denoise(torch.full((4, 1, 8, 8), 0.1), t)
        evaluations = max(evaluations, images / 4)
    assert evaluations == conditioning.evaluations, (
        f"a prediction takes {evaluations:g} network evaluations, and {conditioning.evaluations} are claimed")


def _matters(registry: Registry, conditioning: Conditioning, dataset: StandInImages) -> float:
    """After a short training the condition decides, at a high noise level, whether dark or bright is predicted."""
    cell = _cell(registry, conditioning, dataset)
    if not conditioning.is_conditional:
        raise NotApplicable("it has no condition")
    cell = replace(cell, seed=1)
    with torch.random.fork_rng(devices=[]):
        model = training_loop.build(cell, CPU).eval()
        model.load_state_dict(training_loop.train(cell, dataset.load()["train"], CPU).weights)
    t = cell.noise_schedule.time_of(5.0)
    alpha, sigma = cell.noise_schedule.scales(t)
    x_t = (sigma * torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(0))).repeat(4, 1, 1, 1)
    with torch.no_grad():
        x0_hat = conditioning.guide(model.denoise, _conditions(dataset), _helpers(cell))(x_t, t).x0.flatten(1).mean(1)
    difference = float(x0_hat[2:].mean() - x0_hat[:2].mean())
    assert difference > 0.25, f"x_0 of bright and of dark differ by {difference:.2g} in the mean; the data by 1"
    return difference
