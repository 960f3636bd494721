"""Whether a row that was repeated is the row that there was: column by column, artefact by artefact, and what else differed meanwhile."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffbench import costs, manifest
from diffbench.columns import LEFT_OUT
from diffbench.environment import Change, differing
from diffbench.errors import Damaged, DiffbenchError
from diffbench.planning import Plan
from diffbench.results import CLOCKED, LEADING
from diffbench.specs import digest
from diffbench.store import Store

Record = Mapping[str, Any]

# Columns that say when, where and by which code: what differs there is told as the environment, not as a number.
PROVENANCE = ("train_key", "extractor_key", "judge_key", "sample_batch_size", "device", "threads", "cores", "torch", "diffbench", "origins", "git_commit",
              "reason")
EXACT = ("nfe", "gmac_per_nfe")       # counted, so equal wherever the same is run; all integers are too
ABOUT = ("task.json", "outcome.json", "facts.json")       # files of an artefact that tell how it was made, some of it by the clock


@dataclass(frozen=True, kw_only=True)
class Number:
    """A column that is no clock's, then and now."""

    column: str
    then: Any
    now: Any
    half_width: float | None          # of the row's own 95 % interval; None where the column has none

    @property
    def is_equal(self) -> bool:
        """To the bit."""
        return type(self.then) is type(self.now) and self.then == self.now

    @property
    def difference(self) -> float | None:
        """Now minus then, or None where one of them is no float."""
        return self.now - self.then if isinstance(self.then, float) and isinstance(self.now, float) else None

    @property
    def is_within(self) -> bool | None:
        """Whether it agrees as far as it can elsewhere: counts and words exactly, floats within half of their interval; None without an interval."""
        if self.is_equal or self.difference is None or self.column in EXACT:
            return self.is_equal
        return None if self.half_width is None else abs(self.difference) <= self.half_width


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A column that clocks or the load of the machine tell."""

    column: str
    then: float
    now: float

    @property
    def ratio(self) -> float:
        """Now over then."""
        return self.now / self.then


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a stage left, then and now."""

    stage: str
    label: str
    is_equal: bool | None             # every file to the bit; None: not compared
    said: str                         # how it differs, or why it is not compared


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """One row of a run, and the same row made again from nothing."""

    run: str
    cell_id: str
    made_of: str                      # the cell in words
    seconds: float                    # that it took
    numbers: tuple[Number, ...]
    clocks: tuple[Clock, ...]
    artefacts: tuple[Artefact, ...]
    changes: tuple[Change, ...]       # of the environment, of those that may change bits
    stages_changed: tuple[str, ...]   # stages that are computed from something else than then, in words
    notes: tuple[str, ...]
    failure: str                      # why the row could not be made again, or ''

    @property
    def is_comparable_to_the_bit(self) -> bool:
        """Whether nothing differed that may change bits."""
        return not self.changes and not self.stages_changed

    @property
    def is_bitwise(self) -> bool:
        """Whether every number, and every artefact that could be compared, is the same to the bit."""
        return not self.failure and all(n.is_equal for n in self.numbers) and all(a.is_equal is not False for a in self.artefacts)

    @property
    def disagreements(self) -> tuple[str, ...]:
        """What is not as it should be, in words; empty where the row is confirmed."""
        if self.failure:
            return (f"the row could not be made again: {self.failure}",)
        if self.is_comparable_to_the_bit:
            return (*(f"{n.column}: {n.then} then, {n.now} now" for n in self.numbers if not n.is_equal),
                    *(f"{a.stage} {a.label}: {a.said}" for a in self.artefacts if a.is_equal is False))
        return tuple(f"{n.column}: {n.then} then, {n.now} now" + ("" if n.half_width is None else f", more than half of its interval, {n.half_width:.3g}")
                     for n in self.numbers if n.is_within is False)

    @property
    def agrees(self) -> bool:
        """Whether the row is confirmed: to the bit, or where that cannot be asked for, within its own intervals."""
        return not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """For programs; a number that is not known is null."""
        numbers = [{"column": n.column, "then": n.then, "now": n.now, "is_equal": n.is_equal, "difference": n.difference, "half_width": n.half_width,
                    "is_within": n.is_within} for n in self.numbers]
        return {"run": self.run, "cell_id": self.cell_id, "seconds": self.seconds, "agrees": self.agrees, "is_bitwise": self.is_bitwise,
                "is_comparable_to_the_bit": self.is_comparable_to_the_bit, "disagreements": list(self.disagreements), "numbers": numbers,
                "clocks": [{"column": c.column, "then": c.then, "now": c.now, "ratio": c.ratio} for c in self.clocks],
                "artefacts": [vars(a) for a in self.artefacts], "changes": [c._asdict() for c in self.changes],
                "stages_changed": list(self.stages_changed), "notes": list(self.notes), "failure": self.failure}


def numbers(then: Record, now: Record) -> tuple[Number, ...]:
    """Every column that neither names the cell nor tells of clocks or of where it was made; intervals are those of `then`."""
    silent = (*LEADING, *PROVENANCE, LEFT_OUT, *costs.RAW, *costs.FLAGS)
    both = {c: (then.get(c), now.get(c)) for c in [*then, *now] if c not in silent and not CLOCKED.search(c) and "." not in c}
    return tuple(Number(column=c, then=a, now=b, half_width=_half_width(then, c)) for c, (a, b) in both.items() if a is not None or b is not None)


def clocks(then: Record, now: Record) -> tuple[Clock, ...]:
    """The columns of speed, memory and energy that both have."""
    both = [c for c in then if CLOCKED.search(c) and all(type(side.get(c)) in (int, float) for side in (then, now)) and then[c] > 0]
    return tuple(Clock(column=c, then=then[c], now=now[c]) for c in both if c not in costs.RAW)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A stage of the row then, and what does its work now."""

    stage: str
    label: str
    then: str | None                  # keys
    now: str
    is_root: bool                     # its key differs while those of its parents do not: here is what was changed


def pairs(then: Mapping[str, Any], roles: Mapping[str, str], made: Plan) -> list[Pair]:
    """The stages of the one cell of a plan, parents first, beside those of an earlier plan as JSON; speed apart. roles: the earlier keys by role."""
    found: dict[str, Pair] = {}

    def visit(before: str | None, key: str) -> bool:
        """Whether its key is what it was."""
        stage = made.stages[key]
        if key not in found:
            parents = then["stages"].get(before, {}).get("parents", {})
            same = [visit(parents.get(role), parent) for role, parent in stage.parents.items()]
            found[key] = Pair(stage=stage.name, label=stage.label, then=before, now=key, is_root=before != key and all(same))
        return before == key
    for role, key in made.cells[0].stages.items():
        if not role.startswith("throughput"):
            visit(roles.get(role), key)
    return list(found.values())


def compare_artefacts(compared: Sequence[Pair], then: Store, now: Store) -> Iterator[Artefact]:
    """What the stages left, by the checksums of their files. The store of then may be another one, or be gone."""
    for pair in compared:
        said, is_equal = "", None
        try:
            before = _files(then, pair.stage, pair.then)
            after = _files(now, pair.stage, pair.now)
            different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
            is_equal = not different
            if different:
                said = _how_images_differ(pair, then, now) if pair.stage == "sample" else f"{', '.join(different)} differ"
        except (Damaged, FileNotFoundError) as error:
            said = str(error)
        yield Artefact(stage=pair.stage, label=pair.label, is_equal=is_equal, said=said)


def what_changed(compared: Sequence[Pair], made: Plan, then: Store) -> Iterator[str]:
    """Of stages that have another key than then, the first ones, each with what differs where the store still tells."""
    for pair in compared:
        if not pair.is_root:
            continue
        if pair.then is None:
            yield f"{pair.stage} {pair.label} was not done then"
            continue
        try:
            before = json.loads(manifest.read(then.path(pair.stage, pair.then), pair.stage, pair.then, "task.json"))["identity"]
            different = ", ".join(change.name for change in differing("identity", before, made.stages[pair.now].identity))
        except (DiffbenchError, OSError):
            different = "its code, its options or the data; the run's store, which would tell, is not here"
        yield f"{pair.stage} {pair.label} is computed from something else than then: {different}"


def made_otherwise(compared: Sequence[Pair], then: Store, now: Store, machine: Mapping[str, Any] | None) -> Iterator[Change]:
    """Threads and machines of single stages, which earlier runs may have done: as the artefacts themselves tell it. machine: of the run."""
    for pair in compared:
        try:
            before, after = (json.loads(manifest.read(store.path(pair.stage, key), pair.stage, key, "outcome.json"))
                             for store, key in ((then, pair.then or ""), (now, pair.now)))
        except (DiffbenchError, OSError):                 # not there: the record tells the threads of the sampling
            continue
        if before["threads"] != after["threads"]:
            yield Change(f"threads.threads of {pair.stage}", before["threads"], after["threads"])
        if machine and before.get("machine") != digest(machine)[:12]:
            yield Change(f"machine.machine of {pair.stage}", before.get("machine"), digest(machine)[:12])


def pictures(then: Path, now: Path) -> Artefact | None:
    """The grids of first images, pixel by pixel: all there is where the samples themselves are not; None where one is missing."""
    import numpy
    from PIL import Image

    try:
        with Image.open(then) as before, Image.open(now) as after:
            shown = [numpy.asarray(picture).astype(int) for picture in (before, after)]
    except OSError:
        return None
    if shown[0].shape != shown[1].shape:
        return Artefact(stage="picture", label=then.name, is_equal=False, said="of another size")
    off = numpy.abs(shown[0] - shown[1])
    said = f"{int((off > 0).sum())} of {off.size} values differ, by at most {int(off.max())} of 255"
    return Artefact(stage="picture", label=then.name, is_equal=not off.any(), said=said if off.any() else "")


def _files(store: Store, stage: str, key: str | None) -> dict[str, str]:
    """SHA-256 by file of an artefact's results, each verified; raises Damaged, or FileNotFoundError where it is not there. Sets nothing aside."""
    if key is None:
        raise FileNotFoundError("it was not done then")
    folder = store.path(stage, key)
    if not folder.is_dir():
        raise FileNotFoundError(f"the store {store.root} does not hold it")
    manifest.verify(folder, stage, key)
    return {name: facts["sha256"] for name, facts in manifest.listing_of(folder, stage, key).items() if name not in ABOUT}


def _how_images_differ(pair: Pair, then: Store, now: Store) -> str:
    before, after = (store.read_tensors("sample", key or "", "images.safetensors")["images"].int() for store, key in ((then, pair.then), (now, pair.now)))
    if before.shape != after.shape:
        return f"images are {list(after.shape)}, were {list(before.shape)}"
    off = (before - after).abs().flatten(1).amax(1)
    if not off.any():
        return "the same images, asked for with other labels"
    return f"{int((off > 0).sum())} of {len(off)} images differ, by at most {int(off.max())} of 255"


def _half_width(row: Record, column: str) -> float | None:
    """Half of the 95 % interval of a metric's value; of its debiased value and of the interval's ends it is the same."""
    for main in (column, re.sub("_(debiased|low|high)$", "", column)):
        low, high = (row.get(f"{main}_{end}") for end in ("low", "high"))
        if isinstance(low, float) and isinstance(high, float):
            return (high - low) / 2
    return None
