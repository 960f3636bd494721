"""The blocks of a matrix that are not axes: how to train, sample, time, run and report."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval, MinLen
from pydantic import BeforeValidator, WithJsonSchema

from diffbench.durations import limits, seconds
from diffbench.errors import OptionError
from diffbench.options import Options, Words, incidental_option

STAGES = ("extractor", "classifier", "noisy_classifier", "reference", "train", "sample", "features", "evaluate", "throughput")

_DURATION: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": r"^\s*(\d+(\.\d*)?|\.\d+)\s*[smhd]\s*$"}]}
Duration = Annotated[float, BeforeValidator(seconds), Gt(0), Words("a duration such as 90s, 10m, 3h or a number of seconds"), WithJsonSchema(_DURATION)]
Limits = Annotated[tuple[tuple[str, float], ...], BeforeValidator(lambda value: limits(value, STAGES)),
                   WithJsonSchema({"anyOf": [*_DURATION["anyOf"], {"type": "object", "properties": dict.fromkeys(STAGES, _DURATION),
                                                                   "additionalProperties": False}]}),
                   Words(f"a duration such as 10m, or one for each stage that has a limit, such as {{train: 3h, sample: 1h}}; stages: {', '.join(STAGES)}")]
Sizes = Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1), BeforeValidator(lambda value: value if isinstance(value, tuple | list) else (value,)),
                  WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}}]}),
                  Words("an integer >= 1 or a list of them")]


def _noise_seed(value: Any) -> Any:
    if value == "cell" or (type(value) is int and 0 <= value < 2**31):
        return value
    raise ValueError(value)


def _batch_size(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(value)


BatchSize = Annotated[int | str, BeforeValidator(_batch_size), Words("an integer >= 1 or auto"),
                      WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]})]
NoiseSeed = Annotated[int | str, BeforeValidator(_noise_seed), Words("cell, or an integer in [0, 2147483648)"),
                      WithJsonSchema({"anyOf": [{"const": "cell"}, {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}]})]


@dataclass(frozen=True, kw_only=True)
class Train(Options):
    """How every denoiser of the matrix is trained: AdamW, linear warm-up, gradient clipping, exponential moving average."""

    steps: Annotated[int, Ge(0)] = 10_000                                 # optimiser steps; 0 leaves the network untrained
    batch_size: Annotated[int, Ge(1)] = 128                               # images per step
    lr: Annotated[float, Gt(0)] = 2e-4                                    # peak learning rate
    warmup: Annotated[int, Ge(0)] = 100                                   # steps over which the learning rate rises from 0
    lr_decay: Literal["constant", "cosine"] = "constant"                  # after the warm-up; cosine falls to 0 at the last step
    weight_decay: Annotated[float, Ge(0)] = 0.0                           # AdamW's decoupled weight decay
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.999                   # decay per step of the averaged weights; ramped as (1 + n)/(10 + n)
    clip: Annotated[float, Gt(0)] = 1.0                                   # largest gradient norm
    flip: bool = False                                                    # random horizontal flips
    precision: Literal["auto", "float32", "bfloat16"] = "auto"            # of the network; auto: bfloat16 autocast on CUDA, float32 elsewhere
    gpus: Annotated[int, Ge(1)] = incidental_option(1)                    # of one machine, which share each batch; on a CPU: processes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus > self.batch_size:
            raise OptionError(f"gpus must be at most batch_size, {self.batch_size}: each takes its share of every batch; got {self.gpus}")

    def dtype_on(self, device: str) -> str:
        """What `precision` means on a kind of device, "cpu" or "cuda": "float32" or "bfloat16"."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if device == "cuda" else "float32"


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    """What is drawn from every cell."""

    count: Annotated[int, Ge(2)] = 1000                                   # images per cell and seed; labels go round
    batch_size: BatchSize = incidental_option(250)                        # images at a time, or auto: the fastest of a short search; never changes noise
    clip: bool = True                                                     # clamp x0_hat to the range of pixels, after guidance
    temperature: Annotated[float, Ge(0)] = 1.0                            # factor on the noise a scheduler injects; not on x_T
    seed: NoiseSeed = "cell"                                              # of the noise; cell: the seed of the cell, which is that of its training


@dataclass(frozen=True, kw_only=True)
class Throughput(Options):
    """How speed is measured: device to itself, warmed up, synchronised, median over laps that alternate with laps of an anchor."""

    repeats: Annotated[int, Ge(3)] = 5                                    # timed laps, after warm-up
    batch_size: Sizes = (250,)                                            # images at a time; of several the first is the row's, see docs/cost.md

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.batch_size)) < len(self.batch_size):
            raise OptionError(f"batch_size must name each size once, got {list(self.batch_size)}")


@dataclass(frozen=True, kw_only=True)
class Run(Options):
    """How stages are run; nothing here changes a result beyond rounding."""

    retries: Annotated[int, Ge(0)] = 0                                    # further tries of a stage that failed
    timeout: Limits = ()                                                  # longest time a stage may take, for all or by stage: {train: 3h, sample: 1h}
    stall: Duration = 1800.0                                              # longest time without a sign of progress
    checkpoint: Duration = 30.0                                           # time between checkpoints of a training
    deterministic: bool = False                                           # the same bits on a GPU too, where its kernels can; often slower
    compile: Literal["auto", "on", "off"] = "auto"                        # torch.compile of the network; auto: on CUDA, where an estimate says it pays
    trackers: tuple[str, ...] = ()                                        # plug-ins that follow the run, such as tensorboard

    def limit(self, stage: str) -> float | None:
        """Seconds a stage may take, or None."""
        limits = dict(self.timeout)
        return limits.get(stage, limits.get("all"))


@dataclass(frozen=True, kw_only=True)
class Report(Options):
    """How the tables are laid out."""

    rows: tuple[str, ...] = ("backbone", "noise_schedule", "conditioning")    # columns of the results that make the rows
    columns: tuple[str, ...] = ("scheduler", "scheduler.steps")               # and those that make the columns
    baseline: str = ""                                                        # the row others are compared with, as scheduler=ddim,steps=50; else the best


def settings_json(settings: Options, *, identity: bool = False) -> dict[str, Any]:
    """A block as JSON; for an identity without what cannot change a result."""
    return {f.name: getattr(settings, f.name) for f in fields(settings) if not (identity and f.metadata.get("half") == "incidental")}
