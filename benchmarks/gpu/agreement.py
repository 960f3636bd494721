"""Agreement of the device with the CPU, for every component. Used by `right`."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

import diffbench
from benchmarks.gpu.day import Day, Finding
from diffbench.contracts.values import Io
from diffbench.diffusion import noise
from diffbench.diffusion.pixels import as_condition, condition_of
from diffbench.matrix import loading
from diffbench.stages import drawing, training_loop
from diffbench.testing.oracles import GaussianData

REGISTRY = diffbench.load_registry()
FLOAT32, TF32, BFLOAT16 = 1e-4, 3e-3, 2e-2        # relative errors that are allowed: ||a - b|| / ||b||
CONDITIONINGS: dict[str, dict[str, Any]] = {"none": {}, "concat": {}, "cross_attention": {}, "film": {},
                                            "classifier_guidance": {"scale": 2.0},
                                            "cfg": {"inner": "film", "scale": 2.0}}
SMALL = {"unet": {"channels": 16, "multipliers": [1, 2], "blocks": 1}}


def schedulers_agree(day: Day) -> Finding:
    """Samples of a Gaussian by every scheduler, on the device against the CPU."""
    schedule, errors, cpu = REGISTRY.create("noise_schedule", "linear"), {}, torch.device("cpu")
    spacing = REGISTRY.create("spacing", "uniform", start=0.98)
    denoise = GaussianData(schedule=schedule, std=0.5, mean=0.1)
    for scheduler in _all_of("scheduler"):
        def drawn(device: torch.device, dtype: torch.dtype, scheduler: Any = scheduler) -> Tensor:
            x_T = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)).to(device, dtype)
            return diffbench.sample(denoise, schedule, scheduler, x_T, spacing=spacing).x_0
        exact, name = drawn(cpu, torch.float32), scheduler.component_name()
        errors[f"{name} float32"] = (_error(drawn(day.device, torch.float32), exact), FLOAT32)
        # Roundings of bfloat16 add up over the steps: as far as the CPU's do, and half as far again.
        errors[f"{name} bfloat16"] = (_error(drawn(day.device, torch.bfloat16), exact),
                                      1.5 * _error(drawn(cpu, torch.bfloat16), exact))
    return _agreement("schedulers", errors)


def backbones_agree(day: Day) -> Finding:
    """The output of every backbone at random weights, on the device against the CPU."""
    errors = {}
    for backbone in _all_of("backbone"):
        io = Io(shape=(3, 16, 16), signal_width=backbone.signal_width, ports=frozenset({"vector"}))
        torch.manual_seed(0)
        network = backbone.build(io).eval()
        for parameter in network.parameters():            # many start at 0, where every error is 0
            torch.nn.init.normal_(parameter, std=0.05)
        x, c_noise, vector = torch.randn(4, 3, 16, 16), torch.rand(4), torch.randn(4, backbone.signal_width)
        device_network = copy.deepcopy(network).to(day.device)
        signals = diffbench.Signals(vector=vector)
        moved = diffbench.Signals(vector=vector.to(day.device))
        with torch.no_grad():
            expected = network(x, c_noise, signals)
            name = backbone.component_name()
            with _ieee():
                errors[f"{name} float32"] = (_error(device_network(x.to(day.device), c_noise.to(day.device), moved),
                                                    expected), FLOAT32)
            errors[f"{name} as set"] = (_error(device_network(x.to(day.device), c_noise.to(day.device), moved),
                                               expected), TF32)
            with torch.autocast(day.device.type, torch.bfloat16):
                errors[f"{name} bfloat16"] = (_error(device_network(x.to(day.device), c_noise.to(day.device), moved),
                                                     expected), BFLOAT16)
    return _agreement("backbones", errors)


def conditionings_agree(day: Day) -> Finding:
    """The guided prediction of every conditioning at random weights, on the device against the CPU."""
    errors = {}
    for name, options in CONDITIONINGS.items():
        cell = small_cell(conditioning={name: options}, scheduler={"ddim": {"steps": 2}})
        model = training_loop.build(cell, torch.device("cpu")).eval()
        torch.manual_seed(0)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
        helpers = drawing.helpers_for(cell, torch.device("cpu"))
        stored = condition_of(cell.dataset.load()["train"], torch.arange(4))
        x = torch.randn(4, *cell.dataset.image_shape)

        def guided(device: torch.device, cell: Any = cell, model: Any = model, helpers: Any = helpers,
                   stored: Any = stored, x: Tensor = x) -> Tensor:
            cond = as_condition(stored, device)
            if helpers.classifier is not None:
                helpers = dataclasses.replace(helpers, classifier=copy.deepcopy(helpers.classifier).to(device))
            with torch.no_grad():
                guided_denoise = cell.conditioning.guide(copy.deepcopy(model).to(device).denoise, cond, helpers)
                return guided_denoise(x.to(device), 0.5).x0
        with _ieee():
            errors[name] = (_error(guided(day.device), guided(torch.device("cpu"))), FLOAT32)
    return _agreement("conditionings", errors)


def extractors_agree(day: Day) -> Finding:
    """Features of extractors whose weights can be had here, on the device against the CPU."""
    dataset = REGISTRY.create("dataset", "digits")
    split, errors = dataset.load()["train"], {}
    for name in ("pixels", "dataset_classifier"):
        extractor = REGISTRY.create("extractor", name)
        some = diffbench.Split(images=split.images[:day.sized(1000, 100)], labels=split.labels[:day.sized(1000, 100)])
        weights, _ = extractor.fit(some, 0, day.device)
        expected = extractor.features(weights, split.images[:64], torch.device("cpu"))
        with _ieee():
            errors[name] = (_error(extractor.features(weights, split.images[:64], day.device), expected), FLOAT32)
    return _agreement("extractors", errors)


def noise_has_the_same_bits(day: Day) -> Finding:
    """The noise of samples, on the device against the CPU."""
    different = {}
    for shape, steps in itertools.product(((1, 8, 8), (3, 32, 32), (4, 31, 7)), (1, 20)):
        for step, draw in ((0, 0), (steps - 1, 1), (noise.INITIAL, 0)):
            on_cpu = noise.Source(range(5), shape, steps, "cpu")(step, draw)
            on_device = noise.Source(range(5), shape, steps, day.device)(step, draw).cpu()
            if not torch.equal(on_cpu, on_device):
                different[f"{shape}, {steps} steps, step {step}, draw {draw}"] = float((on_cpu - on_device).abs().max())
    if different:
        raise AssertionError(f"{len(different)} of 18 draws differ, by at most {max(different.values()):.2g}")
    return Finding("18 draws of noise have the CPU's bits")


def _all_of(kind: str) -> Iterator[Any]:
    for ref in REGISTRY.refs(kind):
        if "required" not in dict(ref.summary().options).values():
            yield REGISTRY.create(kind, ref.full_name)


def _error(actual: Tensor, expected: Tensor) -> float:
    actual, expected = actual.detach().cpu().double(), expected.detach().cpu().double()
    assert bool(actual.isfinite().all()), "values are not finite"
    return float((actual - expected).norm() / expected.norm())


def _agreement(subject: str, errors: dict[str, tuple[float, float]]) -> Finding:
    """The finding on the largest of relative errors. Raises AssertionError for errors above their limits."""
    bad = [f"{name} {error:.2g}" for name, (error, allowed) in errors.items() if error > allowed]
    assert not bad, f"{len(bad)} of {len(errors)} differ: {', '.join(bad)}"
    worst = max(errors, key=lambda name: errors[name][0] / errors[name][1])
    return Finding(f"{len(errors)} comparisons of {subject}; the largest relative error for its precision is "
                   f"{errors[worst][0]:.2g} ({worst})",
                 {name: error for name, (error, _) in errors.items()})


def small_matrix(**parts: Any) -> dict[str, Any]:
    axes = {"backbone": SMALL, "conditioning": parts.pop("conditioning"), "scheduler": parts.pop("scheduler")}
    return {"diffbench": 1, "name": "day", "dataset": "digits", "extractor": "pixels", "metrics": ["fid"],
            "throughput": "off", "axes": axes, **parts}


def small_cell(**parts: Any) -> Any:
    return loading.load(small_matrix(**parts), REGISTRY).cells[0]


@contextlib.contextmanager
def _ieee() -> Iterator[None]:
    """Context of convolutions in full float32, where PyTorch's default is TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before
