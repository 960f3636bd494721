"""The table of stage kinds: what does each, how it is run, what it writes.
Used by all that plans, does, follows or reads stages.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diffbench.store.manifest import STAGE
from diffbench.store.shapes import (
    Check,
    count,
    fields,
    flag,
    list_of,
    mapping,
    mapping_of,
    number,
    one_of,
    optional,
    positive,
    text,
)
from diffbench.store.tensor_shapes import images, seen, weights

DOES, FILE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"), re.compile(r"\w[\w.-]*\.(json|safetensors)")
OF_EVERY_STAGE = ("task.json", "outcome.json", "manifest.json", "imported.json")


@dataclass(frozen=True, kw_only=True)
class StageKind:
    """One kind of stage. Raises ValueError for what can be none.

    A check is given what a file holds, JSON or tensors by name, and the name of the file; it raises ValueError for what
    the stage does not write.
    """

    name: str                         # as in `run.timeout`, in the store and in messages
    does: str                         # "module:function" of what a worker calls; the source that it reaches is part of
                                      # every key
    version: int                      # raised when what it computes changes; part of every key
    is_exclusive: bool = False        # has its device to itself, and comes after all others
    files: Mapping[str, Check] = field(default_factory=dict)           # that it writes, .json or .safetensors, with the
                                                                       # check of each
    may_write: Mapping[str, Check] = field(default_factory=dict)       # and that it writes sometimes

    def __post_init__(self) -> None:
        # which is what `run.timeout` calls all of them
        if not STAGE.fullmatch(self.name) or self.name == "all":
            raise ValueError(f"no stage can have the name {self.name!r}: write a-z, digits and '_', at most 64, not "
                             "'all'")
        if not DOES.fullmatch(self.does):
            raise ValueError(f"the stage {self.name} does {self.does!r}: write 'module:function'")
        if isinstance(self.version, bool) or not isinstance(self.version, int) or self.version < 1:
            raise ValueError(f"the stage {self.name} has version {self.version!r}: write an integer >= 1")
        for name in (*self.files, *self.may_write):
            if not FILE.fullmatch(name) or name in OF_EVERY_STAGE:
                raise ValueError(f"the stage {self.name} cannot write {name!r}: write the name of a .json or "
                                 f".safetensors file, and none of {', '.join(OF_EVERY_STAGE)}")


def _own(name: str, module: str, version: int, *, is_exclusive: bool = False,
         may_write: Mapping[str, Check] | None = None,
         **files: Check) -> StageKind:
    """A stage of the harness; files: facts and values are JSON, all others tensors."""
    named = {f"{file}.{'json' if file in ('facts', 'values') else 'safetensors'}": check
             for file, check in files.items()}
    return StageKind(name=name, does=f"diffbench.stages.{module}:{name}", version=version, is_exclusive=is_exclusive,
                     files=named, may_write=may_write or {})


_LAPS: dict[str, Check] = {"images": count, "median_seconds": positive, "quartile_seconds": list_of(positive, least=2),
                           "in_anchors": list_of(positive, least=1)}
_COSTS: dict[str, Check] = {"batch_size": count, "seconds_per_nfe": number, "network_seconds_per_nfe": number,
                            "scheduler_seconds_per_step": number, "peak_memory_bytes": optional(number),
                            "energy_joules": optional(number)}
_LOAD = fields(cores_of_others=optional(number), gpu_busy_before=optional(number), disturbance=text, unlocked=text)
_TIMING = fields(_LAPS, spread=number, load=_LOAD, cores=count, device=one_of("cpu", "cuda"),
                 peak_memory_bytes=optional(number))
_OF_SIZE = fields(_LAPS, _COSTS, seconds=list_of(number))
_LEFT_OUT = fields(batch_size=count, reason=text)
_OF_SAMPLING = fields(_COSTS, parameters=count, gmac_per_nfe=number, by_batch_size=list_of(
    lambda value, where: (_LEFT_OUT if "reason" in value else _OF_SIZE)(value, where)))


def _timing(value: Any, where: str) -> None:
    """The laps of a training or, with the costs of each batch size, of a sampler run."""
    _TIMING(value, where)
    if "by_batch_size" in value:
        _OF_SAMPLING(value, where)


# In the order in which those of one cell are started: long ones, and those many others wait for, first; measuring speed
# comes last, alone.
BUILT_IN_STAGES = (
    _own("train", "train", 4, weights=weights,
         facts=fields(losses=list_of(number), steps_per_loss=count, train_loss=optional(number), compiled=flag)),
    _own("noisy_classifier", "fitted", 1, weights=weights, facts=mapping),
    _own("extractor", "fitted", 2, weights=weights, facts=fields(may_have={"sha256": text})),
    _own("classifier", "fitted", 1, weights=weights, facts=mapping),
    _own("sample", "sample", 7, images=images,
         facts=fields(nfe=number, sample_count=count, distinct_count=count, flat_count=count, clamped_share=number,
                             dtype=text, threads=count, compiled=flag, batch_size=count, batch_size_asked=count)),
    _own("reference", "features", 3, reference=seen, held_out=seen, may_write={"train.safetensors": seen},
         facts=fields(reference_count=count, held_out_count=count)),
    _own("features", "features", 3, seen=seen, facts=fields(feature_count=count, remark=text)),
    _own("evaluate", "evaluate", 7,
         values=fields(values=mapping_of(optional(number)), left_out=mapping_of(list_of(number, least=2)))),
    _own("throughput", "throughput", 6, is_exclusive=True, facts=_timing),
)
OF_FILES: list[StageKind] = []        # what the plug-in file of a suite adds before a registry is made
# By name, those of plug-ins after them once a registry has asked for them.
STAGE_KINDS: dict[str, StageKind] = {kind.name: kind for kind in BUILT_IN_STAGES}
# What every stage is given, and how its process is set up: part of every key too.
AROUND = ("diffbench.stages.context:Context", "diffbench.stages.context:set_up")


def files_of(name: str) -> Mapping[str, Check]:
    """The files that stages of a kind write, with their checks; none of one that is not known here."""
    return STAGE_KINDS[name].files if name in STAGE_KINDS else {}


def check_of(stage: str, file: str) -> Check | None:
    """The check of a file that stages of a kind write; None where nothing is said of it, or the kind is not known here.
    """
    return None if stage not in STAGE_KINDS else {**STAGE_KINDS[stage].may_write, **STAGE_KINDS[stage].files}.get(file)


def is_exclusive(name: str) -> bool:
    """Whether stages of a kind have their device to themselves; False for one that is not known here."""
    return name in STAGE_KINDS and STAGE_KINDS[name].is_exclusive
