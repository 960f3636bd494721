"""Comparison of what the stages of a row left with what those of its repetition left.
Used by the comparison of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from diffbench.errors import Damaged, DiffbenchError
from diffbench.planning.plan import Plan
from diffbench.planning.stage import Stage
from diffbench.results import environment
from diffbench.results.checked_json import PlanFile
from diffbench.results.environment import Change
from diffbench.store import manifest
from diffbench.store.artefacts import Store
from diffbench.store.digest import digest

if TYPE_CHECKING:
    import numpy

# files of an artefact that tell how it was made, some of it by the clock
ABOUT = ("task.json", "outcome.json", "facts.json")


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What a stage left, then and now."""

    stage: str
    label: str
    is_equal: bool | None             # every file to the bit; None: not compared
    said: str                         # how it differs, or why it is not compared


class Pair(NamedTuple):
    """A stage of the repetition, and the key of what did its work then."""

    stage: Stage
    then: str | None
    is_root: bool                     # its key differs while those of its parents do not: here is what was changed


def pairs(then: PlanFile, roles: Mapping[str, str], plan: Plan) -> list[Pair]:
    """The stages of the one cell of a plan, parents first, beside those of an earlier plan; speed apart.
    roles: the earlier keys by role.
    """
    earlier: dict[str, str | None] = {}                   # key then, by key now

    def visit(before: str | None, key: str) -> None:
        if key not in earlier:
            parents = then["stages"][before]["parents"] if before in then["stages"] else {}
            for role, parent in plan.stages[key].parents.items():
                visit(parents.get(role), parent)
            earlier[key] = before
    for role, key in plan.cells[0].stages.items():
        if not role.startswith("throughput"):
            visit(roles.get(role), key)
    return [Pair(plan.stages[key], before, before != key and all(earlier[p] == p
                                                                 for p in plan.stages[key].parents.values()))
            for key, before in earlier.items()]


def compare_artefacts(compared: Sequence[Pair], then: Store, now: Store) -> Iterator[Artefact]:
    """Comparisons of what the stages left, by the checksums of their files. The store of then may be another one, or be
    gone.
    """
    for stage, key, _ in compared:
        reason, is_equal = "", None
        try:
            before, after = _files(then, stage.name, key), _files(now, stage.name, stage.key)
            different = [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]
            is_equal = not different
            if different:
                reason = (_how_images_differ(key or "", then, stage.key, now) if stage.name == "sample"
                          else f"{', '.join(different)} differ")
        except (Damaged, FileNotFoundError) as error:
            reason = str(error)
        yield Artefact(stage=stage.name, label=stage.label, is_equal=is_equal, said=reason)


def what_changed(compared: Sequence[Pair], then: Store) -> Iterator[str]:
    """Of stages that have another key than then, the first ones, each with what differs where the store still tells."""
    for stage, key, is_root in compared:
        if is_root and key is None:
            yield f"{stage.name} {stage.label} was not done then"
        elif is_root:
            try:
                before = then.read_json(stage.name, key, "task.json")["identity"]
                different = ", ".join(change.name for change in environment.differing(
                    "identity", before, stage.identity))
            except (DiffbenchError, OSError):
                different = "its code, its options or the data; the run's store, which would tell, is not here"
            yield f"{stage.name} {stage.label} is computed from something else than then: {different}"


def made_otherwise(compared: Sequence[Pair], then: Store, now: Store, machine: Mapping[str, Any] | None) -> Iterator[
        Change]:
    """Threads and machines of single stages, which earlier runs may have done: as the artefacts themselves tell it.
    machine: of the run.
    """
    for stage, key, _ in compared:
        try:
            before, after = (store.read_json(stage.name, k, "outcome.json")
                             for store, k in ((then, key or ""), (now, stage.key)))
        except (DiffbenchError, OSError):                 # not there: the record tells the threads of the sampling
            continue
        if before.get("threads") != after.get("threads"):
            yield Change(f"stage.threads of {stage.name}", before.get("threads"), after.get("threads"))
        if machine and before.get("machine") != digest(machine)[:12]:
            yield Change(f"stage.machine of {stage.name}", before.get("machine"), digest(machine)[:12])


def pictures(then: Path, now: Path) -> Artefact | None:
    """The grids of first images, pixel by pixel: all there is where the samples themselves are not;
    None where one is missing.
    """
    import numpy
    from PIL import Image

    try:
        with Image.open(then) as before, Image.open(now) as after:
            pixels = [numpy.asarray(picture).astype(int) for picture in (before, after)]
    except OSError:
        return None
    is_one_size = pixels[0].shape == pixels[1].shape
    how = _by_how_much(numpy.abs(pixels[0] - pixels[1]), "values") if is_one_size else "of another size"
    return Artefact(stage="picture", label=then.name, is_equal=not how, said=how)


def _files(store: Store, stage: str, key: str | None) -> dict[str, str]:
    """SHA-256 by file of an artefact's results, each verified;
    raises Damaged, or FileNotFoundError where it is not there. Sets nothing aside.
    """
    if key is None:
        raise FileNotFoundError("it was not done then")
    folder = store.path(stage, key)
    if not folder.is_dir():
        raise FileNotFoundError(f"the store {store.root} does not hold it")
    manifest.verify(folder, stage, key)
    return {name: facts["sha256"] for name, facts in manifest.listing_of(folder, stage, key).items()
            if name not in ABOUT}


def _how_images_differ(key: str, then: Store, key_now: str, now: Store) -> str:
    before, after = (store.read_tensors("sample", k, "images.safetensors")["images"].int()
                     for store, k in ((then, key), (now, key_now)))
    if before.shape != after.shape:
        return f"images are {list(after.shape)}, were {list(before.shape)}"
    return (_by_how_much((before - after).abs().flatten(1).amax(1).numpy(), "images")
            or "the same images, asked for with other labels")


def _by_how_much(off: numpy.ndarray, what: str) -> str:
    """'1 of 400 images differ, by at most 1 of 255'; '' where none does. off: absolute differences."""
    return (f"{int((off > 0).sum())} of {off.size} {what} differ, by at most {int(off.max())} of 255"
            if off.any() else "")
