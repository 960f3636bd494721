"""Parts of the day and their steps, which are tried one after another and recorded. Used by all of `gpu`."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

Figures = dict[str, Any]              # what JSON holds: numbers, texts, lists and mappings of them


class NotMeasured(Exception):
    """Raised where a step cannot be tried on this machine; it counts neither as passed nor as failed."""


@dataclass(frozen=True)
class Finding:
    """The finding of a step: one sentence and its figures."""

    sentence: str
    figures: Figures = field(default_factory=dict)


@dataclass(frozen=True)
class Day:
    """The arguments of a step."""

    device: torch.device
    is_dry: bool                      # toy sizes, on whatever device: shows that the code runs, and measures nothing
    folder: Path                      # an empty folder for what a step writes on the way; nothing of it is kept
    data: Path | None                 # the folder that holds MNIST/raw; None where there is none
    ends: float                       # time.monotonic() by which the part has to be over
    networks: tuple[str, ...] = ()    # those that `networks` measures, by name; all where none is named

    @property
    def seconds_left(self) -> float:
        return self.ends - time.monotonic()

    def sized(self, full: Any, toy: Any) -> Any:
        """`full` on the day, `toy` in a dry run."""
        return toy if self.is_dry else full


Step = Callable[[Day], Finding]


@dataclass(frozen=True)
class Part:
    """One process of the day."""

    name: str
    title: str
    share: float                      # of the day's seconds

    @property
    def module(self) -> str:
        """The module with the STEPS of the part."""
        return f"benchmarks.gpu.{self.name}"


PARTS = (
    Part("right", "Are results right?", 0.28),
    Part("main_job", "The main job", 0.32),
    Part("networks", "Where the time goes", 0.24),
    Part("small_networks", "Small networks", 0.10),
    Part("evaluation", "Evaluation", 0.06),
)


def attempt(part: Part, steps: Sequence[Step], day: Day, path: Path) -> None:
    """Tries every step, whatever became of the earlier ones, and writes the record after each."""
    record: dict[str, Any] = {"part": part.name, "title": part.title, "status": "running", "is_dry": day.is_dry,
                              "date": datetime.date.today().isoformat(),
                              "seconds_allowed": round(day.seconds_left, 1),
                              "before": machine(day.device), "steps": []}
    since = time.monotonic()
    for step in steps:
        entry: dict[str, Any] = {"name": step.__name__, "asks": (step.__doc__ or "").strip().splitlines()[0],
                                 "status": "running"}
        record["steps"].append(entry)
        write(path, record)
        start = time.monotonic()
        entry |= _try_step(step, day)
        entry["seconds"] = round(time.monotonic() - start, 2)
        if day.device.type == "cuda":
            torch.cuda.empty_cache()
    record |= {"status": outcome(record["steps"]), "seconds": round(time.monotonic() - since, 2),
               "after": state(day.device)}
    write(path, record)


def _try_step(step: Step, day: Day) -> dict[str, Any]:
    if day.seconds_left <= 0:
        return {"status": "not tried", "said": "the part's time was over"}
    try:
        finding = step(day)
    except NotMeasured as error:
        return {"status": "not measured", "said": str(error)}
    except Exception as error:  # noqa: BLE001  whatever it is, the next step is tried
        return {"status": "failed", "said": f"{type(error).__name__}: {error}"[:500],
                "traceback": traceback.format_exc()[-6000:]}
    return {"status": "ok", "said": finding.sentence, "figures": finding.figures}


def outcome(steps: Sequence[dict[str, Any]]) -> str:
    """'ok' where every step is, else the status that most needs attention."""
    statuses = {step["status"] for step in steps}
    return next((status for status in ("failed", "running", "not tried", "not measured") if status in statuses), "ok")


def write(path: Path, record: dict[str, Any]) -> None:
    """Writes the record of a part atomically, without paths of the machine, since records are published."""
    aside = path.with_suffix(".partial")
    aside.write_text(without_paths(json.dumps(record, indent=1, allow_nan=False, default=str)) + "\n")
    os.replace(aside, path)


def without_paths(text: str) -> str:
    """The text with each absolute path cut to its end: from a package of ours on, or the last name."""
    return PATH.sub(lambda match: match["ours"] or match["last"], text)


def machine(device: torch.device) -> Figures:
    """The device and the software, to which figures belong."""
    facts: Figures = {"torch": torch.__version__, "python": ".".join(map(str, sys.version_info[:3])),
                      "cpus": os.cpu_count()}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        facts |= {"device": about.name, "compute_capability": f"{about.major}.{about.minor}",
                  "multiprocessors": about.multi_processor_count,
                  "memory_bytes": about.total_memory, "cuda": torch.version.cuda,
                  "cudnn": torch.backends.cudnn.version()}
    else:
        facts["device"] = "cpu"
    return facts | state(device)


# A path that begins with '/' and has two names at least; none inside a word, an address or a ratio.
PATH = re.compile(r"(?<![\w./:-])(?:/[\w.@+~-]+)+?/(?:"
                  r"(?P<ours>(?:diffbench|diffbench_components|benchmarks|tests)/[\w./-]+)|(?P<last>[\w.@+~-]+)(?![\w/.@+~-]))")
ASKED = {"driver": "driver_version", "sm_mhz": "clocks.sm", "memory_mhz": "clocks.mem", "celsius": "temperature.gpu",
         "watts": "power.draw"}


def state(device: torch.device) -> Figures:
    """Clocks, temperature and power from the driver; nothing where it does not tell."""
    if device.type != "cuda":
        return {}
    command = ["nvidia-smi", f"--query-gpu={','.join(ASKED.values())}", "--format=csv,noheader,nounits",
               f"--id={device.index or 0}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        return {"state": f"not told: {type(error).__name__}"}
    return dict(zip(ASKED, (value.strip() for value in answer.split(",")), strict=False))
