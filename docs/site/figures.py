"""One figure for a component, against the others of its kind:
SVG, drawn in well under a second from the component itself.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch

from diffbench import DataError, Level, Noised, Registry
from diffbench.registry.ref import HOME, Ref
from diffbench.testing.oracles import GaussianData, NotAffine, affine_map
from diffbench.testing.stand_ins import examples

STEPS = (4, 6, 10, 16, 25, 40, 64, 100)
STD, MEAN = 0.5, 0.3                  # of the Gaussian data that samplers are tried on
QUIET = {"color": "0.8", "linewidth": 1}
LOUD = {"color": "#3f51b5", "linewidth": 2}
STYLE = {"svg.hashsalt": "diffbench", "svg.fonttype": "none", "font.size": 9, "axes.spines.top": False,
         "axes.spines.right": False}


def figure(registry: Registry, ref: Ref) -> bytes | None:
    """The SVG of a component, or None where its kind has no figure or its data are not at hand."""
    draw = DRAWN.get(ref.kind)
    if draw is None:
        return None
    with plt.rc_context(STYLE):
        shown = draw(registry, ref)
        if shown is None:
            return None
        stream = io.BytesIO()
        shown.savefig(stream, format="svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(shown)
    return stream.getvalue()


def built_in(registry: Registry, kind: str) -> list[Ref]:
    """The components of a kind that come with diffbench."""
    return [ref for ref in registry.refs(kind) if ref.distribution == HOME]


def noise_schedule(registry: Registry, ref: Ref) -> Any:
    t = torch.linspace(0, 1, 402, dtype=torch.float64)[1:-1]
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    for other, style in _others_first(registry, ref):
        schedule = registry.load(other)()
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        left.plot(t, alpha**2 / (alpha**2 + sigma**2), **style)
        right.plot(t, 2 * (alpha / sigma).log(), **style)
    left.set(xlabel="t", ylabel="α²/(α² + σ²)", title="share of signal (ᾱ where variance is preserved)")
    right.set(xlabel="t", ylabel="log SNR = 2 log(α/σ)", ylim=(-22, 22), title="log SNR")
    return drawn


def scheduler(registry: Registry, ref: Ref) -> Any:
    drawn, axes = plt.subplots(figsize=(6, 3.2))
    for other, style in _others_first(registry, ref):
        points = _errors(registry, other)
        axes.loglog([nfe for nfe, _ in points], [error for _, error in points], marker="o" if other == ref else None,
                    markersize=4, **style)
    axes.set(xlabel="network evaluations", ylabel="error of mean and standard deviation",
             title=f"N({MEAN}, {STD}²) under the exact denoiser, default schedule and spacing")
    return drawn


@functools.cache
def _errors(registry: Registry, ref: Ref) -> list[tuple[int, float]]:
    """(evaluations, distance of the mean and standard deviation of x_0 from the exact ones) for runs
    of several lengths; nothing is drawn.
    """
    data = GaussianData(schedule=registry.default("noise_schedule"), std=STD, mean=MEAN)
    spacing, made = registry.default("spacing"), registry.load(ref)()
    found = []
    for steps in STEPS:
        if steps < made.min_steps:
            continue
        longer = replace(made, steps=steps)
        try:
            mean, variance = affine_map(longer, spacing, data).pushed(
                *data.marginal(float(spacing(data.schedule, steps)[0])))
        except NotAffine:
            return []
        found.append((longer.nfe(steps), ((mean - MEAN) ** 2 + (variance**0.5 - STD) ** 2) ** 0.5))
    return found


def spacing(registry: Registry, ref: Ref) -> Any:
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8, 2.6), sharey=True)
    schedule, rows = registry.default("noise_schedule"), built_in(registry, ref.kind)
    for row, other in enumerate(rows):
        times = registry.load(other)()(schedule, 10)
        color = LOUD["color"] if other == ref else "0.7"
        left.plot(times, [row] * len(times), "o", color=color, markersize=4)
        right.plot([schedule.nsr(float(t)) for t in times[:-1]], [row] * (len(times) - 1), "o", color=color,
                   markersize=4)
    left.set(xlabel="t", yticks=range(len(rows)), yticklabels=[other.name for other in rows],
             title="ten steps, default schedule")
    right.set(xlabel="σ/α", xscale="log", title="the same, without the clean end")
    return drawn


def parameterization(registry: Registry, ref: Ref) -> Any:
    schedule = registry.create("noise_schedule", "cosine")
    level = schedule.level(torch.linspace(0.02, 0.98, 200, dtype=torch.float64))
    log_snr = 2 * (level.alpha / level.sigma).log()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8))
    for other, style in _others_first(registry, ref):
        c_out = registry.load(other)().c_out(level).abs()
        left.semilogy(log_snr, c_out, **style)
        right.semilogy(log_snr, c_out * level.alpha / level.sigma, **style)
    left.set(xlabel="log SNR", title="error of x̂₀ for an error of 1 in F (cosine)", ylabel="|c_out|")
    right.set(xlabel="log SNR", title="error of ε̂ for an error of 1 in F", ylabel="|c_out| α/σ")
    return drawn


def objective(registry: Registry, ref: Ref) -> Any:
    schedule, parameterization = registry.default("noise_schedule"), registry.create("parameterization", "epsilon")
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    level = Level(*(part[:, None, None, None] for part in schedule.level(t)))
    before = Level(
        *(part[:, None, None, None] for part in schedule.level((t - 1 / (schedule.grid or 1000)).clamp_min(0))))
    x_0, eps = torch.zeros(2, 99, 1, 1, 1, dtype=torch.float64)
    noised = Noised(x_0=x_0, eps=eps, x_t=level.alpha * x_0 + level.sigma * eps, level=level, previous=before)
    wrong = parameterization.target(x_0, eps, level) + 0.5
    drawn, axes = plt.subplots(figsize=(5, 2.8))
    for other, style in _others_first(registry, ref):
        made = registry.load(other)()
        out = torch.cat([wrong, torch.zeros_like(wrong)], dim=1) if made.learns_variance else wrong
        axes.semilogy(t, made.loss(out, noised, schedule, parameterization), **style)
    axes.set(xlabel="t", ylabel="loss", title="of a network whose ε̂ is off by 0.5 everywhere")
    return drawn


def dataset(registry: Registry, ref: Ref) -> Any:
    made = examples(registry, "dataset", ref.full_name)
    if not made:
        return None
    try:
        with _no_data_at_hand():
            images = made[0].load()["train"].images[:40]
    except DataError:
        # needs files that the site is built without: the page says where they belong
        return None
    rows = images.unflatten(0, (4, 10)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)              # [4 H, 10 W, C]
    drawn, axes = plt.subplots(figsize=(6, 2.4))
    axes.imshow(rows.squeeze(2), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.axis("off")
    return drawn


DRAWN: dict[str, Callable[[Registry, Ref], Any]] = {
    "noise_schedule": noise_schedule, "scheduler": scheduler, "spacing": spacing, "parameterization": parameterization,
    "objective": objective,
    "dataset": dataset}


def _others_first(registry: Registry, ref: Ref) -> Iterator[tuple[Ref, dict[str, Any]]]:
    """The other components of the kind in grey, then the one that is meant."""
    yield from ((other, QUIET) for other in built_in(registry, ref.kind) if other != ref)
    yield ref, LOUD


@contextmanager
def _no_data_at_hand() -> Iterator[None]:
    """The figures of two machines agree: what lies in DIFFBENCH_DATA on one of them is not looked at."""
    before = os.environ.get("DIFFBENCH_DATA")
    os.environ["DIFFBENCH_DATA"] = os.devnull
    try:
        yield
    finally:
        os.environ.pop("DIFFBENCH_DATA")
        if before is not None:
            os.environ["DIFFBENCH_DATA"] = before
