"""Layout of tables: which columns name rows, pivots of them, Markdown. Used by all tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import pandas

from diffbench.results import nfe
from diffbench.results.frame import component_columns, is_missing, of_text
from diffbench.results.table_files import guarded

STEPS = ("steps", "scheduler.steps")
SEEDS = {"sample.seed": "noise_seed"}
NFE = "NFE"  # a naming column that no matrix has: network evaluations, beside the names of those who make them
Key = tuple[str, ...]                 # values of `across + down`
Value = TypeVar("Value")


def layout(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(row columns, column columns): as asked, and whatever else differs between cells joins the rows,
    so that only seeds are averaged.
    """
    sides = [[_real(name) for name in side] for side in (rows, columns)]
    kept = [[name for name in side if name in table.columns] for side in sides]
    naming = component_columns(table.columns)
    more = [name for name in table.columns
            if ("." in name or name in naming) and name not in (*kept[0], *kept[1]) and name != "scheduler.steps"
            and table[name].nunique(dropna=False) > 1]
    if "steps" not in kept[0] + kept[1] and table.groupby(kept[0] + kept[1] + more,
                                                          dropna=False)["steps"].nunique().max() > 1:
        more.append("steps")
    return kept[0] + more, kept[1]


def pivot(table: pandas.DataFrame, value: str, rows: tuple[str, ...], columns: tuple[str, ...]) -> pandas.DataFrame:
    """Mean of a column over seeds, laid out as asked."""
    down, across = layout(table, rows, columns)
    measured = named(table[table[value].notna()], across + down)
    means = measured.pivot_table(index=down, columns=across, values=value, aggfunc="mean", sort=False, dropna=False)
    return means.dropna(how="all").dropna(how="all", axis=1)


def laid_out(texts: dict[Key, str], down: list[str], across: list[str]) -> str:
    """Texts by the values of `across + down`, as a Markdown table."""
    heads, lines = (list(dict.fromkeys(key[: len(across)] for key in texts)),
                    list(dict.fromkeys(key[len(across):] for key in texts)))
    body = [[*line, *(texts.get(head + line, "") for head in heads)] for line in lines]
    return markdown([*down, *(" ".join(head).replace(f" {NFE} ", f" · {NFE} ") for head in heads)], body)


def with_nfe(entries: Mapping[Key, Value], down: list[str], across: list[str],
             evaluations: Mapping[Key, Iterable[float]]) -> tuple[dict[Key, Value], list[str], list[str]]:
    """(entries, down, across) with the network evaluations named: in a column of their own where each line has one
    number, else in the heads.

    evaluations: by the same keys; without any, all stays as it is.
    """
    numbers = {key: tuple(evaluations.get(key, ())) for key in entries}
    of_heads, of_lines = (_spans(numbers, part) for part in (slice(None, len(across)), slice(len(across), None)))
    if not any(numbers.values()):
        return dict(entries), down, across
    if max(map(len, of_lines.values())) == 1 < max(map(len, of_heads.values())):
        return (
            {(*key, nfe.span(of_lines[key[len(across) :]])): entry for key, entry in entries.items()},
            [*down, NFE],
            across,
        )
    return (
        {
            (*key[: len(across)], nfe.spelt(of_heads[key[: len(across)]]), *key[len(across) :]): entry
            for key, entry in entries.items()
        },
        down,
        [*across, NFE],
    )


def _spans(evaluations: Mapping[Key, tuple[float, ...]], part: slice) -> dict[Key, set[float]]:
    """By a part of the key, all numbers of evaluations below it."""
    by_key: dict[Key, set[float]] = {}
    for key, numbers in evaluations.items():
        by_key.setdefault(key[part], set()).update(numbers)
    return by_key


def short_names(names: list[str]) -> list[str]:
    """Naming columns without the component that an option belongs to, where that leaves no two alike."""
    last = [name.rpartition(".")[2] for name in names]
    return [end if last.count(end) == 1 else name for end, name in zip(last, names, strict=True)]


def worded(name: str, value: str) -> str:
    """'ddim', but 'steps 20': a bare number says nothing; '' where there is no value."""
    return "" if value == "-" else f"{name} {value}" if value.replace(".", "").replace("-", "").isdigit() else value


def markdown(titles: list[str], body: list[list[Any]]) -> str:
    """A Markdown table; '|' in a text is escaped."""
    from tabulate import tabulate

    clean = [[str(entry).replace("|", "\\|").replace("\n", " ") for entry in line] for line in body]
    return tabulate(clean, headers=[t.replace("|", "\\|") for t in titles], tablefmt="pipe", disable_numparse=True)


def named(table: pandas.DataFrame, names: list[str]) -> pandas.DataFrame:
    """Empty entries of the naming columns as '-', so that they group and print."""
    texts = table.copy()
    for name in names:
        is_mixed = texts[name].dtype == "object" and not of_text(texts[name])
        texts[name] = [_word(value, is_mixed) for value in texts[name]]
    return texts


def in_words(table: pandas.DataFrame) -> pandas.DataFrame:
    """Columns of several types or of lists as texts, no two values alike; the others as they are."""
    mixed = [name for name in table.columns if table[name].dtype == "object" and not of_text(table[name])]
    return table.assign(**{name: [None if is_missing(value) else _word(value, True) for value in table[name]]
                           for name in mixed})


def _word(value: Any, is_mixed: bool) -> str:
    """'50', '0.001', '1-2-2' of a list; a text among other types in quotation marks where it could be taken for one."""
    if is_missing(value):
        return "-"
    if isinstance(value, tuple):
        return "-".join(_word(inner, True) for inner in value)
    if isinstance(value, float):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    is_alike = is_mixed and isinstance(value, str) and guarded(value, is_typed=True) != value
    return f'"{value}"' if is_alike else str(value)


def _real(name: str) -> str:
    """'scheduler.steps' is the column 'steps', which every scheduler has."""
    return "steps" if name in STEPS else SEEDS.get(name, name)
