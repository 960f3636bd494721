"""Comparison of a row with the same row made again: numbers, artefacts, environment. Used by `diffbench.rerun`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from diffbench.planning.plan import Plan
from diffbench.results import environment, speed_columns
from diffbench.results import reproduced_artefacts as artefacts
from diffbench.results.columns import LEFT_OUT, MORE_KINDS, Record
from diffbench.results.comparing import ComparedRun, Row
from diffbench.results.environment import Change
from diffbench.results.folder import RunFolder
from diffbench.results.frame import LEADING
from diffbench.results.reproduced_artefacts import Artefact
from diffbench.results.rows import CLOCKED
from diffbench.store.artefacts import Store

# Columns that say when, where and by which code: what differs there is told as the environment, not as a number.
PROVENANCE = ("train_key", "extractor_key", "judge_key", "sample_batch_size", "device", "threads", "cores", "torch",
              "diffbench", "origins",
              "imported_from", "git_commit", "reason")
EXACT = ("nfe", "gmac_per_nfe")       # counted, so equal wherever the same is run; all integers are too


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
        """Whether it agrees as far as it can elsewhere:
        counts and words exactly, floats within half of their interval; None without an interval.
        """
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
        return (not self.failure and all(n.is_equal for n in self.numbers)
                and all(a.is_equal is not False for a in self.artefacts))

    @property
    def disagreements(self) -> tuple[str, ...]:
        """Descriptions of what is not as it should be; empty where the row is confirmed."""
        if self.failure:
            return (f"the row could not be made again: {self.failure}",)
        if self.is_comparable_to_the_bit:
            return (*(f"{n.column}: {n.then} then, {n.now} now" for n in self.numbers if not n.is_equal),
                    *(f"{a.stage} {a.label}: {a.said}" for a in self.artefacts if a.is_equal is False))
        return tuple(f"{n.column}: {n.then} then, {n.now} now"
                     + ("" if n.half_width is None else f", more than half of its interval, {n.half_width:.3g}")
                     for n in self.numbers if n.is_within is False)

    @property
    def agrees(self) -> bool:
        """Whether the row is confirmed: to the bit, or where that cannot be asked for, within its own intervals."""
        return not self.disagreements

    def as_json(self) -> dict[str, Any]:
        """For programs; a number that is not known is null."""
        fields = ("column", "then", "now", "is_equal", "difference", "half_width", "is_within")
        return {
            **_named(self, "run", "cell_id", "seconds", "agrees", "is_bitwise", "is_comparable_to_the_bit",
                     "disagreements"),
            "numbers": [_named(n, *fields) for n in self.numbers],
            "clocks": [_named(c, "column", "then", "now", "ratio") for c in self.clocks],
            "artefacts": [vars(a) for a in self.artefacts], "changes": [c._asdict() for c in self.changes],
            **_named(self, "stages_changed", "notes", "failure")}


def compare(then: ComparedRun, row: Row, store: Store, now: RunFolder, plan: Plan, fresh: Store,
            seconds: float) -> Rerun:
    """Compares a row of a run with its repetition.

    store: that of the run, which may be another one by now, or be gone. now, plan, fresh: results, plan and store of
    the repetition, which took so many seconds.
    """
    before, after, changes = (row.record, now.records[row.cell_id],
                              environment.differences(then.environment, now.environment))
    stages = artefacts.pairs(then.plan, then.planned(row.cell_id).get("stages", {}), plan)
    compared: list[Artefact] = []
    is_ok = after["status"] == "ok"
    if is_ok:
        changes += [Change(f"row.{name}", before[name], after[name]) for name in ("threads", "sample_batch_size")
                    if before[name] != after[name]]
        of_row = [change[1:] for change in changes if change.what == "row.threads"]
        changes += [c for c in dict.fromkeys(artefacts.made_otherwise(
            stages, store, fresh, then.environment.get("machine"))) if c[1:] not in of_row]
        compared = list(artefacts.compare_artefacts(stages, store, fresh))
        picture = artefacts.pictures(*(run.folder / "samples" / f"{row.cell_id}.png" for run in (then, now)))
        if picture is not None and any(a.stage == "sample" and a.is_equal is None for a in compared):
            compared.append(picture)
    return Rerun(
        run=str(then.folder), cell_id=row.cell_id, made_of=_in_words(before), seconds=seconds,
        notes=tuple(_notes(then)),
        stages_changed=tuple(artefacts.what_changed(stages, store)), changes=tuple(changes), artefacts=tuple(compared),
        numbers=numbers(before, after) if is_ok else (), clocks=clocks(before, after) if is_ok else (),
        failure="" if is_ok else f"{after['status']}: {after['reason']}")


def numbers(then: Record, now: Record) -> tuple[Number, ...]:
    """Every column that neither names the cell nor tells of clocks or of where it was made;
    intervals are those of `then`.
    """
    silent = (*LEADING, *PROVENANCE, LEFT_OUT, MORE_KINDS, *then.get(MORE_KINDS, ()), *speed_columns.RAW,
              *speed_columns.FLAGS)
    both = {c: (then.get(c), now.get(c)) for c in [*then, *now] if c not in silent and not CLOCKED.search(c)
            and "." not in c}
    return tuple(Number(column=c, then=a, now=b, half_width=_half_width(then, c)) for c, (a, b) in both.items()
                 if a is not None or b is not None)


def clocks(then: Record, now: Record) -> tuple[Clock, ...]:
    """The columns of speed, memory and energy that both have."""
    both = [c for c in then if CLOCKED.search(c) and all(type(side.get(c)) in (int, float) for side in (then, now))
            and then[c] > 0]
    return tuple(Clock(column=c, then=then[c], now=now[c]) for c in both if c not in speed_columns.RAW)


def _notes(run: ComparedRun) -> Iterator[str]:
    """Notes on a run that matter before a repetition is compared with it."""
    if run.request is None:
        yield (f"{environment.FILE} is of an earlier version, which says less: it is taken for a whole run without "
               "plug-in files")
    elif run.request["launcher"].partition(":")[0] != "local":
        yield (f"the run was made by --launcher {run.request['launcher']}: {environment.FILE} tells of the machine "
               "that started it alone")


def _in_words(record: Record) -> str:
    """'dit, linear, epsilon, film, ddpm, 2 steps, seed 0': the cell of a row."""
    kinds = ("backbone", "noise_schedule", "parameterization", "conditioning", *record.get(MORE_KINDS, ()), "scheduler")
    names = [record[kind] for kind in kinds if kind in record]
    return f"{', '.join(names)}, {record['steps']} steps, seed {record['seed']}"


def _named(value: Any, *names: str) -> dict[str, Any]:
    """Attributes of a value by their names."""
    return {name: getattr(value, name) for name in names}


def _half_width(row: Record, column: str) -> float | None:
    """Half of the 95 % interval of a number of a metric.
    Where there is a debiased value the interval is of that one, and of no other column.
    """
    main = column.removesuffix("_debiased")
    low, high = (row.get(f"{main}_{end}") for end in ("low", "high"))
    has_interval = isinstance(low, float) and isinstance(high, float)
    return ((high - low) / 2 if has_interval and (column != main
                                                  or row.get(f"{main}_debiased") in (None, row.get(main))) else None)
