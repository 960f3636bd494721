"""fid.md and throughput.md: pivot tables with intervals, whose captions say what the numbers are."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas

from diffbench.report import cost
from diffbench.store import write_atomically

STEPS = ("steps", "scheduler.steps")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a caption needs beside the frame."""

    name: str
    floors: dict[str, dict[str, float]]       # "dataset:column" -> values of held-out real images
    machine: dict[str, Any]
    copies: dict[str, dict[str, float]] = field(default_factory=dict)         # the same of training images


def write(folder: Path, table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], facts: Facts) -> None:
    """fid.md/.csv and throughput.md/.csv of a run."""
    distance = distance_column(table)
    if distance is not None:
        parts = [f"# Fréchet distance, {facts.name}", _distance_caption(table, distance, facts),
                 _section(table, distance, rows, columns, _with_interval(distance), f"`{distance}`, lower is better", best=min)]
        if "class_accuracy" in table:
            parts.append(_section(table, "class_accuracy", rows, columns, _share, "`class_accuracy`, higher is better", best=max))
        parts.append(_not_measured(table))
        write_atomically(folder / "fid.md", _joined(parts))
        write_atomically(folder / "fid.csv", pivot(table, distance, rows, columns).to_csv().encode())
    if table["sample_images_per_second"].notna().any():
        parts = [f"# Throughput, {facts.name}", cost.caption(table, facts.machine),
                 _section(table, "sample_images_per_second", rows, columns, cost.rate("sample_images_per_second"),
                          "`sample_images_per_second`, higher is better", best=max),
                 _section(table, "sample_images_per_anchor", rows, columns, cost.relative(table),
                          "Speed as a share of the fastest, by laps of an anchor timed in turns with each: what to compare, for the machine drifts", best=max),
                 _cost(table), _not_measured(table)]
        write_atomically(folder / "throughput.md", _joined(parts))
        write_atomically(folder / "throughput.csv", pivot(table, "sample_images_per_second", rows, columns).to_csv().encode())


def distance_column(table: pandas.DataFrame) -> str | None:
    """The Fréchet distance's column: `fid` for Inception features, `fd_<extractor>` for others."""
    return next((c for c in table.columns if c == "fid" or (c.startswith("fd_") and not c.endswith(("_debiased", "_low", "_high")))), None)


def layout(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(row columns, column columns): as asked, and whatever else differs between cells joins the rows, so that only seeds are averaged."""
    sides = [[_real(name, table) for name in side] for side in (rows, columns)]
    kept = [[name for name in side if name in table.columns] for side in sides]
    more = [name for name in table.columns
            if ("." in name or name in ("dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing", "scheduler"))
            and name not in (*kept[0], *kept[1]) and name != "scheduler.steps" and table[name].nunique(dropna=False) > 1]
    if "steps" not in kept[0] + kept[1] and table.groupby(kept[0] + kept[1] + more, dropna=False)["steps"].nunique().max() > 1:
        more.append("steps")
    return kept[0] + more, kept[1]


def pivot(table: pandas.DataFrame, value: str, rows: tuple[str, ...], columns: tuple[str, ...]) -> pandas.DataFrame:
    """Mean of a column over seeds, laid out as asked."""
    across, down = layout(table, rows, columns)[1], layout(table, rows, columns)[0]
    shown = _named(table[table[value].notna()], across + down)
    return shown.pivot_table(index=down, columns=across, values=value, aggfunc="mean", sort=False, dropna=False).dropna(how="all").dropna(how="all", axis=1)


def _section(table: pandas.DataFrame, value: str, rows: tuple[str, ...], columns: tuple[str, ...],
             show: Callable[[pandas.DataFrame], str], title: str, best: Callable[..., float]) -> str:
    """One pivot as Markdown, each entry shown from the rows behind it, the best in bold."""
    down, across = layout(table, rows, columns)
    shown = _named(table[table[value].notna()], across + down)
    if shown.empty:
        return f"## {title}\n\nNothing was measured."
    means = shown.groupby(across + down, sort=False)[value].mean()
    winner = best(means)
    texts = {key: f"**{show(part)}**" if math.isclose(part[value].mean(), winner) else show(part) for key, part in shown.groupby(across + down, sort=False)}
    heads, lines = list(dict.fromkeys(key[: len(across)] for key in texts)), list(dict.fromkeys(key[len(across):] for key in texts))
    body = [[*line, *(texts.get(head + line, "") for head in heads)] for line in lines]
    titles = [*down, *(" ".join(map(str, head)) for head in heads)]
    return f"## {title}\n\n{markdown(titles, body)}"


def markdown(titles: list[str], body: list[list[Any]]) -> str:
    """A Markdown table; '|' in a text is escaped."""
    from tabulate import tabulate

    clean = [[str(entry).replace("|", "\\|").replace("\n", " ") for entry in line] for line in body]
    return tabulate(clean, headers=[t.replace("|", "\\|") for t in titles], tablefmt="pipe", disable_numparse=True)


def _with_interval(column: str) -> Callable[[pandas.DataFrame], str]:
    """'12.3 (debiased 11.8, 11.2 to 12.4)' for one seed; 'mean ± half-width over n seeds' for several."""
    def show(part: pandas.DataFrame) -> str:
        if len(part) > 1:
            return f"{part[column].mean():.3g} ± {_half_width(part[column]):.2g}"
        one = part.iloc[0]
        if pandas.isna(one.get(f"{column}_low")):
            return f"{one[column]:.3g}"
        return f"{one[column]:.3g} ({one[f'{column}_low']:.3g} to {one[f'{column}_high']:.3g})"
    return show


def _share(part: pandas.DataFrame) -> str:
    value = part["class_accuracy"]
    return f"{100 * value.mean():.1f} %" + (f" ± {100 * _half_width(value):.1f}" if len(part) > 1 else "")


def _half_width(values: pandas.Series) -> float:
    """Half of a 95 % t-interval of the mean."""
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))


def _distance_caption(table: pandas.DataFrame, distance: str, facts: Facts) -> str:
    ok = table[table[distance].notna()]
    first = ok.iloc[0] if len(ok) else table.iloc[0]
    seeds = ok["seed"].nunique()
    lines = [f"Features: `{first['extractor']}` (weights `{first['extractor_key']}`). "
             + ("" if distance == "fid" else "**This is not FID**: the features are not Inception's, and the values compare only within "
                "tables of these weights. ")
             + f"{first['sample_count']} generated images a row, {first['reference_count']} reference images."]
    one_seed = ("Each entry is the conventional, biased value; in brackets the 95 % interval of its debiased value (block jackknife over the "
                "generated images).")
    lines.append(one_seed if seeds <= 1 else f"Each entry is the mean over {seeds} seeds with the half-width of its 95 % t-interval.")
    for name, values in facts.floors.items():
        dataset, _, column = name.rpartition(":")
        if column == distance:
            low, high = values.get(f"{column}_low"), values.get(f"{column}_high")
            interval = "" if low is None else f"; debiased {values[f'{column}_debiased']:.3g} ({low:.3g} to {high:.3g})"
            lines.append(f"**Floor**: held-out real images of {dataset}, measured in the same way, are at {values[column]:.3g}{interval}.")
            if name in facts.copies:
                lines.append(f"**Copies**: training images themselves are at {facts.copies[name][column]:.3g}. A model that only repeats them would be there; "
                             "`near_copy_share` and `authenticity` tell it.")
        elif column == "class_accuracy":
            lines.append(f"The judge of class accuracy puts {100 * values[column]:.1f} % of held-out real images of {dataset} in their class.")
    return "\n\n".join(lines)


def _cost(table: pandas.DataFrame) -> str:
    """What one network evaluation costs, by backbone."""
    measured = table[table["parameters"].notna()]
    naming = ["backbone", *(c for c in table.columns if c.startswith("backbone."))]
    return "## Cost of a network\n\n" + markdown(*cost.networks(_named(measured, naming), naming))


def _not_measured(table: pandas.DataFrame) -> str:
    """Every cell without a value, with its reason."""
    bad = table[table["status"] != "ok"]
    if bad.empty:
        return ""
    body = [[r["cell_id"], r["status"], ", ".join(r[k] for k in ("backbone", "noise_schedule", "conditioning", "scheduler")), r["reason"]]
            for _, r in bad.iterrows()]
    return f"## Not measured\n\n{markdown(['cell', 'status', 'what', 'why'], body)}"


def _real(name: str, table: pandas.DataFrame) -> str:
    """'scheduler.steps' is the column 'steps', which every scheduler has."""
    return "steps" if name in STEPS else name


def _named(table: pandas.DataFrame, names: list[str]) -> pandas.DataFrame:
    """Empty entries of the naming columns as '-', so that they group and print."""
    shown = table.copy()
    for name in names:
        shown[name] = shown[name].map(lambda v: "-" if v is None or (isinstance(v, float) and math.isnan(v)) else f"{v:g}" if isinstance(v, float) else str(v))
    return shown


def _joined(parts: list[str]) -> bytes:
    return ("\n\n".join(p for p in parts if p) + "\n").encode()
