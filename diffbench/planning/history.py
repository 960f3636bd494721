"""What earlier stages took, and what they were made of: one line per published stage in `history/<stage>.jsonl` of the
store's home.

Derived from the artefacts and safe to delete. A line is appended by one write; a torn or foreign one is skipped.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffbench.errors import Damaged
from diffbench.store.digest import digest
from diffbench.store.disk import append_line
from diffbench.store.event_fields import is_number

if TYPE_CHECKING:
    from diffbench.planning.stage import Stage
    from diffbench.store.artefacts import Store

TAIL_BYTES = 4 * 1024 * 1024          # read from the end of a history: about ten thousand stages
REACH = 10.0                          # a stage ten times as long or short says little: start-up dominates the short one
NEAREST = 20                          # stages an estimate goes by, at most
# parts of an identity that an edit, an update or other data change
CODE = ("code", "harness", "schema", "content")


class Expected(NamedTuple):
    """How long a stage will take: median and quartiles of what like ones took."""

    seconds: float
    low: float
    high: float
    stages: int                       # earlier stages it goes by


class Entry(NamedTuple):
    """One published stage."""

    key: str
    family: str                       # digest of its identity without CODE
    like: str                         # stages of one `like` do the same work per unit
    units: float
    seconds: float
    threads: int
    machine: str                      # digest of the fingerprint of the machine and device that did it


class Stale(NamedTuple):
    """A stage that was done before something it is made of changed."""

    key: str
    changed: tuple[str, ...]          # "backbone unet", "diffbench itself", "the images of digits"


def note(home: Path, content: dict[str, Any], seconds: float, threads: int, machine: str) -> None:
    """Adds a published stage; `content` is what its attempt's task.json says.
    Raises OSError where the line cannot be written.
    """
    work = content["task"].get("work", {"like": "", "units": 1.0})
    entry = Entry(content["key"], family(content["identity"]), work["like"], work["units"], seconds, threads, machine)
    append_line(home / "history" / f"{content['stage']}.jsonl", json.dumps(entry).encode())


def entries(home: Path, stage: str) -> Iterator[Entry]:
    """The published stages of a kind, newest first."""
    try:
        with open(home / "history" / f"{stage}.jsonl", "rb") as file:
            file.seek(max(0, file.seek(0, 2) - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return
    for line in reversed(lines):
        try:
            entry = Entry(*json.loads(line))
        except (ValueError, TypeError, RecursionError):
            continue
        if _is_whole(entry):
            yield entry


def _is_whole(entry: Entry) -> bool:
    numbers, texts = (entry.units, entry.seconds, entry.threads), (*entry[:3], entry.machine)
    return (all(map(is_number, numbers)) and entry.units > 0 and entry.seconds >= 0 and entry.threads > 0
            and all(isinstance(text, str) for text in texts))


def family(identity: dict[str, Any]) -> str:
    """One text for a stage and for what it was before an edit, an update or a change of the data."""
    return digest(_bare(identity))[:24]


class History:
    """What the store remembers, for stages on one machine."""

    def __init__(self, store: Store, machine: str, threads: int, exclusive_threads: int):
        self.store, self.machine, self.threads, self.exclusive_threads = store, machine, threads, exclusive_threads
        self._here: dict[str, list[Entry]] = {}
        self._families: dict[str, dict[str, str]] = {}
        self._expected: dict[tuple[Any, ...], Expected | None] = {}

    def expected_seconds(self, stage: Stage) -> Expected | None:
        """Expected time of a stage here; None where no earlier one of its kind and about its size is known.

        Stages of the same `like` and number of threads go before those of the same `like`, these before any of the
        kind; of these the nearest in size, each scaled by its units.
        """
        work = stage.task.get("work", {"like": "", "units": 1.0})
        asked = (stage.name, work["like"], work["units"])
        if asked not in self._expected:
            self._expected[asked] = self._work_out(stage, work["like"], work["units"])
        return self._expected[asked]

    def _work_out(self, stage: Stage, like: str, units: float) -> Expected | None:
        if stage.name not in self._here:
            self._here[stage.name] = [e for e in entries(self.store.root, stage.name) if e.machine == self.machine]
        threads = self.exclusive_threads if stage.is_exclusive else self.threads
        near = [e for e in self._here[stage.name] if units / REACH <= e.units <= units * REACH]
        if not near:
            return None

        def rank(entry: Entry) -> tuple[bool, bool]:
            return entry.like != like, entry.threads != threads
        best = min(map(rank, near))
        chosen = sorted((e for e in near if rank(e) == best), key=lambda e: abs(math.log(units / e.units)))[:NEAREST]
        seconds = [e.seconds * units / e.units for e in chosen]
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
        return Expected(seconds=middle, low=low, high=high, stages=len(seconds))

    def stale(self, stage: Stage) -> Stale | None:
        """The artefact that this stage would have found, had nothing it is made of changed; None where there is none.
        """
        if stage.name not in self._families:
            self._families[stage.name] = {e.family: e.key for e in reversed(list(entries(self.store.root, stage.name)))}
        known = self._families[stage.name]
        key = known.get(family(stage.identity)) if known else None
        if key is None or key == stage.key:
            return None
        try:
            before = self.store.read_json(stage.name, key, "task.json")["identity"]
        except (Damaged, OSError):                        # collected since
            return None
        return Stale(key, tuple(dict.fromkeys(_changes(before, stage.identity))))


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _bare(inner) for name, inner in value.items() if name not in CODE}
    return [_bare(inner) for inner in value] if isinstance(value, list | tuple) else value


def _changes(before: Any, now: Any, owner: str = "") -> Iterator[str]:
    """Differences between two identities of one family, by the name of who owns them."""
    if isinstance(now, list | tuple):
        for old, new in zip(before, now, strict=True):
            yield from _changes(old, new, owner)
    if not isinstance(now, dict):
        return
    component = now.get("component", "")
    for name in sorted({*before, *now}):
        if name in ("harness", "schema") and before.get(name) != now.get(name):
            yield "diffbench itself"
        elif name == "code" and before.get(name) != now.get(name):
            yield f"{owner} {component}".strip()
        elif name == "content" and before.get(name) != now.get(name):
            yield f"the images of {component}"
        elif name not in CODE:
            yield from _changes(before[name], now[name], owner if name == "options" else name)
