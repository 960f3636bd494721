"""The folder of a run, read and checked.
Used by all that looks at a run: tables, the page, exports, comparisons, reruns, archives, `watch`.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.errors import DiffbenchError
from diffbench.matrix import selection
from diffbench.results import checked_json, columns, table_files
from diffbench.results.checked_json import CellOfPlan, PlanFile, Request, StageOfPlan
from diffbench.results.columns import RECORDS, Record
from diffbench.results.environment import FILE as ENVIRONMENT
from diffbench.results.frame import frame
from diffbench.results.records import read_all
from diffbench.store.artefacts import Store
from diffbench.store.paths import user_path
from diffbench.store.shapes import Check

if TYPE_CHECKING:
    import pandas


class RunFolder:
    """A folder of results. Each property raises DiffbenchError for what is missing or damaged in it."""

    def __init__(self, folder: str | Path):
        self.folder = user_path(folder)

    @cached_property
    def records(self) -> dict[str, Record]:
        """By cell id, with what is no column of the frame: `left_out`, {column:
        its 20 values without one block of samples}.
        """
        Store.default().found_again(self.folder)
        return read_all(self.folder)

    @cached_property
    def rows(self) -> pandas.DataFrame:
        """One row per cell: of its records, or of results.parquet where they are not there."""
        if (self.folder / RECORDS).is_dir():
            return frame(list(self.records.values()), order=self._order())
        if (self.folder / "results.parquet").is_file():
            return _table(self.folder / "results.parquet")
        raise DiffbenchError(f"{self.folder} holds no results: neither {RECORDS}/ nor results.parquet is there")

    @cached_property
    def columns(self) -> columns.Columns:
        """Meaning of the columns of metrics; empty for a run that has no row yet."""
        return columns.read(self.folder) if self.records else {}

    @cached_property
    def matrix(self) -> dict[str, Any]:
        """The matrix, as its file says."""
        return self._part("matrix.json")

    @property
    def name(self) -> str:
        """As the matrix says."""
        return self.matrix.get("name", self.folder.name)

    @cached_property
    def environment(self) -> dict[str, Any]:
        """Facts that its numbers depend on besides the matrix."""
        return self._part(ENVIRONMENT)

    @property
    def request(self) -> Request | None:
        """Request that the run was made for; None where an earlier version made it, which did not say."""
        return self.environment.get("request")

    @cached_property
    def plan(self) -> PlanFile:
        """Its cells and, where it has them, its stages."""
        return self._part("plan.json")

    def stages(self) -> dict[str, StageOfPlan]:
        """By key, the name, the label and the parents of every stage of the plan."""
        return self._part("plan.json", checked_json.WATCHED)["stages"]

    def planned(self, cell_id: str) -> CellOfPlan:
        """A cell of the plan, with its stages."""
        return next(cell for cell in self._part("plan.json", checked_json.PLAN)["cells"] if cell["cell_id"] == cell_id)

    def made_of(self) -> dict[str, selection.Named]:
        """By cell id, all its components, options and seeds."""
        return {cell["cell_id"]: selection.values_of(cell["cell"]) for cell in self.plan["cells"] if "cell" in cell}

    def _order(self) -> list[str]:
        """Cell ids in the order of the plan;
        of a plan that is not there or torn none, for no number depends on the order.
        """
        try:
            return [cell["cell_id"] for cell in self._part("plan.json", checked_json.ORDER)["cells"]]
        except DiffbenchError:
            return []

    def _part(self, name: str, check: Check | None = None) -> Any:
        if not (self.folder / name).exists():
            raise DiffbenchError(f"{self.folder / name} is not there: give the folder of a run, such as "
                                 "runs/quickstart")
        return checked_json.part(self.folder, name, check)


def load(path: str | Path) -> pandas.DataFrame:
    """The results of a run as a frame, one row per cell: from its folder, or from its results.parquet or results.csv.

    Every value has the type it had in the row's record. Raises DiffbenchError where there are no results.
    """
    path = user_path(path)
    return _table(path) if path.suffix in (".csv", ".parquet") else RunFolder(path).rows


def _table(path: Path) -> pandas.DataFrame:
    """A table of results; DiffbenchError where it is none."""
    import pyarrow

    try:
        return table_files.read_parquet(path) if path.suffix == ".parquet" else table_files.read_csv(path)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, pyarrow.ArrowException) as error:
        reason = " ".join(str(error).split()).replace(str(path), path.name)[:200]
        raise DiffbenchError(
            f"{path} is no table of results: {reason}. Running the matrix again writes it anew") from None
