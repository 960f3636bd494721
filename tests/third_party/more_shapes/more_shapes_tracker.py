"""A tracker: one line per cell in cells.txt, in the folder of the results."""

from diffbench import hookimpl


@hookimpl
def diffbench_row_added(row, folder):
    with open(folder / "cells.txt", "a", encoding="utf-8") as file:
        file.write(f"{row['cell_id']} {row['status']}\n")


@hookimpl
def diffbench_run_finished(folder, counts):
    with open(folder / "cells.txt", "a", encoding="utf-8") as file:
        file.write(f"finished {sum(counts.values())}\n")
