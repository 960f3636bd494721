"""fid.md, throughput.md and what belongs to them: tables with intervals, whose captions say what the numbers are."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from diffbench.columns import Columns
from diffbench.report import captions, cost, quality
from diffbench.report.layout import layout, markdown, named, pivot
from diffbench.store import write_atomically

BETTER = {"lower": ("lower is better", "Floor"), "higher": ("higher is better", "Ceiling"), None: ("a flag: neither way is better", "Real")}


REAL = "real.json"                    # beside the results


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """"dataset:column" -> values, by column, of real images measured as samples are."""

    held_out: dict[str, dict[str, float]] = field(default_factory=dict)       # the floor: images that nobody has seen
    training: dict[str, dict[str, float]] = field(default_factory=dict)       # where a model would be that only repeats them


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a caption needs beside the frame."""

    name: str
    real: RealImages                                # what real images have in these columns
    machine: dict[str, Any]
    columns: Columns                          # what the columns of metrics mean
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)    # by cell id, with left-out values
    baseline: frozenset[str] = frozenset()    # ids of the cells others are compared with, where not with the best


def write(folder: Path, table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], facts: Facts) -> None:
    """fid.md and .csv, means.csv, differences.csv, throughput.md and .csv of a run."""
    made = list(sheets(table, rows, columns, facts))
    if made:
        parts = [f"# {'Fréchet distance' if _is_distance(made[0][0].column) else 'Quality'}, {facts.name}", caption(table, [s for s, _ in made]),
                 captions.copies(table)]
        for s, part in made:
            parts += [_title(s, part, made), *floors(s, part, facts.real), quality.means_of(s), quality.summary(s)]
            parts += [quality.differences_of(s)] if s.column == made[0][0].column else []
        write_atomically(folder / "fid.md", _joined([*parts, _not_measured(table)]))
        write_atomically(folder / "fid.csv", pivot(table, made[0][0].column, rows, columns).to_csv().encode())
        for name, frame in zip(("means.csv", "differences.csv"), quality.as_frames([s for s, _ in made]), strict=True):
            write_atomically(folder / name, frame.to_csv(index=False).encode())
    if table["sample_images_per_second"].notna().any():
        parts = [f"# Throughput, {facts.name}", cost.caption(table, facts.machine),
                 _section(table, "sample_images_per_second", rows, columns, cost.rate("sample_images_per_second"),
                          "`sample_images_per_second`, higher is better", best=max),
                 _section(table, "sample_images_per_anchor", rows, columns, cost.relative(table),
                          "Speed as a share of the fastest, by laps of an anchor timed in turns with each: what to compare, for the machine drifts", best=max),
                 _cost(table), _not_measured(table)]
        write_atomically(folder / "throughput.md", _joined(parts))
        write_atomically(folder / "throughput.csv", pivot(table, "sample_images_per_second", rows, columns).to_csv().encode())


def sheets(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], facts: Facts) -> Iterator[tuple[quality.Sheet, pandas.DataFrame]]:
    """Each column's sheet with its rows, the Fréchet distance first; rows that do not compare, such as those of two data sets, are on different sheets."""
    for column in sorted((c for c in facts.columns if c in table), key=lambda c: not _is_distance(c)):
        there = table[table[column].notna()]
        same = [name for name in facts.columns[column]["same"] if name in table]
        for _, part in there.groupby(same, sort=False, dropna=False):
            yield quality.sheet(part, column, facts.columns[column]["better"], facts.records, rows, columns, facts.baseline), part


def caption(table: pandas.DataFrame, sheets: list[quality.Sheet]) -> str:
    """What the numbers of a table of quality are: features, images, seeds, intervals."""
    there = table[table[sheets[0].column].notna()]
    first, lines = there.iloc[0], []
    if "reference_count" in there and pandas.notna(first["reference_count"]):
        lines.append(f"Features: `{first['extractor']}` (weights `{first['extractor_key']}`). "
                     + ("**This is not FID**: the features are not Inception's, and the values compare only within tables of these weights. "
                        if _is_distance(sheets[0].column) and sheets[0].column != "fid" else "")
                     + f"{first['sample_count']} generated images a row, {first['reference_count']} reference images.")
    bases = dict.fromkeys(mean.basis for mean in sheets[0].means.values())
    seeds = max(len(mean.seeds) for mean in sheets[0].means.values())
    lines.append(("Each entry is the mean over seeds, never the best of them" if seeds > 1 else "Each entry is of one seed")
                 + f": the conventional value, and in brackets the 95 % interval of the value without the bias of finitely many samples ({'; '.join(bases)})."
                 + ("" if seeds > 1 else " What another training of the same network would give is not in it."))
    return "\n\n".join(lines)


def floors(s: quality.Sheet, part: pandas.DataFrame, real: RealImages) -> list[str]:
    """What real images have in a column: those nobody has seen, and those of the training."""
    lines = []
    for name, values in real.held_out.items():
        dataset = name.rpartition(":")[0]
        if s.column not in values or dataset.partition("(")[0] != part["dataset"].iloc[0]:
            continue
        low, high, debiased = (values.get(f"{s.column}_{end}") for end in ("low", "high", "debiased"))
        interval = "" if low is None else f" ({low:.3g} to {high:.3g})" if debiased in (None, values[s.column]) else \
            f"; debiased {debiased:.3g} ({low:.3g} to {high:.3g})"
        lines.append(f"**{BETTER[s.better][1]}**: held-out real images of {dataset}, measured in the same way, are at {values[s.column]:.3g}{interval}.")
        if s.column in real.training.get(name, {}):
            lines[-1] += (f" **Copies**: training images themselves are at {real.training[name][s.column]:.3g}. A model that only repeats them would be there; "
                          "`near_copy_share` and `authenticity` tell it.")
    return lines


def _is_distance(column: str) -> bool:
    """Whether it is a Fréchet distance: `fid` for Inception features, `fd_<extractor>` for others."""
    return column == "fid" or column.startswith("fd_")


def _section(table: pandas.DataFrame, value: str, rows: tuple[str, ...], columns: tuple[str, ...],
             show: Callable[[pandas.DataFrame], str], title: str, best: Callable[..., float]) -> str:
    """One pivot as Markdown, each entry shown from the rows behind it, the best in bold."""
    down, across = layout(table, rows, columns)
    shown = named(table[table[value].notna()], across + down)
    if shown.empty:
        return f"## {title}\n\nNothing was measured."
    means = shown.groupby(across + down, sort=False)[value].mean()
    winner = best(means)
    texts = {key: f"**{show(part)}**" if math.isclose(part[value].mean(), winner) else show(part) for key, part in shown.groupby(across + down, sort=False)}
    heads, lines = list(dict.fromkeys(key[: len(across)] for key in texts)), list(dict.fromkeys(key[len(across):] for key in texts))
    body = [[*line, *(texts.get(head + line, "") for head in heads)] for line in lines]
    titles = [*down, *(" ".join(map(str, head)) for head in heads)]
    return f"## {title}\n\n{markdown(titles, body)}"


def _title(s: quality.Sheet, part: pandas.DataFrame, sheets: list[tuple[quality.Sheet, pandas.DataFrame]]) -> str:
    """'`fd_pixels`, lower is better', and of which data set and how many samples where a column has several sheets."""
    several = sum(other.column == s.column for other, _ in sheets) > 1
    return f"## `{s.column}`, {BETTER[s.better][0]}" + (f": {part['dataset'].iloc[0]}, {part['sample_count'].iloc[0]} samples a row" if several else "")


def _cost(table: pandas.DataFrame) -> str:
    """What one network evaluation costs, by backbone."""
    measured = table[table["parameters"].notna()]
    naming = ["backbone", *(c for c in table.columns if c.startswith("backbone."))]
    return "## Cost of a network\n\n" + markdown(*cost.networks(named(measured, naming), naming))


def _not_measured(table: pandas.DataFrame) -> str:
    """Every cell without a value, with its reason."""
    bad = table[table["status"] != "ok"]
    if bad.empty:
        return ""
    body = [[r["cell_id"], r["status"], ", ".join(r[k] for k in ("backbone", "noise_schedule", "conditioning", "scheduler")), r["reason"]]
            for _, r in bad.iterrows()]
    return f"## Not measured\n\n{markdown(['cell', 'status', 'what', 'why'], body)}"


def _joined(parts: list[str]) -> bytes:
    return ("\n\n".join(p for p in parts if p) + "\n").encode()
