"""Times of training steps and sampler runs of four networks, in several ways and beside diffusers. Used by the day.

Figures stand under [half][network][variant], half "train" or "sample"; compiled networks, which take long, come last.
With too little time each step measures the networks that come first and says which it left out.
`busy_seconds` adds up what kernels and copies of one run take; what it falls short of `seconds` the device was idle.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.gpu.costs import (
    Peak,
    Prepared,
    TooLong,
    Work,
    counts,
    flops_of,
    in_turns,
    limited,
    percent,
    prepared,
    rounded,
)
from benchmarks.gpu.day import Day, Figures, Finding, NotMeasured
from benchmarks.gpu.measured_networks import Network, learned, modules, named, networks
from benchmarks.gpu.networks_of_diffusers import beside_dit, beside_unet
from benchmarks.gpu.variants import Step, batch_of, captured, compiled, replayed, sampler_run
from diffbench.diffusion.denoiser import Denoiser
from diffbench.stages import training_loop

RESERVE = 15.0                        # seconds that are left when no further network is begun
LAPS = 3


def training_steps(day: Day) -> Finding:
    """What a training step costs in float32, in bfloat16, with channels last and from a CUDA graph."""
    return _over_networks(day, "train", _step_variants, share=0.35)


def sampler_runs(day: Day) -> Finding:
    """What a sampler run costs in float32, as the harness samples, in bfloat16, and from a CUDA graph in each."""
    return _over_networks(day, "sample", _run_variants, share=0.3)


def unet_beside_diffusers(day: Day) -> Finding:
    """Training and sampling of DDPM's U-Net in turns with diffusers' UNet2DModel."""
    ours = named(day, "unet 35.7 M")
    return beside_unet(day, ours.name, ours.cell, steps=20)


def small_unet_beside_diffusers(day: Day) -> Finding:
    """Training and sampling of a U-Net of 0.2 M parameters in turns with diffusers' UNet2DModel."""
    ours = named(day, "unet 0.2 M")
    return beside_unet(day, ours.name, ours.cell, steps=100)


def dit_beside_diffusers(day: Day) -> Finding:
    """Training and guided sampling of DiT-S/2 in turns with diffusers' DiTTransformer2DModel."""
    ours = named(day, "dit S/2")
    return beside_dit(day, ours.name, ours.cell, steps=20)


def compiled_training_steps(day: Day) -> Finding:
    """What compiling a network for training costs, and what it gives."""
    return _compiled(day, "train", "bfloat16", _step)


def compiled_sampler_runs(day: Day) -> Finding:
    """What compiling a network for sampling costs, and what it gives."""
    return _compiled(day, "sample", "float32", functools.partial(_run, is_bfloat16=False))


STEPS = (
    training_steps,
    sampler_runs,
    unet_beside_diffusers,
    small_unet_beside_diffusers,
    dit_beside_diffusers,
    compiled_training_steps,
    compiled_sampler_runs,
)
Ways = dict[str, Callable[[], Work]]


def _over_networks(
    day: Day, half: str, ways_of: Callable[[Network, Denoiser, torch.device], Ways], share: float
) -> Finding:
    """The variants of one half, network by network, within a share of the time that is left."""
    figures: Figures = {}
    sentences, left_out = [], []
    enough = max(RESERVE, (1 - share) * day.seconds_left)
    for network in day.sized(networks(day), networks(day)[:2]):
        if figures and day.seconds_left < enough:
            left_out.append(network.name)
            continue
        model = training_loop.build(network.cell, day.device)
        peak = Peak(day.device, day.sized(8192, 64)).flops_per_second
        figures[network.name] = _measured(day, network, ways_of(network, model, day.device), peak)
        sentences.append(_sentence(network, half, figures[network.name], peak))
        if day.device.type == "cuda":
            torch.cuda.empty_cache()
    return Finding("; ".join(sentences) + (f"; left out for want of time: {', '.join(left_out)}" if left_out else ""),
                 {half: figures, "left_out": left_out})


def _measured(day: Day, network: Network, ways: Ways, peak: float) -> Figures:
    """The figures of each variant, under "about" those of the network. A variant that fails leaves its error."""
    ready, failed = {}, {}
    for name, make in ways.items():
        try:
            ready[name] = prepared(make, day.device)
        except Exception as error:
            if day.is_dry:
                raise
            failed[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
    seconds = in_turns({name: variant.work for name, variant in ready.items()}, day.device, day.sized(LAPS, 1))
    flops = flops_of(ready["float32"].work)
    return (
        _figures(day, network, ready, seconds, flops / peak)
        | failed
        | {
            "about": {
                "parameters": learned(network),
                "batch": network.cell.train.batch_size,
                "flops": flops,
                "peak_flops_per_second": peak,
                "sampler_steps": network.cell.scheduler.steps,
            }
        }
    )


def _figures(
    day: Day, network: Network, ready: Mapping[str, Prepared], seconds: Mapping[str, float], least: float
) -> Figures:
    """The figures of each variant. seconds: of one run; least: seconds of one run at the measured peak."""
    figures: Figures = {}
    for name, variant in ready.items():
        device_counts = counts(variant.work, day.device)
        figures[name] = {
            "seconds": seconds[name],
            "images_per_second": network.cell.train.batch_size / seconds[name],
            "launches": device_counts.launches,
            "host_waits": device_counts.host_waits,
            "busy_seconds": device_counts.busy_seconds,
            "utilisation": least / seconds[name],
            "set_up_seconds": variant.set_up_seconds,
        }
    return figures


def _sentence(network: Network, half: str, figures: Figures, peak: float) -> str:
    """'unet 35.7 M trains 2,410 images/s in bfloat16, 31 % of the measured 790 TFLOP/s, with 2,103 launches; ...'."""
    base = figures["bfloat16"]
    others = [f"{rounded(values['images_per_second'])} {name}" if "seconds" in values
              else f"{name} failed: {values['error']}"
              for name, values in figures.items() if name not in ("bfloat16", "about")]
    return (
        f"{network.name} {half}s {rounded(base['images_per_second'])} images/s in bfloat16, "
        f"{percent(base['utilisation'])} of the measured {rounded(peak / 1e12)} TFLOP/s, "
        f"with {base['launches']:,} launches and "
        f"{base['host_waits']} host waits a {'step' if half == 'train' else 'run'} ({', '.join(others)})"
    )


def _step_variants(network: Network, model: Denoiser, device: torch.device) -> Ways:
    def step(**options: Any) -> Step:
        return _step(network, copy.deepcopy(model), device, **options)

    def last() -> Step:
        inner = copy.deepcopy(model).to(memory_format=torch.channels_last)
        return Step(
            network.cell, inner, batch_of(network.cell, device, memory_format=torch.channels_last), is_bfloat16=True
        )

    def graph() -> Work:
        return captured(step(is_captured=True), batch_of(network.cell, device, seed=1))
    plain: Ways = {"bfloat16": step, "graph": graph, "float32": lambda: step(is_bfloat16=False)}
    return plain | ({"channels_last": last} if network.is_unet else {})


def _run_variants(network: Network, model: Denoiser, device: torch.device) -> Ways:
    def run(**options: Any) -> Work:
        return _run(network, copy.deepcopy(model), device, **options)

    def graph(is_bfloat16: bool) -> Work:                 # which sets its dtype itself
        return _run(network, replayed(copy.deepcopy(model), is_bfloat16=is_bfloat16), device, is_bfloat16=False)

    def last() -> Work:
        return _run(network, copy.deepcopy(model).to(memory_format=torch.channels_last), device)
    plain: Ways = {"float32": lambda: run(is_bfloat16=False), "graph_float32": lambda: graph(False),
                   "bfloat16": run, "graph": lambda: graph(True)}
    return plain | ({"channels_last": last} if network.is_unet else {})


def _step(
    network: Network, model: Denoiser, device: torch.device, *, is_bfloat16: bool = True, is_captured: bool = False
) -> Step:
    return Step(network.cell, model, batch_of(network.cell, device), is_bfloat16=is_bfloat16, is_captured=is_captured)


def _run(network: Network, model: Denoiser, device: torch.device, *, is_bfloat16: bool = True) -> Work:
    return sampler_run(network.cell, model, device, is_bfloat16=is_bfloat16)


Make = Callable[[Network, Denoiser, torch.device], Work]


def _compiled(day: Day, half: str, dtype: str, make: Make) -> Finding:
    """Each network compiled, in turns with itself as it is, in the dtype of the harness; compilers start anew."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(day.folder / f"inductor-{half}")
    figures, sentences, left_out = {}, [], []
    by_length = sorted(networks(day), key=modules)       # one of few modules is compiled sooner
    for network in day.sized(by_length, by_length[:1]):
        torch._dynamo.reset()
        if day.seconds_left < RESERVE:
            left_out.append(network.name)
            continue
        try:
            with limited(day.seconds_left - RESERVE / 2):
                figures[network.name] = _with_and_without(day, half, dtype, network, make)
        except TooLong:
            left_out.append(f"{network.name} (stopped by the clock)")
            continue
        sentences.append(_gain(network, figures[network.name]))
    if not figures:
        raise NotMeasured(
            f"no network was compiled in the {RESERVE:.0f} s and more that a compiler needs: {', '.join(left_out)}"
        )
    return Finding("; ".join(sentences) + (f"; left out for want of time: {', '.join(left_out)}" if left_out else ""),
                 {half: figures, "left_out": left_out})


def _with_and_without(day: Day, half: str, dtype: str, network: Network, make: Make) -> Figures:
    """Figures of "compiled" and of `dtype` alone, and after how many runs compiling has paid; None: never."""
    model, device = training_loop.build(network.cell, day.device), day.device
    variants = {
        dtype: prepared(lambda: make(network, copy.deepcopy(model), device), device),
        "compiled": prepared(
            lambda: make(network, compiled(copy.deepcopy(model), half, is_dry=day.is_dry), device), device
        ),
    }
    seconds = in_turns({name: variant.work for name, variant in variants.items()}, device, day.sized(LAPS, 1))
    least = flops_of(variants[dtype].work) / Peak(device, day.sized(8192, 64)).flops_per_second
    figures = _figures(day, network, variants, seconds, least)
    saved = seconds[dtype] - seconds["compiled"]
    figures["compiled"] |= {"gain": seconds[dtype] / seconds["compiled"],
                            "pays_after_runs": variants["compiled"].set_up_seconds / saved if saved > 0 else None}
    return figures


def _gain(network: Network, figures: Figures) -> str:
    """'unet 35.7 M is 1.4 times as fast compiled, for 61 s: it pays after 3,900 runs'."""
    facts = figures["compiled"]
    pays = "never" if facts["pays_after_runs"] is None else f"after {rounded(facts['pays_after_runs'])} runs"
    cost = rounded(facts["set_up_seconds"])
    return f"{network.name} is {rounded(facts['gain'])} times as fast compiled, for {cost} s: it pays {pays}"
