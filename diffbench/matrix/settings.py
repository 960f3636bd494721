"""The blocks of a matrix that are not axes: how to train, sample, time, run and report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, MinLen
from pydantic import BeforeValidator, WithJsonSchema

from diffbench.contracts.options import Options, Words
from diffbench.errors import OptionError
from diffbench.matrix.durations import budget, limits, seconds
from diffbench.store.stage_kinds import STAGE_KINDS

OFF = "off"                           # of `throughput`: nothing is timed
TIMED_TRAIN_STEPS = 20                # optimiser steps in one timed run of a training

_DURATION: dict[str, Any] = {"anyOf": [{"type": "number", "exclusiveMinimum": 0},
                                       {"type": "string", "pattern": r"^\s*(\d+(\.\d*)?|\.\d+)\s*[smhd]\s*$"}]}
Duration = Annotated[float, BeforeValidator(seconds), Gt(0),
                     Words("a duration such as 90s, 10m, 3h or a number of seconds"), WithJsonSchema(_DURATION)]
Budget = Annotated[float | str, BeforeValidator(budget), Words("a duration such as 90s, 10m, 3h, or none"),
                   WithJsonSchema({"anyOf": [{"const": "none"}, *_DURATION["anyOf"]]})]


class _LimitsSchema:
    """The JSON schema of limits, when it is asked for: by then plug-ins may have brought stages."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        by_stage = {"type": "object", "properties": dict.fromkeys(STAGE_KINDS, _DURATION),
                    "additionalProperties": False}
        return {"anyOf": [*_DURATION["anyOf"], by_stage]}


Limits = Annotated[tuple[tuple[str, float], ...], BeforeValidator(lambda value: limits(value, STAGE_KINDS)),
                   _LimitsSchema(),
                   Words(lambda: "a duration such as 10m, or one for each stage that has a limit, such as {train: 3h, "
                                 "sample: 1h}; stages: "
                         + ", ".join(STAGE_KINDS))]
Sizes = Annotated[tuple[Annotated[int, Ge(1)], ...], MinLen(1),
                  BeforeValidator(lambda value: value if isinstance(value, tuple | list) else (value,)),
                  WithJsonSchema(
                      {"anyOf": [{"type": "integer", "minimum": 1},
                                 {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 1}}]}),
                  Words("an integer >= 1 or a list of them")]


@dataclass(frozen=True, kw_only=True)
class Throughput(Options):
    """How speed is measured: alone on the device, warmed up, as the median of laps in turn with laps of an anchor."""

    repeats: Annotated[int, Ge(3)] = 5  # fewest timed laps, after warm-up; five times as many where they scatter
    batch_size: Sizes = (250,)          # images at a time; of several the first is the row's, see docs/cost.md

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.batch_size)) < len(self.batch_size):
            raise OptionError(f"batch_size must name each size once, got {list(self.batch_size)}")


@dataclass(frozen=True, kw_only=True)
class Run(Options):
    """How stages are run; nothing here changes a result beyond rounding."""

    retries: Annotated[int, Ge(0)] = 0                        # further tries of a stage that failed
    timeout: Limits = ()                                      # longest time a stage may take, for all or by stage:
                                                              # {train: 3h, sample: 1h}
    stall: Duration = 1800.0                                  # longest time without a sign of progress
    budget: Budget = "none"                                   # time after which it ends; the same line again goes on
    checkpoint: Duration = 30.0                               # time between checkpoints of a training
    deterministic: bool = False                               # the same bits on a GPU too, where its kernels can;
                                                              # often slower
    compile: Literal["auto", "graphs", "on", "off"] = "auto"  # on: torch.compile; graphs: CUDA graphs; auto: on CUDA,
                                                              # as measured there
    trackers: tuple[str, ...] = ()                            # plug-ins that follow the run, such as tensorboard

    @property
    def budget_seconds(self) -> float | None:
        """Seconds after which the run ends, or None."""
        return None if self.budget == "none" else float(self.budget)

    def limit(self, stage: str) -> float | None:
        """Seconds a stage may take, or None."""
        limits = dict(self.timeout)
        return limits.get(stage, limits.get("all"))


@dataclass(frozen=True, kw_only=True)
class Report(Options):
    """How the tables are laid out."""

    rows: tuple[str, ...] = ("backbone", "noise_schedule", "conditioning")  # columns of the results that make the rows
    columns: tuple[str, ...] = ("scheduler", "scheduler.steps")             # and those that make the columns
    baseline: str = ""                                                      # the row others are compared with, as
                                                                            # scheduler=ddim,steps=50; else the best
