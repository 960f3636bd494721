"""Evaluation on the device: Inception-v3, the Fréchet distance, and samplers without their network. Used by the day."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Sequence

import torch
from diffbench_components.extractors import inception
from torch import Tensor, nn

from benchmarks.gpu.costs import Work, counts, in_turns, rounded
from benchmarks.gpu.day import Day, Finding, NotMeasured
from benchmarks.gpu.variants import REGISTRY
from diffbench import Prediction, frechet_distance, moments
from diffbench.diffusion import noise
from diffbench.machine import laps

LAPS = 5
AGREES = 1e-3                         # features: relative difference that is allowed
DISTANCE_AGREES = 1e-8                # distances: relative difference between devices that is allowed
STEPS_OF_A_RUN = 50


def inception_features(day: Day) -> Finding:
    """How many images per second Inception-v3 sees, by our extractor and torch-fidelity's; whether they agree.

    Ours makes its network anew for each set of images: part of its time, and apart as `our_set_up_seconds`.
    """
    _needs_fidelity()
    weights, extractor, device = random_weights(), REGISTRY.create("extractor", "inception"), day.device
    images, theirs = _images(day.sized(4096, 1)), _theirs(day, weights).to(device)
    works: dict[str, Work] = {"ours": lambda: extractor.look(weights, images, device),
                              "torch-fidelity": lambda: _features(theirs, images, device)}
    seconds = in_turns(works, device, day.sized(2, 1))
    set_up = laps.lap(lambda: inception.network(weights).to(device), 1, device)
    difference = _difference(
        extractor.look(weights, images[:64], device)["features"], _features(theirs, images[:64], device)
    )
    on_cpu = _difference(
        _features(theirs, images[:2], device), _features(copy.deepcopy(theirs).cpu(), images[:2], torch.device("cpu"))
    )
    if not difference < AGREES:
        raise AssertionError(f"features of the same weights and images differ by {difference:.2g}")
    rates = {name: len(images) / duration for name, duration in seconds.items()}
    return Finding(
        f"of {len(images):,} images our extractor sees {rounded(rates['ours'])} a second, "
        f"{rounded(set_up)} s of set-up included, "
        f"and torch-fidelity's {rounded(rates['torch-fidelity'])}; features differ by {difference:.1e} between them, "
        f"and by {on_cpu:.1e} "
        "between device and CPU",
        {
            "ratio": rates["ours"] / rates["torch-fidelity"],
            "images_per_second": rates,
            "images": len(images),
            "our_set_up_seconds": set_up,
            "difference": difference,
            "difference_to_cpu": on_cpu,
        },
    )


def inception_variants(day: Day) -> Finding:
    """What other batches, channels last and bfloat16 would give the extractor, and what they do to its features."""
    _needs_fidelity()
    device, images = day.device, _images(day.sized(1024, 1))
    network = inception.network(random_weights()).to(device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    small, large = inception.BATCH, 256
    casts = day.sized(True, False)                        # a CPU takes a minute
    works: dict[str, Work] = {
        f"float32, batches of {small}": lambda: _features(network, images, device, small),
        f"float32, batches of {large}": lambda: _features(network, images, device, large),
        f"channels last, batches of {large}": lambda: _features(last, images, device, large),
        f"bfloat16, batches of {large}": lambda: _features(network, images, device, large, is_bfloat16=casts),
        f"bfloat16, channels last, batches of {large}": lambda: _features(
            last, images, device, large, is_bfloat16=casts
        ),
    }
    rates = {name: len(images) / duration for name, duration in in_turns(works, device, day.sized(3, 1)).items()}
    first, *others = works
    exact = works[first]()
    changes = {name: _difference(works[name](), exact) for name in others}
    best = max(rates, key=rates.__getitem__)
    return Finding(f"in {best} Inception-v3 sees {rounded(rates[best])} images/s, in {first} {rounded(rates[first])}",
                 {"images_per_second": rates, "difference_to_first": changes})


def frechet(day: Day) -> Finding:
    """Whether the Fréchet distance of 10,000 samples with 2,048 features is that of the CPU, and its seconds."""
    count, width = day.sized((10_000, 2048), (300, 64))
    sets, seconds, values = _two_sets(count, width), {}, {}
    for where, device in (("cpu", torch.device("cpu")), ("device", day.device)):
        x, y = (features.to(device) for features in sets)
        frechet_distance(x[: width // 8], y[: width // 8])                       # libraries open their workspaces
        reference = moments(y)
        laps.synchronise(device)
        since = time.perf_counter()
        values[where] = frechet_distance(x, reference)  # a float, for which the host waits
        seconds[where] = {
            "distance": time.perf_counter() - since,
            "moments": laps.lap(functools.partial(moments, x), 1, device),
        }
    difference = abs(values["device"] / values["cpu"] - 1)
    if not difference < DISTANCE_AGREES:
        raise AssertionError(f"the distance is {values['device']!r} on the device and {values['cpu']!r} on the CPU")
    return Finding(
        f"the Fréchet distance of {count:,} samples with {width:,} features takes "
        f"{rounded(seconds['device']['distance'])} s on the "
        f"device and {rounded(seconds['cpu']['distance'])} s on the CPU, and differs by {difference:.1e}",
        {"seconds": seconds, "values": values, "relative_difference": difference},
    )


def scheduler_steps(day: Day) -> Finding:
    """What a scheduler's step and its noise cost beside bare arithmetic on images 256 x 3 x 32 x 32."""
    shape, device = (day.sized(256, 2), 3, 32, 32), day.device
    generator = torch.Generator(device).manual_seed(0)
    x, out = (torch.randn(shape, generator=generator, device=device) for _ in range(2))
    works = {
        "ddim": _run_of("ddim", x, out),
        "ddim from the network's output": _run_of("ddim", x, out, decodes=True),
        "ddpm": _run_of("ddpm", x, out),
        "a x + b eps": lambda: _bare(x, out),
        "a x + b eps + c z": lambda: _bare(x, out, generator),
        "noise": lambda: _noise(shape, device),
        "torch.randn": lambda: _randn(shape, generator),
    }
    seconds = {name: each / STEPS_OF_A_RUN for name, each in in_turns(works, device, day.sized(LAPS, 1)).items()}
    launches = {name: counts(work, device).launches / STEPS_OF_A_RUN for name, work in works.items()}
    step, bare, drawn, plain, ddpm, noisy = (rounded(1e6 * seconds[name]) for name in (
        "ddim", "a x + b eps", "noise", "torch.randn", "ddpm", "a x + b eps + c z"))
    return Finding(
        f"a step of ddim takes {step} µs and its bare arithmetic {bare}, one of ddpm {ddpm} and its bare "
        f"arithmetic {noisy}, the noise "
        f"of a step {drawn} and torch.randn {plain}",
        {"seconds_per_step": seconds, "launches_per_step": launches, "shape": shape},
    )


STEPS = (inception_features, scheduler_steps, frechet, inception_variants)


def _needs_fidelity() -> None:
    try:
        import torch_fidelity  # noqa: F401
    except ImportError as error:
        raise NotMeasured(f"torch-fidelity, whose network it is, is not here: {error}") from error


@functools.cache
def random_weights() -> dict[str, Tensor]:
    """Seeded weights of Inception-v3 that keep the size of activations; no biases, and norms that do nothing."""
    generator, state = torch.Generator().manual_seed(0), {}
    for name, value in inception.network().state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            state[name] = torch.ones(value.shape)
        elif value.ndim > 1:
            state[name] = torch.randn(value.shape, generator=generator) * (2 / value[0].numel()) ** 0.5
        else:
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    return state


def _images(count: int) -> Tensor:
    """Random patterns, uint8 [N, 3, 32, 32]."""
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def _theirs(day: Day, weights: dict[str, Tensor]) -> nn.Module:
    """torch-fidelity's extractor, made as its users make it: from a file."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = day.folder / "inception.pth"
    torch.save(weights, path)
    return FeatureExtractorInceptionV3(
        "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
    )


def _features(
    network: nn.Module, images: Tensor, device: torch.device, batch: int = inception.BATCH, *, is_bfloat16: bool = False
) -> Tensor:
    """Features [N, 2048] on the host, batch by batch as torch-fidelity's loop has it."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=is_bfloat16):
        return torch.cat([network(part.to(device))[0].cpu() for part in images.split(batch)])


def _difference(x: Tensor, y: Tensor) -> float:
    """|x - y| / |y| over all numbers."""
    return float((x.double() - y.double()).norm() / y.double().norm())


def _two_sets(count: int, width: int) -> tuple[Tensor, Tensor]:
    """Features of two sets, float64 [N, d], whose variances fall as those of real features do."""
    generator = torch.Generator().manual_seed(0)
    scale = torch.arange(1, width + 1, dtype=torch.float64) ** -0.5
    x, y = (torch.randn(count, width, dtype=torch.float64, generator=generator) * scale for _ in range(2))
    return x, 1.1 * y + 0.1


def _run_of(name: str, x_T: Tensor, out: Tensor, *, decodes: bool = False) -> Work:
    """A run of a scheduler, noise included, under a network that answers at once; from its output where it decodes."""
    scheduler, schedule = REGISTRY.create("scheduler", name, steps=STEPS_OF_A_RUN), REGISTRY.default("noise_schedule")
    times: Sequence[float] = REGISTRY.default("spacing")(schedule, STEPS_OF_A_RUN).tolist()
    epsilon, prediction = REGISTRY.default("parameterization"), Prediction(x0=out, eps=out)

    def denoise(x_t: Tensor, t: float) -> Prediction:
        return epsilon.decode(out, x_t, schedule.at(t)) if decodes else prediction

    def run() -> None:
        source, x, state = (
            noise.Source(range(len(x_T)), tuple(x_T.shape[1:]), STEPS_OF_A_RUN, x_T.device),
            x_T,
            scheduler.init(),
        )
        with torch.no_grad():
            for step, (t, s) in enumerate(zip(times, times[1:])):  # noqa: B905  pairs of neighbours
                x, state = scheduler.step(
                    denoise, schedule, x, t, s, state, lambda draw=0, step=step: source(step, draw)
                )
    return run


def _bare(x: Tensor, eps: Tensor, generator: torch.Generator | None = None) -> None:
    """The arithmetic of as many steps and nothing else; with noise where a generator is given."""
    for _ in range(STEPS_OF_A_RUN):
        x = 0.9 * x + 0.1 * eps
        if generator is not None:
            x = x + 0.1 * torch.randn(x.shape, generator=generator, device=x.device)


def _noise(shape: tuple[int, ...], device: torch.device) -> None:
    source = noise.Source(range(shape[0]), shape[1:], STEPS_OF_A_RUN, device)
    for step in range(STEPS_OF_A_RUN):
        source(step)


def _randn(shape: tuple[int, ...], generator: torch.Generator) -> None:
    for _ in range(STEPS_OF_A_RUN):
        torch.randn(shape, generator=generator, device=generator.device)
