"""Measured gains of ways to run a network, and of several workers at once, by GPU. Used by stages and the engine.

They stand in gpu_figures.json by the device's name, written by `python -m benchmarks.gpu.page`. Nothing is decided by a
device that is not there.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

FIGURES = Path(__file__).with_name("gpu_figures.json")
Way = Literal["graphs", "on"]
# times larger or smaller than a measured network, up to which what it gained from workers is believed
REACH = 4.0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The gain of one way of running for one network on a device."""

    kind: Literal["train", "sample"]
    way: Way
    parameters: int                   # of the network
    gain: float                       # seconds without over seconds with it
    seconds: float                    # until it was ready


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The gain of several workers on one device for trainings of one network."""

    parameters: int                   # of the network
    workers: int                      # at once: of those tried the fewest that came near the best
    gain: float                       # images per second of all over those of one alone


def of_ways(device: str) -> tuple[Measured, ...]:
    """The gains of ways of running on devices of this name, as torch gives it."""
    return tuple(Measured(**facts) for facts in _of(device).get("ways", ()))


def of_sharing(device: str) -> tuple[Sharing, ...]:
    """The gains of several workers on devices of this name."""
    return tuple(Sharing(**facts) for facts in _of(device).get("sharing", ()))


OfNetwork = TypeVar("OfNetwork", Measured, Sharing)


def nearest(figures: Iterable[OfNetwork], parameters: int) -> OfNetwork | None:
    """The figure of the network nearest in size, by the ratio of the numbers of parameters."""
    return min(figures, key=lambda m: abs(math.log(m.parameters / max(1, parameters))), default=None)


def workers_at_once(device: str, parameters: int) -> int:
    """The number of workers that trained fastest on one device, for networks of about this size; else 1."""
    figure = nearest(of_sharing(device), parameters)
    return figure.workers if figure is not None and 1 / REACH <= figure.parameters / max(1, parameters) <= REACH else 1


@functools.cache
def _of(device: str) -> dict[str, Any]:
    return json.loads(FIGURES.read_text()).get(device, {})
