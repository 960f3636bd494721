"""Every fault at every point: SIGKILL, a full disk and an I/O error at each call that changes a file, then the same line again.

    python -m tests.faults.sweep [--every N] [--jobs N] [--folder DIR]

Without --every, all points. The table after the second run must equal that of an undisturbed one byte for byte, clocks aside.
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from diffbench.testing.run_folder import check_run_folder
from tests.faults.harness import Fault, Trial, can_trace

FAULTS = ("signal=KILL", "error=ENOSPC", "error=EIO")


def undisturbed(folder: Path) -> tuple[str, list[tuple[str, str, int, str]]]:
    """The table of a run that nothing happens to, and the points at which something could have."""
    trial = Trial(folder / "undisturbed")
    code = trial.run(trace=True)
    if code != 0:
        raise RuntimeError(f"the undisturbed run ended with {code}: {(trial.folder / 'driver.txt').read_text()}")
    return trial.table(), trial.points()


def one_of_each(points: list[tuple[str, str, int, str]]) -> list[tuple[str, str, int, str]]:
    """The first point of each (role, call, kind of file)."""
    first: dict[tuple[str, str, str], tuple[str, str, int, str]] = {}
    for point in points:
        first.setdefault((point[0], point[1], point[3]), point)
    return list(first.values())


def check(folder: Path, fault: Fault, table: str) -> dict[str, object]:
    """One fault, and the same line again: what the two runs ended with, and whether all is as if nothing had happened."""
    trial = Trial(folder)
    found: dict[str, object] = {"fault": vars(fault)}
    try:
        found["first"] = trial.run(fault)
        found["again"] = trial.run()
        found["verdict"] = "equal" if trial.table() == table else "another table"
        problems = check_run_folder(trial.folder / "out", trial.folder / "home")
        if problems:
            found["verdict"] = "; ".join(problems)
    except Exception as error:  # noqa: BLE001  a verdict too
        found["verdict"] = f"{type(error).__name__}: {error}"
    if found.get("again", 0) != 0 and found["verdict"] == "equal":
        found["verdict"] = "the second run did not succeed"
    if found["verdict"] == "equal":
        shutil.rmtree(folder)
    return found


def sweep(folder: Path, points: list[tuple[str, str, int, str]], table: str, jobs: int, faults: tuple[str, ...] = FAULTS) -> list[dict[str, object]]:
    """All faults at all points, `jobs` at a time."""
    cases = [Fault(role, call, when, what) for what in faults for role, call, when, _ in points]
    folders = [folder / f"case-{number}" for number in range(len(cases))]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(check, folders, cases, itertools.repeat(table)))


def main() -> int:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="take every N-th point")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--kinds", action="store_true", help="one point of each kind (role, call, file)")
    parser.add_argument("--folder", type=Path)
    asked = parser.parse_args()
    reason = can_trace()
    if reason:
        print(f"skipped: {reason}")
        return 3
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="diffbench-faults-"))
    start = time.monotonic()
    table, points = undisturbed(folder)
    chosen = one_of_each(points) if asked.kinds else points[:: asked.every]
    found = sweep(folder, chosen, table, asked.jobs)
    print(f"{len(chosen)} of {len(points)} points, {len(found)} faults, {time.monotonic() - start:.0f} s")
    for what in FAULTS:
        verdicts = collections.Counter(str(f["verdict"]) for f in found if f["fault"]["what"] == what)
        print(f"  {what}: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()))
    bad = [f for f in found if f["verdict"] != "equal"]
    for each in bad[:40]:
        print(json.dumps(each))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
