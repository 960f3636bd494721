"""Small networks, where a GPU waits for the host: CUDA graphs, several trainings, several cells at once.

Used by the day.

Figures stand under [way][network]; rates are images per second of all trainings or cells together.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from benchmarks.gpu.costs import Work, counts, in_turns, parameters, prepared, rounded
from benchmarks.gpu.day import Day, Figures, Finding, NotMeasured
from benchmarks.gpu.side_by_side import NotBegun, Workers, mps
from benchmarks.gpu.stacked import StackedStep, stacked_denoise
from benchmarks.gpu.variants import Batch, Step, batch_of, captured, cell_of, graph_of, replayed, sampler_run
from diffbench import Cell
from diffbench.diffusion import sampling
from diffbench.diffusion.denoiser import Denoiser
from diffbench.diffusion.noise import sample_seeds
from diffbench.stages import training_loop

RESERVE = 8.0                         # seconds that are left when nothing further is begun
LAPS = 3
GAIN = 1.05                           # times as fast from which on a way wins
MANY = (2, 4, 8)                      # trainings or cells at once


@dataclass(frozen=True)
class Small:
    """A U-Net of one size and the cell that holds it."""

    name: str
    cell: Cell


@functools.cache
def smalls(day: Day) -> tuple[Small, ...]:
    """0.2 M and 2 M parameters on images of 3x32x32, told their labels; in a dry run one toy."""
    options = {"unet 0.2 M": {"channels": 16, "multipliers": [1, 2], "blocks": 1, "attention": [16], "heads": 2},
               "unet 2 M": {"channels": 40, "multipliers": [1, 2, 2], "blocks": 1, "attention": [16], "heads": 5}}
    toy = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4], "heads": 1}
    return tuple(
        Small(
            name,
            cell_of(
                {"unet": day.sized(unet, toy)},
                (3, day.sized(32, 8)),
                day.sized(64, 2),
                conditioning="film",
                sampler_steps=day.sized(10, 2),
                train_steps=day.sized(50, 1),
            ),
        )
        for name, unet in list(options.items())[: day.sized(2, 1)]
    )


def captured_training(day: Day) -> Finding:
    """What a whole training step gains from a CUDA graph."""
    figures, sentences = {}, []
    for small in smalls(day):
        figures[small.name] = rates = _captured(day, small.cell)
        graph, plain, loop = (rounded(rates[way]["images_per_second"]) for way in ("graph", "bfloat16", "loop"))
        sentences.append(
            f"{small.name} trains {graph} images/s from a graph and {plain} without, "
            f"{loop} in the training loop as it is"
        )
    return Finding("; ".join(sentences), {"captured": figures})


def stacked_training(day: Day) -> Finding:
    """What several trainings gain from one network with stacked weights."""
    figures, sentences = {}, []
    for small in smalls(day):
        cell, device = small.cell, day.device
        works = {"1": _step(cell, training_loop.build(cell, device), device)}
        for count in _counts(day):
            if day.seconds_left < RESERVE:
                break
            works[f"{count}"] = StackedStep(
                cell, _models(cell, count, device), _batches(cell, count, device), is_captured=False
            )
            inner = StackedStep(cell, _models(cell, count, device), _batches(cell, count, device), is_captured=True)
            works[f"{count} from a graph"] = graph_of(inner, device)
        works["1 from a graph"] = captured(
            _step(cell, training_loop.build(cell, device), device, is_captured=True), batch_of(cell, device, 1)
        )
        seconds = in_turns(works, device, day.sized(LAPS, 1))
        rates = {name: int(name.split()[0]) * cell.train.batch_size / duration for name, duration in seconds.items()}
        figures[small.name] = rates
        sentences.append(f"{small.name}: {_from(rates, '')} stacked, {_from(rates, ' from a graph')} stacked in a "
                         "graph")
    return Finding(f"images/s of all trainings, beside one alone: {'; '.join(sentences)}", {"stacked": figures})


def trainings_in_processes(day: Day) -> Finding:
    """What several trainings gain from processes that share the device."""
    with Workers(day, max(_counts(day)), [small.cell for small in smalls(day)]) as workers:
        return _rates_of_processes(day, workers, "processes")


def trainings_in_processes_with_mps(day: Day) -> Finding:
    """What they gain beyond that where CUDA's multi-process service runs their kernels side by side."""
    if day.seconds_left < RESERVE:
        raise NotMeasured(f"{day.seconds_left:.0f} s were left of the part's time")
    try:
        with mps(day) as service, Workers(day, max(_counts(day)), [small.cell for small in smalls(day)]) as workers:
            if not service.servers():
                raise NotMeasured("the multi-process service runs, and no process of ours went by it")
            return _rates_of_processes(day, workers, "processes with mps")
    except NotBegun as error:
        raise NotMeasured(f"under the multi-process service no process could begin: {error}") from error


def cells_in_one_batch(day: Day) -> Finding:
    """What several cells gain from being sampled in one batch."""
    figures, sentences, count = {}, [], max(_counts(day))
    for small in smalls(day):
        if figures and day.seconds_left < RESERVE:
            break
        rates = _sampled(day, small.cell, count)
        figures[small.name] = rates
        sentences.append(
            f"{count} cells of {small.name} sample {rounded(rates['in turn'])} images/s in turn, "
            f"{rounded(rates['one batch'])} in one batch of one network, {rounded(rates['stacked'])} as stacked "
            "networks, "
            f"{rounded(rates['in turn, from a graph'])} in turn from a graph"
        )
    return Finding("; ".join(sentences), {"sampled": figures})


STEPS = (
    captured_training,
    stacked_training,
    cells_in_one_batch,
    trainings_in_processes,
    trainings_in_processes_with_mps,
)


def _captured(day: Day, cell: Cell) -> Figures:
    """One training: step by step in two dtypes, from a graph, and by the training loop, which draws its batches too."""
    model, device, size = training_loop.build(cell, day.device), day.device, cell.train.batch_size
    makers = {
        "bfloat16": lambda: _step(cell, copy.deepcopy(model), device),
        "float32": lambda: _step(cell, copy.deepcopy(model), device, is_bfloat16=False),
        "graph": lambda: captured(
            _step(cell, copy.deepcopy(model), device, is_captured=True), batch_of(cell, device, seed=1)
        ),
    }
    ready = {name: prepared(make, device) for name, make in makers.items()}
    seconds = in_turns({name: variant.work for name, variant in ready.items()}, device, day.sized(LAPS, 1))
    split = cell.dataset.load()["train"]
    loop = min(training_loop.train(cell, split, device).seconds for _ in range(2)) / cell.train.steps
    return {
        name: {
            "seconds": seconds[name],
            "images_per_second": size / seconds[name],
            "launches": counts(variant.work, device).launches,
            "set_up_seconds": variant.set_up_seconds,
        }
        for name, variant in ready.items()
    } | {"loop": {"seconds": loop, "images_per_second": size / loop}}


def _counts(day: Day) -> tuple[int, ...]:
    return day.sized(MANY, MANY[:1])


def _step(
    cell: Cell, model: Denoiser, device: torch.device, *, is_bfloat16: bool = True, is_captured: bool = False
) -> Step:
    return Step(cell, model, batch_of(cell, device), is_bfloat16=is_bfloat16, is_captured=is_captured)


def _models(cell: Cell, count: int, device: torch.device) -> list[Denoiser]:
    model = training_loop.build(cell, device)
    return [copy.deepcopy(model) for _ in range(count)]


def _batches(cell: Cell, count: int, device: torch.device) -> list[Batch]:
    return [batch_of(cell, device, seed) for seed in range(count)]


def _rates_of_processes(day: Day, workers: Workers, way: str) -> Finding:
    """Rates of 1, 2, ... processes at once, each training step by step and from a graph."""
    figures: Figures = {}
    for index, small in enumerate(smalls(day)):
        rates: dict[str, float] = {}
        for mode, ending in (("step", ""), ("graph", " from a graph")):
            for count in (1, *_counts(day)):
                if day.seconds_left < RESERVE / 2:
                    break
                rates[f"{count}{ending}"] = workers.images_per_second(count, index, mode)
        figures[small.name] = {"parameters": parameters(Denoiser(small.cell)), "images_per_second": rates}
    sentences = [
        f"{name}: {_from(by_count['images_per_second'], '')} {way}, "
        f"{_from(by_count['images_per_second'], ' from a graph')} {way} from graphs"
        for name, by_count in figures.items()
        if by_count["images_per_second"]
    ]
    return Finding(f"images/s of all trainings, beside one alone: {'; '.join(sentences)}", {way: figures})


def _from(rates: dict[str, float], ending: str) -> str:
    """'2,410 alone, 8,120 by 8 (faster from 2 on)', of the rates whose names end so."""
    own = {int(name.removesuffix(ending)): rate for name, rate in rates.items() if name.removesuffix(ending).isdigit()}
    if 1 not in own or len(own) == 1:
        return "not measured"
    most = max(own)
    wins = [count for count in sorted(own) if count > 1 and own[count] > GAIN * own[1]]
    verdict = f"faster from {wins[0]} on" if wins else "never faster"
    return f"{rounded(own[1])} alone, {rounded(own[most])} by {most} ({verdict})"


def _sampled(day: Day, cell: Cell, count: int) -> dict[str, float]:
    """Images per second of `count` cells, in turn or together, in float32 as the harness samples."""
    device, size = day.device, cell.sample.count
    models = _models(cell, count, device)
    alone = [sampler_run(cell, model, device) for model in models]
    graphs = [sampler_run(cell, replayed(copy.deepcopy(model), is_bfloat16=False), device) for model in models]
    wide = replace(cell, sample=replace(cell.sample, count=count * size))
    together, denoise = sampler_run(wide, models[0], device), stacked_denoise(cell, models)
    seeds = sample_seeds(cell.noise_seed, 0, count * size)

    def stacked() -> torch.Tensor:
        x_T = sampling.initial(
            cell.noise_schedule, cell.spacing, cell.scheduler.steps, seeds, cell.dataset.image_shape, device
        )
        return sampling.draw(denoise, cell.noise_schedule, cell.scheduler, x_T, cell.spacing, cell.process,
                             seeds=seeds).x_0.cpu()

    works = {
        "in turn": lambda: _run_all(alone),
        "one batch": together,
        "stacked": stacked,
        "in turn, from a graph": lambda: _run_all(graphs),
    }
    seconds = in_turns(works, device, day.sized(LAPS, 1))
    return {name: count * size / duration for name, duration in seconds.items()}


def _run_all(works: Sequence[Work]) -> None:
    for work in works:
        work()
