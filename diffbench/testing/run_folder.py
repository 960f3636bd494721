"""Check of a folder of results: what must hold after any run. Used by the tests of faults."""

from __future__ import annotations

import json
from pathlib import Path

from diffbench.results.columns import RECORDS
from diffbench.results.folder import load
from diffbench.results.table_files import as_csv
from diffbench.store.artefacts import Damaged, Store
from diffbench.store.claims import Claims


def check_run_folder(folder: Path, store_root: Path) -> list[str]:
    """The problems of a finished run, as sentences; an empty list where there are none.

    Every cell of the plan has its record and no other has; rows that are ok have their artefacts, whole; results.csv is
    what the records give, byte for byte; no temporary file is left, and no claim that holds anybody up.
    """
    store, problems = Store(store_root), []
    plan = json.loads((folder / "plan.json").read_bytes())
    planned = {cell["cell_id"]: cell for cell in plan["cells"]}
    records = {path.stem: json.loads(path.read_bytes()) for path in (folder / RECORDS).glob("*.json")}
    if set(records) != set(planned):
        problems.append(f"{len(planned)} cells are planned and {len(records)} have a record")
    for cell_id, row in records.items():
        for role, key in planned.get(cell_id, {"stages": {}})["stages"].items():
            try:
                is_stored = store.check(plan["stages"][key]["name"], key)
            except Damaged as error:
                problems.append(f"cell {cell_id}: {error}")
                continue
            if row["status"] == "ok" and not is_stored:
                problems.append(f"cell {cell_id} is ok, and its {role} is not in the store")
    if (folder / "results.csv").read_bytes() != as_csv(load(folder)):
        problems.append("results.csv is not what the records give")
    hidden_files = [str(path.relative_to(folder)) for path in folder.rglob(".*")]
    if hidden_files:
        problems.append(f"left behind in the folder: {', '.join(sorted(hidden_files))}")
    held_claims = [path.name for path in (store.root / "claims").glob("[0-9a-f]*") if Claims().holder(path) is not None]
    if held_claims:
        problems.append(f"claims are held after the end: {', '.join(held_claims)}")
    return problems
