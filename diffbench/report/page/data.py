"""What the page of results says, as plain data: every number and sentence of it, and nothing of how it looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pandas

from diffbench.comparing import Estimate, holm
from diffbench.errors import Damaged, DiffbenchError
from diffbench.report import captions, cost, effects, quality, tables
from diffbench.report.layout import layout, named
from diffbench.report.reading import Source
from diffbench.store import Store

Key = tuple[str, ...]                 # values of the naming columns
CURVE_POINTS = 150                    # of one training
SIGNIFICANT = 0.05
RATE = "sample_images_per_second"


@dataclass(frozen=True, kw_only=True)
class Configurations:
    """What was measured, seeds apart, in the order of the results: the lines of the page's tables."""

    naming: list[str]                 # columns in which configurations differ, or all where there is one
    same: dict[str, str]              # naming columns in which none differs
    keys: dict[Key, int] = field(default_factory=dict)    # by values of `naming`, the place
    of_cell: dict[str, int] = field(default_factory=dict)
    words: list[list[str]] = field(default_factory=list)           # of each configuration, by naming column: 'ddim', 'steps 20', or '' where it has none
    labels: list[str] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)      # nfe, guidance scale, steps, whether the network was trained, its cells


def configurations(source: Source) -> Configurations:
    """Of all rows that are ok."""
    ok = source.rows[source.rows["status"] == "ok"]
    if ok.empty:
        return Configurations(naming=[], same={})
    down, across = layout(ok, source.layout.rows, source.layout.columns)
    shown = named(ok, down + across)
    telling = [name for name in down + across if shown[name].nunique() > 1] or ["backbone"]
    found = Configurations(naming=telling, same={name: shown[name].iloc[0] for name in down + across if name not in telling})
    for cell_id, key in zip(ok["cell_id"], shown[telling].itertuples(index=False, name=None), strict=True):
        found.of_cell[cell_id] = found.keys.setdefault(key, len(found.keys))
    for _, part in ok.groupby(ok["cell_id"].map(found.of_cell)):
        scale = part["guidance_scale"].iloc[0]
        found.facts.append({"nfe": float(part["nfe"].mean()), "scale": None if pandas.isna(scale) else float(scale), "scheduler": part["scheduler"].iloc[0],
                            "trained": bool((part["train_steps"] > 0).all()), "cells": list(part["cell_id"])})
    last = [name.rpartition(".")[2] for name in telling]
    short = [end if last.count(end) == 1 else name for end, name in zip(last, telling, strict=True)]
    for key in found.keys:
        found.words.append([_word(name, value) for name, value in zip(short, key, strict=True)])
        found.labels.append(", ".join(filter(None, found.words[-1])) or "-")
    return found


def of_sheets(source: Source, lines: Configurations) -> list[dict[str, Any]]:
    """Each column of quality: its entries by configuration, what others are compared with, its axes, what the data can tell."""
    found = []
    for i, (sheet, rows) in enumerate(source.sheets):
        place = dict(zip(named(rows, sheet.naming)[sheet.naming].itertuples(index=False, name=None), rows["cell_id"].map(lines.of_cell), strict=True))
        best = quality.best_of(sheet.means, sheet.better) if sheet.better and not sheet.are_equal else None
        adjusted = dict(zip(sheet.to_reference, holm([d.p for d in sheet.to_reference.values()]), strict=True))
        entries = {int(place[key]): _entry(mean) | {"best": key == best, "may": key in sheet.may_be_best} | _versus(sheet, key, adjusted)
                   for key, mean in sheet.means.items()}
        trained = rows[rows["train_steps"] > 0]
        first = rows.iloc[0]
        found.append({
            "id": f"sheet{i}", "column": sheet.column, "better": sheet.better, "title": f"{sheet.column} ({tables.BETTER[sheet.better][0]})",
            "of": f"{first['dataset']}, {first['sample_count']} samples a row", "metric": source.columns[sheet.column]["metric"], "entries": entries,
            "best": None if best is None else int(place[best]), "reference": None if sheet.reference is None else int(place[sheet.reference]),
            "is_baseline": sheet.is_baseline, "are_equal": sheet.are_equal, "said": quality.summary(sheet), "real": tables.floors(sheet, rows, source.real),
            "floor": _floor(source, sheet.column, first["dataset"]),
            "axes": [_axis(axis) for axis in effects.axes(trained, sheet.column, sheet.better, source.records)] if sheet.better and len(trained) else []})
    columns = [s["column"] for s in found]
    for s in found:
        if columns.count(s["column"]) > 1:
            s["title"] += f": {s['of']}"
    return found


def of_costs(source: Source, lines: Configurations) -> list[dict[str, Any]]:
    """What was timed, by configuration and run: one timing serves all seeds, and those of different runs do not compare."""
    rows = source.rows
    timed = rows[(rows["status"] == "ok") & rows[RATE].notna()]
    found = []
    for label, part in timed.groupby("run", sort=False) if "run" in timed else [("", timed)]:
        fastest = part["sample_images_per_anchor"].max() if "sample_images_per_anchor" in part else math.nan
        for place, same in part.groupby(part["cell_id"].map(lines.of_cell), sort=True):
            row = same.iloc[0]
            noisy = row.get("sample_noisy")
            more = {title: _number(row[column] * cost.scale(column)) for column, title, _ in cost.PARTS if column in row and pandas.notna(row[column])}
            found.append({"c": int(place), "run": str(label), "rate": _number(row[RATE]), "low": _number(row[f"{RATE}_low"]), "more": more,
                          "high": _number(row[f"{RATE}_high"]), "share": _number(row["sample_images_per_anchor"] / fastest),
                          "noisy": bool(noisy) if noisy is not None and pandas.notna(noisy) else False})
    fastest = {label: max(entry["rate"] for entry in found if entry["run"] == label) for label in {entry["run"] for entry in found}}
    return [entry | {"best": entry["rate"] == fastest[entry["run"]]} for entry in found]


def headline(sheets: list[dict[str, Any]], costs: list[dict[str, Any]], lines: Configurations) -> list[str]:
    """The result in a few sentences; what wins on each axis stands in a table beside them."""
    said = []
    ranked = next((s for s in sheets if s["better"]), None)
    if ranked is not None and ranked["best"] is not None:
        best = ranked["entries"][ranked["best"]]
        may = sum(e["may"] for e in ranked["entries"].values())
        others = len(ranked["entries"]) - 1
        told = "" if ranked["is_baseline"] else (
            f" {may} of the {others} others cannot be told from it." if may else " The data tell it from each of the others." if others > 0 else "")
        said.append(f"Best by `{ranked['column']}` ({tables.BETTER[ranked['better']][0]}): **{lines.labels[ranked['best']]}**, at {text_of(best)}.{told}")
    elif ranked is not None and ranked["are_equal"] and len(ranked["entries"]) > 1:
        said.append(f"All rows have the same numbers in `{ranked['column']}`.")
    for run in dict.fromkeys(entry["run"] for entry in costs):
        fastest = [entry for entry in costs if entry["run"] == run and entry["best"]]
        entry, where = fastest[0], f" in {run}" if run else ""
        said.append(f"Fastest{where}: **{lines.labels[entry['c']]}**, at {entry['rate']:.4g} images per second" + (", a noisy timing" if entry["noisy"] else "")
                    + (f"; {len(fastest) - 1} others share the timing." if len(fastest) > 1 else "."))
    return said


def curves(source: Source, store: Store) -> list[dict[str, Any]]:
    """The loss of each training that the store still has: the steps, and the mean loss of the steps since the point before."""
    found, seen = [], set()
    for run in source.runs:
        with suppress(DiffbenchError):
            plan = run.plan()
            for key, stage in plan["stages"].items():
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
                        found.append({"label": stage["label"], "key": key[:12], "steps": ends, "loss": [sum(chunk) / len(chunk) for chunk in chunks]})
    again = [c["label"] for c in found]
    for c in found:                                       # trainings that differ in an option which labels leave out
        if again.count(c["label"]) > 1:
            c["label"] += f" ({c['key']})"
    return found


def not_measured(source: Source) -> list[dict[str, str]]:
    """Every cell without a value, with its reason."""
    bad = source.rows[source.rows["status"] != "ok"]
    naming = [name for name in ("dataset", "backbone", "noise_schedule", "conditioning", "scheduler", "steps", "seed") if name in bad]
    shown = named(bad, naming)
    return [{"cell": str(row["cell_id"]), "status": str(row["status"]), "reason": str(row["reason"]),
             "what": ", ".join(f"{name} {row[name]}" if name in ("steps", "seed") else row[name] for name in naming if row[name] != "-")}
            for row in shown.to_dict("records")]


def environments(source: Source) -> list[dict[str, Any]]:
    """By run: what its numbers depend on, and the lines that repeat it."""
    return [_environment(run, label) for run, label in zip(source.runs, source.labels, strict=True)]


def caption(source: Source) -> str:
    """What the numbers of quality are; "" where there are none."""
    return tables.caption(source.rows, [sheet for sheet, _ in source.sheets]) if source.sheets else ""


def copies(source: Source) -> str:
    """How near rows come to copies of the training images."""
    return captions.copies(source.rows)


def text_of(entry: Mapping[str, Any]) -> str:
    """'12.3 (11.2 to 12.4)', as the tables of the run print it."""
    return f"{entry['value']:.3g}" if entry["low"] is None else f"{entry['value']:.3g} ({entry['low']:.3g} to {entry['high']:.3g})"


def _environment(run: Any, label: str) -> dict[str, Any]:
    facts = run.environment
    machine, git = facts.get("machine") or {}, facts.get("git") or {}
    shown = {"folder": str(run.folder), "machine": ", ".join(f"{k} {v}" for k, v in machine.items()), "Python": facts.get("python"),
             "platform": facts.get("platform"), "GPUs": ", ".join(gpu.get("name", "") for gpu in facts.get("gpus") or []),
             "memory": f"{facts['memory_bytes'] / 1e9:.3g} GB" if "memory_bytes" in facts else None,
             "torch settings": ", ".join(f"{k} {v}" for k, v in (facts.get("settings") or {}).items()),
             "variables": ", ".join(f"{k}={v}" for k, v in (facts.get("variables") or {}).items())}
    for owner, state in git.items():
        if state:
            shown[f"commit of {owner}"] = f"{state['commit']}{' with changes' if state.get('is_dirty') else ''}"
    packages = facts.get("packages") or {}
    return {"label": label, "facts": {k: str(v) for k, v in shown.items() if v}, "packages": packages, "matrix": run.matrix,
            "command": " ".join(facts.get("command") or []), "folder": str(run.folder)}


def _entry(mean: Estimate) -> dict[str, Any]:
    known = not math.isnan(mean.standard_error)
    return {"value": mean.value, "debiased": mean.debiased, "low": mean.low if known else None, "high": mean.high if known else None, "seeds": len(mean.seeds),
            "basis": mean.basis}


def _versus(sheet: quality.Sheet, key: Key, adjusted: Mapping[Key, float]) -> dict[str, Any]:
    d = sheet.to_reference.get(key)
    return {"versus": None if d is None else _difference(d, adjusted[key])}


def _difference(d: Estimate, p: float) -> dict[str, Any]:
    known = not math.isnan(d.standard_error)
    return {"difference": d.debiased, "low": d.low if known else None, "high": d.high if known else None, "p": _number(p)}


def _axis(axis: effects.Axis) -> dict[str, Any]:
    found = []
    for e in axis.effects:
        told = _difference(e.difference, e.p) if e.difference is not None else {"difference": None, "low": None, "high": None, "p": None}
        sure = told["p"] is not None and told["p"] < SIGNIFICANT
        found.append({"level": e.level, "configurations": e.configurations, "may": e.may_be_best, "sure": sure} | told)
    return {"name": axis.name, "best": axis.best, "effects": found}


def _floor(source: Source, column: str, dataset: str) -> float | None:
    for name, values in source.real.held_out.items():
        if name.rpartition(":")[0].partition("(")[0] == dataset and column in values:
            return _number(values.get(f"{column}_debiased", values[column]))
    return None


def _word(name: str, value: str) -> str:
    """'ddim', but 'steps 20': a bare number says nothing."""
    return "" if value == "-" else f"{name} {value}" if value.replace(".", "").replace("-", "").isdigit() else value


def _number(value: Any) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None
