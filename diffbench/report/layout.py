"""How tables are laid out: which columns name rows, pivots of them, Markdown."""

from __future__ import annotations

import math
from typing import Any

import pandas

STEPS = ("steps", "scheduler.steps")
SEEDS = {"sample.seed": "noise_seed"}
NAMING = ("dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing", "scheduler")


def layout(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(row columns, column columns): as asked, and whatever else differs between cells joins the rows, so that only seeds are averaged."""
    sides = [[_real(name) for name in side] for side in (rows, columns)]
    kept = [[name for name in side if name in table.columns] for side in sides]
    more = [name for name in table.columns
            if ("." in name or name in NAMING) and name not in (*kept[0], *kept[1]) and name != "scheduler.steps" and table[name].nunique(dropna=False) > 1]
    if "steps" not in kept[0] + kept[1] and table.groupby(kept[0] + kept[1] + more, dropna=False)["steps"].nunique().max() > 1:
        more.append("steps")
    return kept[0] + more, kept[1]


def pivot(table: pandas.DataFrame, value: str, rows: tuple[str, ...], columns: tuple[str, ...]) -> pandas.DataFrame:
    """Mean of a column over seeds, laid out as asked."""
    down, across = layout(table, rows, columns)
    shown = named(table[table[value].notna()], across + down)
    return shown.pivot_table(index=down, columns=across, values=value, aggfunc="mean", sort=False, dropna=False).dropna(how="all").dropna(how="all", axis=1)


def laid_out(texts: dict[tuple[str, ...], str], down: list[str], across: list[str]) -> str:
    """Texts by the values of `across + down`, as a Markdown table."""
    heads, lines = list(dict.fromkeys(key[: len(across)] for key in texts)), list(dict.fromkeys(key[len(across):] for key in texts))
    body = [[*line, *(texts.get(head + line, "") for head in heads)] for line in lines]
    return markdown([*down, *(" ".join(head) for head in heads)], body)


def markdown(titles: list[str], body: list[list[Any]]) -> str:
    """A Markdown table; '|' in a text is escaped."""
    from tabulate import tabulate

    clean = [[str(entry).replace("|", "\\|").replace("\n", " ") for entry in line] for line in body]
    return tabulate(clean, headers=[t.replace("|", "\\|") for t in titles], tablefmt="pipe", disable_numparse=True)


def named(table: pandas.DataFrame, names: list[str]) -> pandas.DataFrame:
    """Empty entries of the naming columns as '-', so that they group and print."""
    shown = table.copy()
    for name in names:
        shown[name] = shown[name].map(lambda v: "-" if v is None or (isinstance(v, float) and math.isnan(v)) else f"{v:g}" if isinstance(v, float) else str(v))
    return shown


def _real(name: str) -> str:
    """'scheduler.steps' is the column 'steps', which every scheduler has."""
    return "steps" if name in STEPS else SEEDS.get(name, name)
