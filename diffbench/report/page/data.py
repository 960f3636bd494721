"""Content of report.html as plain data: every number and sentence of it, and nothing of how it looks. Used by the page.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pandas

from diffbench.errors import Damaged, DiffbenchError
from diffbench.report import captions, cost, effects, quality, quality_text, tables
from diffbench.report.layout import layout, named, short_names, worded
from diffbench.report.page.shapes import Axis, Cost, Curve, Difference, Entry, Facts, Sheet
from diffbench.report.reading import Source
from diffbench.results import nfe
from diffbench.results.frame import counted, is_trained, more_kinds
from diffbench.results.quantity import ABSENT
from diffbench.stats.over_seeds import Estimate, holm
from diffbench.store.artefacts import Store

Key = tuple[str, ...]                 # values of the naming columns
CURVE_POINTS = 150                    # of one training
SIGNIFICANT = 0.05
RATE = cost.RATE


@dataclass(frozen=True, kw_only=True)
class Configurations:
    """What was measured, seeds apart, in the order of the results: the lines of the page's tables."""

    naming: list[str]                 # columns in which configurations differ, or all where there is one
    same: dict[str, str]              # naming columns in which none differs
    keys: dict[Key, int] = field(default_factory=dict)    # by values of `naming`, the place
    of_cell: dict[str, int] = field(default_factory=dict)
    words: list[list[str]] = field(default_factory=list)           # of each configuration, by naming column: 'ddim',
                                                                   # 'steps 20', or '' where it has none
    labels: list[str] = field(default_factory=list)
    facts: list[Facts] = field(default_factory=list)


def configurations(source: Source) -> Configurations:
    """Of all rows that are ok."""
    ok = counted(source.rows)
    if ok.empty:
        return Configurations(naming=[], same={})
    down, across = layout(ok, source.layout.rows, source.layout.columns)
    in_words = named(ok, down + across)
    telling = [name for name in down + across if in_words[name].nunique() > 1] or ["backbone"]
    result = Configurations(naming=telling, same={name: in_words[name].iloc[0] for name in down + across
                                                  if name not in telling})
    for cell_id, key in zip(ok["cell_id"], in_words[telling].itertuples(index=False, name=None), strict=True):
        result.of_cell[cell_id] = result.keys.setdefault(key, len(result.keys))
    for _, part in ok.groupby(ok["cell_id"].map(result.of_cell)):
        scale = part["guidance_scale"].iloc[0]
        result.facts.append({"nfe": float(part["nfe"].mean()), "scale": None if pandas.isna(scale) else float(scale),
                            "scheduler": part["scheduler"].iloc[0],
                            "trained": bool(is_trained(part).all()), "cells": list(part["cell_id"])})
    short = short_names(telling)
    differ = len({f["nfe"] for f in result.facts}) > 1
    for key, place in result.keys.items():
        result.words.append([worded(name, value) for name, value in zip(short, key, strict=True)])
        label = ", ".join(filter(None, result.words[-1])) or "-"
        result.labels.append(
            " · ".join(filter(None, (label, nfe.spelt([result.facts[place]["nfe"]]) if differ else ""))))
    return result


def of_sheets(source: Source, lines: Configurations) -> list[Sheet]:
    """Each column of quality: its entries by configuration, what others are compared with, its axes,
    what the data can tell.
    """
    contents = []
    for i, (sheet, rows) in enumerate(source.sheets):
        place = dict(zip(named(rows, sheet.naming)[sheet.naming].itertuples(index=False, name=None),
                         rows["cell_id"].map(lines.of_cell), strict=True))
        adjusted = dict(zip(sheet.to_reference, holm([d.p for d in sheet.to_reference.values()]), strict=True))
        entries = {int(place[key]): _entry(sheet, key, adjusted) for key in sheet.configurations}
        has_it = rows["cell_id"].map(lambda i, s=sheet: s.quantity.number(source.records[i]) is not None)
        ranked = rows[is_trained(rows) & has_it]
        first = rows.iloc[0]
        contents.append({
            "id": f"sheet{i}", "column": sheet.column, "name": sheet.quantity.name, "better": sheet.better,
            "title": f"{sheet.quantity.name} ({tables.BETTER[sheet.better][0]})",
            "conventional": sheet.quantity.conventional if sheet.conventional else None,
            "of": f"{first['dataset']}, {first['sample_count']} samples a row",
            "metric": source.columns[sheet.column]["metric"], "entries": entries,
            "best": None if sheet.best is None else int(place[sheet.best]),
            "reference": None if sheet.reference is None else int(place[sheet.reference]),
            "is_baseline": sheet.is_baseline, "are_equal": sheet.are_equal, "said": quality_text.summary(sheet),
            "real": tables.floors(sheet, rows, source.real), "floor": _floor(source, sheet, rows),
            "axes": [_axis(axis, sheet.better) for axis in effects.axes(
                ranked, sheet.quantity, sheet.better, source.records)]
            if sheet.better and len(ranked) else []})
    columns = [s["column"] for s in contents]
    for s in contents:
        if columns.count(s["column"]) > 1:
            s["title"] += f": {s['of']}"
    return contents


def of_costs(source: Source, lines: Configurations) -> list[Cost]:
    """Measured costs, by configuration and run: one timing serves all seeds,
    and those of different runs do not compare.
    """
    timed = counted(source.rows, RATE)
    costs = []
    for label, part in timed.groupby("run", sort=False) if "run" in timed else [("", timed)]:
        fastest = part[cost.ANCHORED].max() if cost.ANCHORED in part else math.nan
        for place, same in part.groupby(part["cell_id"].map(lines.of_cell), sort=True):
            row = same.iloc[0].to_dict()
            more = {title: {"value": _number(row[column] * cost.scale(column)),
                            "text": form.format(row[column] * cost.scale(column)),
                            "noisy": bool(cost.mark(row, column))}
                    for column, title, form in cost.PARTS if column in row and pandas.notna(row[column])}
            share = row[cost.ANCHORED] / fastest if cost.ANCHORED in row else math.nan
            costs.append({"c": int(place), "run": str(label), "rate": _number(row[RATE]),
                          "low": _number(row[f"{RATE}_low"]),
                          "high": _number(row[f"{RATE}_high"]), "share": _number(share),
                          "noisy": bool(cost.mark(row, RATE)), "more": more})
    fastest = {label: max(entry["rate"] for entry in costs if entry["run"] == label)
               for label in {entry["run"] for entry in costs}}
    return [entry | {"best": entry["rate"] == fastest[entry["run"]]} for entry in costs]


def contradictions(source: Source, lines: Configurations) -> list[str]:
    """By run, the timings that images per second and images per anchor order differently."""
    rows = source.rows
    timed = rows[(rows["status"] == "ok") & rows[RATE].notna()]
    sentences = []
    for label, part in timed.groupby("run", sort=False) if "run" in timed else [("", timed)]:
        named_rows = [(lines.labels[lines.of_cell[row["cell_id"]]], row) for row in part.to_dict("records")]
        sentences.append((f"{label}: " if label else "", cost.contradiction(named_rows)))
    return [label + sentence for label, sentence in sentences if sentence]


def headline(sheets: list[Sheet], costs: list[Cost], lines: Configurations) -> list[str]:
    """The result in a few sentences; what wins on each axis stands in a table beside them."""
    sentences = []
    ranked = next((s for s in sheets if s["better"]), None)
    if ranked is not None and ranked["best"] is not None:
        best = ranked["entries"][ranked["best"]]
        may = sum(e["may"] for e in ranked["entries"].values())
        others = sum(e["value"] is not None for e in ranked["entries"].values()) - 1
        of_others = "" if ranked["is_baseline"] else (
            f" {may} of the {others} others cannot be told from it." if may
            else " The data tell it from each of the others." if others > 0 else "")
        lacking = sum(e["value"] is None for e in ranked["entries"].values())
        of_others += f" Not ranked: {_count(lacking, 'configuration')} without a `{ranked['name']}`." if lacking else ""
        sentences.append(f"Best by `{ranked['name']}` ({tables.BETTER[ranked['better']][0]}): "
                         f"**{lines.labels[ranked['best']]}**, at {text_of(best)}.{of_others}")
    elif ranked is not None and ranked["are_equal"] and len(ranked["entries"]) > 1:
        sentences.append(f"All rows have the same numbers in `{ranked['name']}`.")
    for run in dict.fromkeys(entry["run"] for entry in costs):
        fastest = [entry for entry in costs if entry["run"] == run and entry["best"]]
        entry, where = fastest[0], f" in {run}" if run else ""
        also = len(fastest) - 1
        sentences.append(f"Fastest{where}: **{lines.labels[entry['c']]}**, at {entry['rate']:.4g} images per second"
                         + (", a noisy timing" if entry["noisy"] else "")
                         + (f"; {_count(also, 'other configuration')} of the same network and sampler "
                            f"{'has' if also == 1 else 'have'} this timing."
                            if also else "."))
    return sentences


def curves(source: Source, store: Store) -> list[Curve]:
    """The loss of each training that the store still has:
    the steps, and the mean loss of the steps since the point before.
    """
    drawn, seen = [], set()
    for run in source.runs:
        with suppress(DiffbenchError):
            plan = run.plan
            for key, stage in plan.get("stages", {}).items():
                if stage["name"] != "train" or key in seen:
                    continue
                seen.add(key)
                with suppress(Damaged, OSError, KeyError):
                    facts = store.read_json("train", key, "facts.json")
                    losses, each = facts["losses"], facts["steps_per_loss"]
                    if losses:
                        width = -(-len(losses) // CURVE_POINTS)
                        chunks = [losses[i:i + width] for i in range(0, len(losses), width)]
                        ends = [min((i + 1) * width, len(losses)) * each for i in range(len(chunks))]
                        drawn.append({"label": stage["label"], "key": key[:12], "steps": ends,
                                      "loss": [sum(chunk) / len(chunk) for chunk in chunks]})
    again = [c["label"] for c in drawn]
    for c in drawn:                                       # trainings that differ in an option which labels leave out
        if again.count(c["label"]) > 1:
            c["label"] += f" ({c['key']})"
    return drawn


def not_measured(source: Source) -> list[dict[str, str]]:
    """Every cell without a value, with its reason."""
    bad = source.rows[source.rows["status"] != "ok"]
    naming = [name for name in ("dataset", "backbone", "noise_schedule", "conditioning", *more_kinds(bad), "scheduler",
                                "steps", "seed") if name in bad]
    in_words = named(bad, naming)
    return [{"cell": str(row["cell_id"]), "status": str(row["status"]), "reason": str(row["reason"]),
             "what": ", ".join(f"{name} {row[name]}" if name in ("steps", "seed") else row[name]
                               for name in naming if row[name] != "-")}
            for row in in_words.to_dict("records")]


def caption(source: Source) -> str:
    """Text on what the numbers of quality are; "" where there are none."""
    return tables.caption(counted(source.rows), [sheet for sheet, _ in source.sheets]) if source.sheets else ""


def caveat(source: Source) -> str:
    """Text on what no interval or p of the page covers."""
    return tables.caveat([sheet for sheet, _ in source.sheets]) if source.sheets else ""


def copies(source: Source) -> str:
    """Text on how near rows come to copies of the training images."""
    return captions.copies(counted(source.rows))


def text_of(entry: Entry) -> str:
    """'12.3 (11.2 to 12.4)', as the tables of the run print it; '—' for a configuration that lacks the quantity."""
    if entry["value"] is None:
        return ABSENT
    return (f"{entry['value']:.3g}" if entry["low"] is None
            else f"{entry['value']:.3g} ({entry['low']:.3g} to {entry['high']:.3g})")


def _entry(sheet: quality.Sheet, key: Key, adjusted: Mapping[Key, float]) -> Entry:
    mean, d = sheet.means.get(key), sheet.to_reference.get(key)
    others = {"conventional": sheet.conventional.get(key), "versus": None if d is None
              else _difference(d, adjusted[key])}
    if mean is None:
        return {"value": None, "low": None, "high": None, "seeds": 0, "basis": "", "best": False, "may": False,
                "why": sheet.lacking[key], **others}
    has_interval = not math.isnan(mean.standard_error)
    return {"value": mean.debiased, "low": mean.low if has_interval else None,
            "high": mean.high if has_interval else None, "seeds": len(mean.seeds),
            "basis": mean.basis, "best": key == sheet.best, "may": key in sheet.may_be_best, "why": "", **others}


def _difference(d: Estimate, p: float) -> Difference:
    has_interval = not math.isnan(d.standard_error)
    return {"difference": d.debiased, "low": d.low if has_interval else None, "high": d.high if has_interval else None,
            "p": _number(p)}


def _axis(axis: effects.Axis, better: str) -> Axis:
    levels = []
    for e in axis.effects:
        estimate, worse = {"difference": None, "low": None, "high": None, "p": None}, (None, None, None)
        if e.difference is not None:
            estimate = _difference(e.difference, e.p)
            worse = tuple(map(_number, quality.worse_by(e.difference, better)))
        sure = estimate["p"] is not None and estimate["p"] < SIGNIFICANT
        levels.append({"level": e.level, "nfe": nfe.spelt(e.nfe), "unequal": e.unequal_nfe,
                      "configurations": e.configurations, "may": e.may_be_best,
                      "sure": sure, "worse_by": worse[0], "worse_low": None if estimate["low"] is None else worse[1],
                      "worse_high": None if estimate["high"] is None else worse[2]} | estimate)
    return {"name": axis.name, "best": axis.best, "nfe": nfe.spelt(axis.nfe), "effects": levels}


def _floor(source: Source, sheet: quality.Sheet, rows: pandas.DataFrame) -> float | None:
    number = tables.held_out(source.real, sheet, rows)
    return None if number is None else _number(number.debiased)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
