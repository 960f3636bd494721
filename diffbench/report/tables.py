"""fid.md, throughput.md and what belongs to them: tables with intervals, whose captions say what the numbers are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from diffbench.report import captions, cost, quality, quality_text
from diffbench.report.layout import markdown, named, pivot
from diffbench.results import nfe
from diffbench.results.columns import Columns
from diffbench.results.frame import counted, more_kinds
from diffbench.results.quantity import ABSENT, CONVENTIONAL, is_distance
from diffbench.results.table_files import as_csv, pivot_as_csv
from diffbench.stats.numbers_of_rows import Number
from diffbench.store.artefacts import write_atomically
from diffbench.wording import encoded

BETTER = {"lower": ("lower is better", "Floor"), "higher": ("higher is better", "Ceiling"),
          None: ("a flag: neither way is better", "Real")}


REAL = "real.json"                    # beside the results


@dataclass(frozen=True, kw_only=True)
class RealImages:
    """"dataset:column" -> values, by column, of real images measured as samples are."""

    held_out: dict[str, dict[str, float]] = field(default_factory=dict)  # the floor: images that nobody has seen
    training: dict[str, dict[str, float]] = field(default_factory=dict)  # where a model would be that only repeats them


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
    """All tables of a run. What nothing was measured for is not left as it was before."""
    write_quality(folder, table, rows, columns, facts)
    write_throughput(folder, table, rows, columns, facts)


def write_quality(folder: Path, table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...],
                  facts: Facts) -> None:
    """fid.md and .csv, means.csv, differences.csv."""
    every, table = table, counted(table)
    all_sheets = list(sheets(table, rows, columns, facts))
    if not all_sheets:
        parts = [f"# Quality, {facts.name}", "Nothing was measured.", _not_measured(every)]
        write_atomically(folder / "fid.md", _joined(parts))
        _remove(folder, "fid.csv", "means.csv", "differences.csv")
    if all_sheets:
        parts = [
            f"# {'Fréchet distance' if is_distance(all_sheets[0][0].column) else 'Quality'}, {facts.name}",
            *(f"**{warning}**" for warning in [caveat([s for s, _ in all_sheets])] if warning),
            caption(table, [s for s, _ in all_sheets]),
            captions.copies(table),
        ]
        for s, part in all_sheets:
            parts += [
                _title(s, part, all_sheets),
                *floors(s, part, facts.real),
                quality_text.means_of(s),
                quality_text.summary(s),
                quality_text.conventional_of(s),
            ]
            parts += [quality_text.differences_of(s)] if s.column == all_sheets[0][0].column else []
        write_atomically(folder / "fid.md", _joined([*parts, _not_measured(every)]))
        write_atomically(folder / "fid.csv", as_csv(_values(
            [(s, part) for s, part in all_sheets if s.column == all_sheets[0][0].column])))
        for name, frame in zip(("means.csv", "differences.csv"), quality.as_frames([s for s, _ in all_sheets]),
                               strict=True):
            write_atomically(folder / name, as_csv(frame))


def write_throughput(folder: Path, table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...],
                     facts: Facts) -> None:
    """throughput.md and .csv."""
    every, table = table, counted(table)
    if not table["sample_images_per_second"].notna().any():
        _remove(folder, "throughput.md", "throughput.csv")
    else:
        parts = [f"# Throughput, {facts.name}", cost.caption(table, facts.machine), cost.measured(table, rows, columns),
                 *cost.anchored(table, rows, columns), _cost(table), _not_measured(every)]
        write_atomically(folder / "throughput.md", _joined(parts))
        write_atomically(folder / "throughput.csv", pivot_as_csv(
            pivot(table, "sample_images_per_second", rows, columns)))


def sheets(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], facts: Facts) -> Iterator[
        tuple[quality.Sheet, pandas.DataFrame]]:
    """Each column's sheet with its rows, the Fréchet distance first;
    rows that do not compare, such as those of two data sets, are on different sheets.
    """
    for column in sorted((c for c in facts.columns if c in table), key=lambda c: not is_distance(c)):
        there = counted(table, column)
        same = [name for name in facts.columns[column]["same"] if name in table]
        for _, part in there.groupby(same, sort=False, dropna=False):
            yield quality.sheet(part, column, facts.columns[column]["better"], facts.records, rows, columns,
                                facts.baseline), part


def caption(table: pandas.DataFrame, sheets: list[quality.Sheet]) -> str:
    """Text on what the numbers of a table of quality are: features, images, seeds, intervals."""
    there = table[table[sheets[0].column].notna()]
    first, lines = there.iloc[0], []
    if "reference_count" in there and pandas.notna(first["reference_count"]):
        lines.append(f"Features: `{first['extractor']}` (weights `{first['extractor_key']}`). "
                     + ("**This is not FID**: the features are not Inception's, and the values compare only within "
                        "tables of these weights. "
                        if is_distance(sheets[0].column) and sheets[0].column != "fid" else "")
                     + f"{first['sample_count']} generated images a row, {first['reference_count']} reference images.")
    bases = dict.fromkeys(mean.basis for mean in sheets[0].means.values())
    seeds = max((len(mean.seeds) for mean in sheets[0].means.values()), default=1)
    what = {True: "the value without the bias of finitely many samples", False: "the value"}[
        sheets[0].quantity.is_debiased
    ]
    lines.append(("Each entry is the mean over seeds, never the best of them" if seeds > 1
                  else "Each entry is of one seed")
                 + f": {what}, and in brackets its 95 % interval ({'; '.join(bases)}).")
    return "\n\n".join(lines)


def caveat(sheets: list[quality.Sheet]) -> str:
    """Text on what no interval or p of a table covers; "" where each configuration was trained several times."""
    return (
        "One training each: says nothing of other trainings. Intervals and p are of these weights."
        if all(s.has_one_training for s in sheets)
        else ""
    )


def floors(s: quality.Sheet, part: pandas.DataFrame, real: RealImages) -> list[str]:
    """Lines on the values of real images in a column: of those nobody has seen, and of those of the training."""
    lines = []
    for name, values in real.held_out.items():
        dataset = name.rpartition(":")[0]
        if s.column not in values or dataset.partition("(")[0] != part["dataset"].iloc[0]:
            continue
        lines.append(
            f"**{BETTER[s.better][1]}**: held-out real images of {dataset}, measured in the same way, are at "
            f"{_of_real(s, values)}."
        )
        if s.column in (copies := real.training.get(name, {})):
            lines[-1] += (
                f" **Copies**: training images themselves are at {_of_real(s, copies)}. A model that only repeats them "
                "would be there; `near_copy_share` and `authenticity` tell it."
            )
    return lines


def held_out(real: RealImages, s: quality.Sheet, part: pandas.DataFrame) -> Number | None:
    """The value of held-out real images in the quantity of a sheet; None where there is none."""
    for name, values in real.held_out.items():
        if name.rpartition(":")[0].partition("(")[0] == part["dataset"].iloc[0] and s.column in values:
            return s.quantity.number(values)
    return None


def _of_real(s: quality.Sheet, values: Mapping[str, float]) -> str:
    """A value of real images in the quantity of the rows, with its own interval: '0.76 (0.5 to 1.02);
    1.52 (conventional, biased)'.
    """
    quantity = s.quantity
    number, conventional = quantity.number(values), f"{values[s.column]:.3g} {CONVENTIONAL}"
    if number is None:
        return f"{ABSENT}; {conventional}"
    text = f"{number.debiased:.3g}" + ("" if math.isnan(number.low) else f" ({number.low:.3g} to {number.high:.3g})")
    return (
        f"{text}; {conventional}" if quantity.is_debiased else f"{text} {CONVENTIONAL}" if quantity.is_biased else text
    )


def _values(all_sheets: list[tuple[quality.Sheet, pandas.DataFrame]]) -> pandas.DataFrame:
    """fid.csv: a line for each configuration, the shown quantity with its own interval,
    and the conventional value in a column of its own.
    """
    lines = []
    for s, part in all_sheets:
        for key in s.configurations:
            mean = s.means.get(key)
            lines.append(
                {
                    "dataset": part["dataset"].iloc[0],
                    **dict(zip(s.naming, key, strict=True)),
                    "nfe": nfe.span(s.nfe[key]),
                    s.quantity.name: math.nan if mean is None else mean.debiased,
                    f"{s.column}_low": math.nan if mean is None else mean.low,
                    f"{s.column}_high": math.nan if mean is None else mean.high,
                }
                | ({s.quantity.conventional: s.conventional[key]} if s.conventional else {})
            )
    return pandas.DataFrame(lines)


def _title(s: quality.Sheet, part: pandas.DataFrame, sheets: list[tuple[quality.Sheet, pandas.DataFrame]]) -> str:
    """'`fd_pixels_debiased`, lower is better', and of which data set and how many samples
    where a column has several sheets.
    """
    several = sum(other.column == s.column for other, _ in sheets) > 1
    return f"## `{s.quantity.name}`, {BETTER[s.better][0]}" + (
        f": {part['dataset'].iloc[0]}, {part['sample_count'].iloc[0]} samples a row" if several else ""
    )


def _cost(table: pandas.DataFrame) -> str:
    """Section on the cost of one network evaluation, by backbone."""
    measured = table[table["parameters"].notna()]
    naming = ["backbone", *(c for c in table.columns if c.startswith("backbone."))]
    return "## Cost of a network\n\n" + markdown(*cost.networks(named(measured, naming), naming))


def _not_measured(table: pandas.DataFrame) -> str:
    """Every cell without a value, with its reason."""
    bad = table[table["status"] != "ok"]
    if bad.empty:
        return ""
    naming = ["backbone", "noise_schedule", "conditioning", *more_kinds(bad), "scheduler"]
    body = [[r["cell_id"], r["status"], ", ".join(r[k] for k in naming), r["reason"]]
            for r in named(bad, naming).to_dict("records")]
    return f"## Not measured\n\n{markdown(['cell', 'status', 'what', 'why'], body)}"


def _remove(folder: Path, *names: str) -> None:
    """Files that an earlier state of the rows left, and that this one has nothing for."""
    for name in names:
        (folder / name).unlink(missing_ok=True)


def _joined(parts: list[str]) -> bytes:
    return encoded("\n\n".join(p for p in parts if p) + "\n")
