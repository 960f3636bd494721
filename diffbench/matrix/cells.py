"""From the points of a matrix to its cells: dotted names change options of components and settings,
and a smoke test makes all small. Used by `expansion`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from diffbench.contracts.cell import Cell, component_kinds
from diffbench.contracts.options import Options
from diffbench.contracts.refusals import first_refusal
from diffbench.errors import OptionError
from diffbench.matrix.matrix import axis_kinds
from diffbench.matrix.reading import Reader

SMOKE_TRAIN: dict[str, Any] = {"steps": 2, "batch_size": 8}
SMOKE_SAMPLE: dict[str, Any] = {"count": 8, "batch_size": 8}


class Cells:
    """Makes cells of points, with mistakes noted by the reader. named: axes of which every cell has a value."""

    def __init__(self, reader: Reader, blocks: Mapping[str, Any], named: Collection[str], smoke: bool):
        self.reader, self.registry, self.blocks, self.named, self.smoke = reader, reader.registry, blocks, named, smoke
        self.axis_kinds = axis_kinds(self.registry)
        self._replaced: dict[tuple[int, str, int], tuple[Any, ...]] = {}

    def cell(self, point: Mapping[str, Any]) -> Cell | None:
        """A point as a cell; None where it is a faulty one."""
        values = {name: value for name, value in point.items() if "." not in name}
        settings = {"train": self.blocks["train"], "sample": self.blocks["sample"]}
        wanted = [*component_kinds(), "seed"]
        more = [kind for kind in self.axis_kinds if kind not in wanted and (kind in values or kind in self.named)]
        missing = [name for name in (*wanted, *more) if values.get(name) is None]
        # an included cell that is silent about what changes in step elsewhere
        if missing:
            self.reader.fault(("include",), f"an included cell must also name its {', '.join(missing)}")
            return None
        for name, value in point.items():
            owner, _, option = name.partition(".")
            try:
                if owner in settings and option:
                    settings[owner] = self._with(settings[owner], option, value)
                elif option:
                    values[owner] = self._with(values[owner], option, value)
            except OptionError as error:
                self.reader.fault(("together",), f"{name}: {error}")
        if self.smoke:
            for block, smaller in (("train", SMOKE_TRAIN | {
                    "gpus": min(settings["train"].gpus, SMOKE_TRAIN["batch_size"])}), ("sample", SMOKE_SAMPLE)):
                for option, value in smaller.items():
                    settings[block] = self._with(settings[block], option, value)
        extra, sampling_extra = ({kind: values[kind] for kind in more if self.registry.kind(kind).half == half}
                                 for half in ("training", "sampling"))
        cell = Cell(**{name: values[name] for name in wanted}, **settings, extra=extra, sampling_extra=sampling_extra)
        return self._with_few_steps(cell) if self.smoke else cell

    def _with_few_steps(self, cell: Cell) -> Cell:
        """The cell with the fewest steps that are not refused: two, their double, ..., those of the matrix; else two.
        """
        few = max(2, cell.scheduler.min_steps)
        doubled = [few * 2**i for i in range(32) if few * 2**i < cell.scheduler.steps]
        tried = (replace(cell, scheduler=self._with(cell.scheduler, "steps", n))
                 for n in (*doubled, cell.scheduler.steps))
        fewest = replace(cell, scheduler=self._with(cell.scheduler, "steps", few))
        return next((smaller for smaller in tried if smaller.scheduler.steps >= few and not first_refusal(smaller)),
                    fewest)

    def _with(self, options: Options, name: str, value: Any) -> Any:
        """Options with one of them changed, made and checked once for all cells that ask for it."""
        key = (id(options), name, id(value))
        if key not in self._replaced:
            # kept, so that their ids stay their own
            self._replaced[key] = (replace(options, **{name: value}), options, value)
        return self._replaced[key][0]
