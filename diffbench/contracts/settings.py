"""The settings that are part of a cell: how its denoiser is trained and what is drawn from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import BeforeValidator, WithJsonSchema

from diffbench.contracts.options import Options, Words, incidental_option
from diffbench.errors import OptionError


def _noise_seed(value: Any) -> Any:
    if value == "cell" or (type(value) is int and 0 <= value < 2**31):
        return value
    raise ValueError(value)


def _batch_size(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 1):
        return value
    raise ValueError(value)


def _labels(value: Any) -> Any:
    if value in ("data", "even"):
        return value
    is_list = isinstance(value, list | tuple) and all(type(v) in (int, float) and 0 <= v < math.inf for v in value)
    if is_list and any(value):
        return tuple(map(float, value))
    raise ValueError(value)


_SHARES: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}}
Labels = Annotated[str | tuple[float, ...], BeforeValidator(_labels),
                   Words("data, even, or a list with a share or a count >= 0 for each class"),
                   WithJsonSchema({"anyOf": [{"enum": ["data", "even"]}, _SHARES]})]
BatchSize = Annotated[int | str, BeforeValidator(_batch_size), Words("an integer >= 1 or auto"),
                      WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]})]
NoiseSeed = Annotated[int | str, BeforeValidator(_noise_seed), Words("cell, or an integer in [0, 2147483648)"),
                      WithJsonSchema(
                          {"anyOf": [{"const": "cell"}, {"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}]})]


@dataclass(frozen=True, kw_only=True)
class Train(Options):
    """How every denoiser is trained: AdamW, linear warm-up, gradient clipping, moving average of the weights."""

    steps: Annotated[int, Ge(0)] = 10_000                       # optimiser steps; 0 leaves the network untrained
    batch_size: Annotated[int, Ge(1)] = 128                     # images per step
    lr: Annotated[float, Gt(0)] = 2e-4                          # peak learning rate
    warmup: Annotated[int, Ge(0)] = 100                         # steps over which the learning rate rises from 0
    lr_decay: Literal["constant", "cosine"] = "constant"        # after the warm-up; cosine falls to 0 at the last step
    weight_decay: Annotated[float, Ge(0)] = 0.0                 # AdamW's decoupled weight decay
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.999         # decay per step of the averaged weights; ramped as (1
                                                                # + n)/(10 + n)
    clip: Annotated[float, Gt(0)] = 1.0                         # largest gradient norm
    flip: bool = False                                          # random horizontal flips
    precision: Literal["auto", "float32", "bfloat16"] = "auto"  # of the network; auto: bfloat16 autocast on CUDA,
                                                                # float32 elsewhere
    gpus: Annotated[int, Ge(1)] = incidental_option(1)          # of one machine, which share each batch; on a CPU:
                                                                # processes

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gpus > self.batch_size:
            raise OptionError(f"gpus must be at most batch_size, {self.batch_size}: each takes its share of every "
                              f"batch; got {self.gpus}")

    def dtype_on(self, device: str) -> str:
        """Data type that `precision` means on a kind of device, "cpu" or "cuda": "float32" or "bfloat16"."""
        if self.precision != "auto":
            return self.precision
        return "bfloat16" if device == "cuda" else "float32"


@dataclass(frozen=True, kw_only=True)
class Sample(Options):
    """What is drawn from every cell."""

    count: Annotated[int, Ge(2)] = 1000             # images per cell and seed
    labels: Labels = "data"                         # shares of classes: of the training data, even, a list
    batch_size: BatchSize = incidental_option(250)  # images at a time, or auto: the fastest of a short search; never
                                                    # changes noise
    clip: bool = True                               # clamp x0_hat to the range of pixels, after guidance
    temperature: Annotated[float, Ge(0)] = 1.0      # factor on the noise a scheduler injects; not on x_T
    seed: NoiseSeed = "cell"                        # of the noise; cell: the seed of the cell, which is that of its
                                                    # training


def settings_json(settings: Options, *, identity: bool = False) -> dict[str, Any]:
    """A block as JSON; for an identity without what cannot change a result."""
    return {f.name: getattr(settings, f.name) for f in fields(settings)
            if not (identity and f.metadata.get("half") == "incidental")}
