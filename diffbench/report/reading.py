"""A run's tables made again from its folder: its rows, what their columns mean, and how its matrix wants them laid out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas

from diffbench import columns, results, selection
from diffbench.errors import DiffbenchError
from diffbench.report import quality, tables
from diffbench.settings import Report

Sheets = list[tuple[quality.Sheet, pandas.DataFrame]]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A folder of results. Raises DiffbenchError, when asked, for what is missing in it."""

    folder: Path

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """One row per cell, as in results.parquet."""
        return results.load(self.folder)

    @cached_property
    def columns(self) -> columns.Columns:
        """What the columns of metrics mean."""
        return columns.read(self.folder)

    @cached_property
    def layout(self) -> Report:
        """How the matrix wants tables laid out."""
        asked = self._json("matrix.json").get("report") or {}
        return Report(**{name: tuple(value) if isinstance(value, list) else value if name == "baseline" else (value,) for name, value in asked.items()})

    @cached_property
    def sheets(self) -> Sheets:
        """Means and differences of each column of quality, the Fréchet distance first, with the rows behind each."""
        return list(tables.sheets(self.rows, self.layout.rows, self.layout.columns, self._facts()))

    @property
    def name(self) -> str:
        """As the matrix says."""
        return self._json("matrix.json").get("name", self.folder.name)

    def stages(self) -> dict[str, dict[str, str]]:
        """By cell id, the keys of its stages by role."""
        return {cell["cell_id"]: cell["stages"] for cell in self._json("plan.json")["cells"]}

    def _facts(self) -> tables.Facts:
        return tables.Facts(name=self.name, floors={}, machine={}, columns=self.columns, records=results.records(self.folder),
                            baseline=frozenset(self._baseline()))

    def _baseline(self) -> Iterator[str]:
        if self.layout.baseline:
            wanted = selection.conditions(self.layout.baseline)
            yield from (cell["cell_id"] for cell in self._json("plan.json")["cells"] if selection.meets(selection.named(cell["cell"]), wanted))

    def _json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_bytes())
        except (OSError, ValueError) as error:
            raise DiffbenchError(f"{self.folder / name} cannot be read: {error}; running the matrix again writes it anew") from None
