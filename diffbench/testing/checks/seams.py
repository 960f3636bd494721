"""Checks of processes, autoencoders, text encoders, methods and pipelines, on a small cell of stand-in images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from diffbench.contracts.autoencoder import Autoencoder
from diffbench.contracts.cell import Cell
from diffbench.contracts.method import Method
from diffbench.contracts.pipeline import Pipeline
from diffbench.contracts.process import Process
from diffbench.contracts.settings import Train
from diffbench.contracts.text_encoder import TextEncoder, Tokens
from diffbench.contracts.values import Level, Prediction, form, per_sample
from diffbench.diffusion import noise
from diffbench.diffusion.denoiser import io_of
from diffbench.diffusion.latents import Latents
from diffbench.diffusion.pixels import from_pixels
from diffbench.diffusion.texts import Texts
from diffbench.registry.registry import Registry
from diffbench.stages import training_loop
from diffbench.testing.stand_ins import cell_with
from diffbench.testing.verdicts import NotApplicable

Checks = Iterator[tuple[str, Callable[[], Any]]]
CPU, COUNT, T = torch.device("cpu"), 4, 0.5
TEXTS = ("a dog", "two of them")


def process_checks(registry: Registry, process: Process) -> Checks:
    """Shapes, and the claim of being Gaussian."""
    yield "noises, decodes and begins in the shape that its network sees", partial(_process_shapes, registry, process)
    yield "is Gaussian where it says so", partial(_is_gaussian, registry, process)


def autoencoder_checks(registry: Registry, autoencoder: Autoencoder) -> Checks:
    """Shapes, bounds, and the claim of being no autoencoder."""
    yield "gives latents and data of the shapes that it says", partial(_latents, registry, autoencoder)
    yield "keeps to the bounds that it says", partial(_bounds, registry, autoencoder)


def text_encoder_checks(registry: Registry, encoder: TextEncoder) -> Checks:
    """Tokens, and what becomes of them."""
    yield "makes the same tokens of the same texts, or none", partial(_same_tokens, encoder)
    yield "takes texts without letters and very long ones", partial(_odd_texts, encoder)
    yield "makes states and a pooled vector of one batch", partial(_states, encoder)


def method_checks(registry: Registry, method: Method) -> Checks:
    """Checks of the weights that come of a training of no step and of two."""
    yield "gives the weights that it began with after no step", partial(_untrained, registry, method)
    yield "gives finite weights of the same denoiser after two steps", partial(_trained, registry, method)


def pipeline_checks(registry: Registry, pipeline: Pipeline) -> Checks:
    """Its runs, and that a sample does not depend on the others."""
    yield "makes the runs that it claims", partial(_runs, pipeline)
    yield "makes a sample the same in every batch", partial(_batches, pipeline)


def _cell(registry: Registry, **parts: Any) -> Cell:
    """A cell that the component does not refuse."""
    cell = cell_with(registry, **parts)
    component, = (part for kind, part in parts.items() if kind != "train")
    if reason := component.why_not(cell):
        raise NotApplicable(reason)
    return cell


def _noised(cell: Cell) -> tuple[Any, Tensor, Tensor, Level]:
    x_0, eps = (noise.normal(range(COUNT), cell.data_shape, step) for step in (0, 1))
    levels = cell.noise_schedule.level(torch.linspace(0.2, 0.8, COUNT, dtype=torch.float64))
    level = Level(*(per_sample(part.float(), x_0) for part in levels))
    return cell.process.noised(x_0, level, lambda: eps), x_0, eps, level


def _process_shapes(registry: Registry, process: Process) -> None:
    cell = _cell(registry, process=process)
    noised, x_0, eps, _ = _noised(cell)
    x_T, level = process.prior(eps, cell.noise_schedule.at(1.0)), cell.noise_schedule.at(T)
    wanted = f"float32 {[COUNT, *io_of(cell).shape]}"
    for name, made in (("noised", noised.x_t), ("prior", x_T), ("step_noise", process.step_noise(x_T))):
        assert form(made) == wanted, f"{name} must give x_t as {wanted}, got {form(made)}"
        assert made.isfinite().all(), f"what {name} gives is not finite"
    prediction = process.decode(torch.zeros_like(noised.x_t), noised.x_t, level, cell.parameterization)
    clamped = prediction.x0.clamp(-1, 1)
    other = process.with_x0(prediction, clamped, noised.x_t, level)
    assert isinstance(other, Prediction) and torch.equal(other.x0, clamped), "with_x0 must give the x0 that it is given"


def _is_gaussian(registry: Registry, process: Process) -> None:
    if not process.is_gaussian:
        raise NotApplicable("it does not say so")
    cell = _cell(registry, process=process)
    noised, x_0, eps, level = _noised(cell)
    first = cell.noise_schedule.at(1.0)
    assert torch.equal(noised.eps, eps) and torch.equal(noised.x_0,
                                                        x_0), "eps must be the noise it is given, x_0 the data"
    torch.testing.assert_close(noised.x_t, level.alpha * x_0 + level.sigma * eps)
    torch.testing.assert_close(process.prior(eps, first), (first.alpha**2 + first.sigma**2) ** 0.5 * eps)
    assert torch.equal(process.step_noise(eps), eps), "the noise of a step must be standard normal"


def _encoded(registry: Registry, autoencoder: Autoencoder) -> tuple[Cell, Latents, Tensor, Tensor]:
    """(cell, latents of it, data, their mean latents)."""
    cell = _cell(registry, autoencoder=autoencoder)
    latents, x = Latents(cell, CPU), from_pixels(cell.dataset.load()["train"].images[:COUNT])
    return cell, latents, x, latents.encode(x, lambda: torch.zeros(COUNT, *cell.data_shape))


def _latents(registry: Registry, autoencoder: Autoencoder) -> None:
    _, latents, x, z = _encoded(registry, autoencoder)
    again = latents.decode(z)
    assert again.isfinite().all(), "what it decodes is not finite"
    if autoencoder.is_identity:
        assert torch.equal(z, x) and torch.equal(again, x), "it says that latents are the data, and they are not"


def _bounds(registry: Registry, autoencoder: Autoencoder) -> None:
    if autoencoder.bounds is None:
        raise NotApplicable("its latents have no bounds")
    low, high = autoencoder.bounds
    _, _, _, z = _encoded(registry, autoencoder)
    least, largest = float(z.min()), float(z.max())
    assert low <= least and largest <= high, f"latents of data lie in [{least:g}, {largest:g}]"


def _tokens(encoder: TextEncoder, texts: Sequence[str]) -> Tokens | None:
    tokens = encoder.tokenize(texts)
    if tokens is not None:
        ids, visible = tokens
        wanted = torch.Size((len(texts), ids.shape[-1]))
        assert (ids.dtype, visible.dtype, ids.shape, visible.shape) == (torch.int64, torch.bool, wanted, wanted), (
            f"tokens must be int64 and bool, both [{len(texts)}, L], got {form(ids)} and {form(visible)}")
    return tokens


def _same_tokens(encoder: TextEncoder) -> None:
    tokens, again = _tokens(encoder, TEXTS), _tokens(encoder, TEXTS)
    same = tokens is None and again is None or tokens is not None and again is not None and (
        torch.equal(tokens.ids, again.ids) and torch.equal(tokens.visible, again.visible))
    assert same, "the same texts give other tokens"


def _odd_texts(encoder: TextEncoder) -> None:
    _tokens(encoder, ("", TEXTS[0] * 200))


def _states(encoder: TextEncoder) -> None:
    if (tokens := _tokens(encoder, TEXTS)) is None:
        raise NotApplicable("it makes no tokens")
    ids, visible = tokens
    states, pooled = Texts(tokens, encoder.module()).encoder(ids, visible)
    assert states.shape[:2] == ids.shape and states.ndim == 3 and pooled.shape == (len(TEXTS), states.shape[2]), (
        f"states and pooled vector must be [B, L, D] and [B, D], got {form(states)} and {form(pooled)}")


def _weights(registry: Registry, method: Method, steps: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(of the denoiser at its start, after a training)."""
    cell = _cell(registry, method=method, train=Train(steps=steps, batch_size=COUNT))
    split = cell.dataset.load()["train"]
    return training_loop.build(cell, CPU).state_dict(), training_loop.train(cell, split, CPU).weights


def _untrained(registry: Registry, method: Method) -> None:
    start, weights = _weights(registry, method, 0)
    is_same = start.keys() == weights.keys() and all(torch.equal(start[name], weights[name]) for name in start)
    assert is_same, "the weights are others"


def _trained(registry: Registry, method: Method) -> None:
    start, weights = _weights(registry, method, 2)
    shapes = ({name: value.shape for name, value in part.items()} for part in (start, weights))
    assert next(shapes) == next(shapes), "the weights are of another denoiser"
    assert all(value.isfinite().all() for value in weights.values()), "the weights are not finite"


def _drawn(pipeline: Pipeline, index: range) -> tuple[Tensor, set[int]]:
    """(samples, numbers of the runs that were asked for), of a sampler that gives standard normal numbers."""
    asked = set[int]()

    def sampler(run: int = 0) -> Tensor:
        asked.add(run)
        return noise.normal(noise.seeds_of_run(index, run), (1, 4, 4), 0)
    return pipeline.run(sampler, {}, index), asked


def _runs(pipeline: Pipeline) -> None:
    x_0, asked = _drawn(pipeline, range(COUNT))
    assert form(x_0) == f"float32 {[COUNT, 1, 4, 4]}", f"samples must be as the sampler gives them, got {form(x_0)}"
    assert x_0.isfinite().all(), "samples are not finite"
    assert asked == {*range(pipeline.runs)}, f"it claims {pipeline.runs} runs and makes those numbered {sorted(asked)}"


def _batches(pipeline: Pipeline) -> None:
    whole = _drawn(pipeline, range(COUNT))[0]
    parts = torch.cat([_drawn(pipeline, index)[0] for index in (range(1), range(1, COUNT))])
    torch.testing.assert_close(whole, parts)
