"""What the notebooks share: reading results, tables, and figures that also read in black and white. Pandas and matplotlib only."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import paired
import pandas as pd

AXES = ["dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing"]
# Okabe & Ito's colours without yellow, which white paper swallows; each comes with a marker and a line of its own.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]
PANELS = 12                           # of one figure
LINES_OF_TABLE = 40                   # of one figure of intervals


class NothingToDraw(ValueError):
    """The results lack what a figure shows."""


def read(path: str | Path) -> pd.DataFrame:
    """results.parquet, results.csv or the folder that holds them; one row per cell."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.parquet" if (path / "results.parquet").exists() else path / "results.csv"
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])      # `none` is a name, not a missing value
    return pd.read_parquet(path)


def distance_column(rows: pd.DataFrame) -> str:
    """The Fréchet distance: `fid` for Inception features, `fd_<extractor>` for others. Raises NothingToDraw where nobody measured one."""
    found = [c for c in rows.columns if c == "fid" or (c.startswith("fd_") and not c.endswith(("_debiased", "_low", "_high")))]
    measured = [c for c in found if rows[c].notna().any()]
    if not measured:
        raise NothingToDraw("these results have no Fréchet distance: name another column, such as class_accuracy")
    return measured[0]


def varying(rows: pd.DataFrame) -> list[str]:
    """The columns that tell cells apart, seeds, schedulers and their options left out."""
    options = [c for c in rows.columns if "." in c and not c.startswith("scheduler.")]
    return [c for c in [*AXES, *options] if c in rows and rows[c].nunique(dropna=False) > 1]


def table(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A column as a pivot table: schedulers and steps across, what else varies down, mean over seeds."""
    ok = rows[rows["status"] == "ok"]
    down = varying(ok) or ["backbone"]
    shown = ok.assign(**{c: ok[c].astype(object).where(ok[c].notna(), "-") for c in down})
    return shown.pivot_table(index=down, columns=["scheduler", "steps"], values=value, aggfunc="mean", sort=False)


def quality_against_nfe(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Quality against network evaluations per image: a line for each scheduler, a panel for each configuration of the rest, of which at most 12 are shown.

    Points are means over seeds without the bias of finitely many samples, bars their 95 % intervals. Schedulers are
    moved aside by a hair, so that bars of one NFE do not hide each other.
    """
    column = column or distance_column(rows)
    ok = _trained(rows, column)
    words = paired.levels(ok)
    others = [axis for axis in words if axis != "scheduler"]
    panel_of = words[others].agg("\n".join, axis=1) if others else pd.Series("", index=ok.index)
    chosen, said = _best_panels(ok[column].groupby(panel_of, sort=False).mean(), higher_is_better)
    figure, panels = _panels(len(chosen))
    styles = _styles(ok["scheduler"].unique())
    is_positive = True
    for panel, name in zip(panels, chosen, strict=True):
        here = ok[panel_of == name]
        for i, (scheduler, part) in enumerate(here.groupby("scheduler", sort=False)):
            points = [{"nfe": same["nfe"].mean(), **paired.estimate(paired.numbers(same, column)[0])} for _, same in part.groupby(_options(part, "scheduler"))]
            drawn = pd.DataFrame(points).sort_values("nfe")
            is_positive &= drawn["debiased"].min() > 0
            panel.errorbar(drawn["nfe"] * 1.025**i, drawn["debiased"], yerr=_bars(drawn), capsize=2, label=_plain(scheduler), **styles[scheduler])
        panel.set(title=_plain(name), xlabel="network evaluations per image (NFE)")
    for panel in panels:
        for which in ("x", "y") if is_positive else ("x",):
            _logarithmic(panel, which)
        panel.label_outer()
    figure.supylabel(_plain(_named(column, rows, higher_is_better)), fontsize="medium")
    _legend(figure, panels, "scheduler")
    figure.suptitle(said)
    return figure


def cost(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> pd.DataFrame:
    """Each configuration's quality, its mean over seeds, beside its sampling time in ms per image, and whether no other is both better and faster.

    A configuration that was not timed is left out; raises NothingToDraw where none was.
    """
    column = column or distance_column(rows)
    ok = _trained(rows, column).dropna(subset=["sample_images_per_second"])
    if ok.empty:
        raise NothingToDraw("nothing was timed: `throughput` in the matrix says what is")
    found = paired.means(ok, column)
    axes = list(paired.levels(ok))
    is_noisy = ok["sample_noisy"].fillna(False).astype(bool) if "sample_noisy" in ok else False
    words = paired.levels(ok).assign(ms=1e3 / ok["sample_images_per_second"], noisy=is_noisy, nfe=ok["nfe"], scheduler_name=ok["scheduler"])
    for name, end in (("ms_low", "high"), ("ms_high", "low")):
        words[name] = 1e3 / ok[f"sample_images_per_second_{end}"] if f"sample_images_per_second_{end}" in ok else float("nan")
    how = {"ms": "median", "ms_low": "median", "ms_high": "median", "noisy": "any", "nfe": "mean", "scheduler_name": "first"}
    timed = words.groupby(axes or (lambda _: 0), sort=False).agg(how).reset_index(drop=not axes)
    both = found.merge(timed, on=axes) if axes else pd.concat([found, timed], axis=1)
    loss = -both["debiased"] if higher_is_better else both["debiased"]
    is_beaten = [((both["ms"] < ms) & (loss <= own) | (both["ms"] <= ms) & (loss < own)).any() for ms, own in zip(both["ms"], loss, strict=True)]
    return both.assign(is_best_value=[not beaten for beaten in is_beaten]).sort_values("ms", ignore_index=True)


def quality_against_cost(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Quality against sampling time per image; the line joins what no other configuration beats in both (Pareto front).

    Upright bars: 95 % intervals. Level bars: quartiles of the laps. Hollow: the timing was noisy.
    """
    column = column or distance_column(rows)
    points = cost(rows, column, higher_is_better)
    figure, panel = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
    for scheduler, style in _styles(points["scheduler_name"].unique(), line=False).items():
        part = points[points["scheduler_name"] == scheduler]
        panel.errorbar(part["ms"], part["debiased"], yerr=_bars(part), fmt="none", ecolor=style["color"], elinewidth=0.8, capsize=2)
        if part["ms_low"].notna().all():
            laps = [part["ms"] - part["ms_low"], part["ms_high"] - part["ms"]]
            panel.errorbar(part["ms"], part["debiased"], xerr=laps, fmt="none", ecolor=style["color"], elinewidth=0.8)
        for is_noisy, some in part.groupby("noisy"):
            panel.plot(some["ms"], some["debiased"], **style | {"mfc": "white" if is_noisy else style["color"]})
        panel.plot([], [], label=_plain(scheduler), **style)
    front = points[points["is_best_value"]]
    axes = list(points.columns[: list(points.columns).index("mean")])
    panel.step([*front["ms"], 1.15 * points["ms"].max()], [*front["debiased"], front["debiased"].iloc[-1]], where="post", color="black", lw=2.5, alpha=0.35,
               zorder=3, label="no other is better\nand faster")
    for number, (_, row) in enumerate(front.iterrows(), start=1):
        panel.annotate(str(number), (row["ms"], row["debiased"]), xytext=(5, 5), textcoords="offset points", fontsize=9, fontweight="bold")
    said = [f"{number}: {'; '.join(str(row[c]) for c in axes)}" for number, (_, row) in enumerate(front.iterrows(), start=1)]
    figure.supxlabel(_plain("\n".join(said)), fontsize=8, x=0.02, ha="left")
    if points["noisy"].any():
        panel.plot([], [], "o", mfc="white", mec="0.35", label="noisy timing")
    panel.set(xlabel="sampling time per image, ms", ylabel=_plain(_named(column, rows, higher_is_better)))
    _logarithmic(panel, "x")
    if points["debiased"].min() > 0:
        _logarithmic(panel, "y")
    figure.legend(loc="outside right upper", frameon=False, title="scheduler")
    return figure


def enough(rows: pd.DataFrame, column: str, within: float = 0.10) -> pd.DataFrame:
    """The fewest evaluations with which each scheduler's mean comes within this share of the best one of the same configuration; lower is better.

    NaN where a scheduler does not come so near. By means alone: it says nothing of how sure they are.
    """
    ok = _trained(rows, column)
    words = paired.levels(ok)
    others = [axis for axis in words if axis != "scheduler"]
    named = words[others].assign(scheduler=ok["scheduler"], nfe=ok["nfe"], value=ok[column])
    means = named.groupby([*others, "scheduler", "nfe"], sort=False)["value"].mean().reset_index()
    best = means.groupby(others, sort=False)["value"].transform("min") if others else means["value"].min()
    near = means.assign(nfe=means["nfe"].where(means["value"] <= (1 + within) * best), configuration=means[others].agg("; ".join, axis=1) if others else "all")
    return near.groupby(["configuration", "scheduler"], sort=False)["nfe"].min().unstack()


def differences(effects: pd.DataFrame, column: str, lower_is_better: bool = True) -> plt.Figure:
    """A table of `paired.effects` or `paired.versus_best` as intervals; filled where the difference is significant among so many (Holm, 5 %)."""
    known = effects[effects["debiased"].notna()]
    if known.empty:
        raise NothingToDraw("no two rows differ in one thing alone")
    shown = known.head(LINES_OF_TABLE).iloc[::-1].reset_index(drop=True)
    figure, panel = plt.subplots(figsize=(7.5, 1.2 + 0.3 * max(3, len(shown))), layout="constrained")
    naming = [c for c in shown.columns[: list(shown.columns).index("mean")] if c not in ("axis", "versus", "configurations")]
    said = [f"{r['axis']}: {r['level']} − {r['versus']}" if "axis" in r else "; ".join(str(r[c]) for c in naming) for r in shown.to_dict("records")]
    for is_sure, part in shown.groupby(shown["p_holm"] < 0.05):
        panel.errorbar(part["debiased"], part.index, xerr=_bars(part), fmt="o", color=COLOURS[0], mfc=COLOURS[0] if is_sure else "white", capsize=3,
                       label="significant" if is_sure else "cannot tell")
    panel.axvline(0, color="0.35", lw=1)
    panel.set_yticks(range(len(shown)), [_plain(text) for text in said])
    side = "left" if lower_is_better else "right"
    panel.set(ylim=(-0.6, len(shown) - 0.4), xlabel=_plain(f"difference of {column} with its 95 % interval\n({side} of 0 is better)"))
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    if len(known) > len(shown):
        panel.set_title(f"the first {len(shown)} of {len(known)}")
    return figure


def by_seed(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Every seed's value without bias, one line per configuration, sorted, with the mean and its 95 % interval; at most the best 40."""
    column = column or distance_column(rows)
    ok = _trained(rows, column)
    found, axes = paired.numbers(ok, column)
    means = paired.means(ok, column).sort_values("debiased", ascending=not higher_is_better, ignore_index=True)
    shown = means.head(LINES_OF_TABLE).iloc[::-1].reset_index(drop=True)
    figure, panel = plt.subplots(figsize=(7.5, 1.4 + 0.3 * max(3, len(shown))), layout="constrained")
    panel.errorbar(shown["debiased"], shown.index, xerr=_bars(shown), fmt="|", ms=11, color="0.35", capsize=3, label="mean and 95 % interval")
    place = shown.reset_index(names="place")
    points = found.merge(place[[*axes, "place"]], on=axes) if axes else found.assign(place=0)
    styles = _styles(sorted(points["seed"].unique()), line=False)
    for seed, part in points.groupby("seed"):
        panel.plot(part["debiased"], part["place"] + 0.12, label=f"seed {seed}", **styles[seed] | {"ms": 5})
    panel.set_yticks(range(len(shown)), [_plain("; ".join(row[:len(axes)])) for row in shown.itertuples(index=False)] if axes else [""])
    panel.set(ylim=(-0.6, len(shown) - 0.2), xlabel=_plain(_named(column, rows, higher_is_better)))
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    if len(means) > len(shown):
        panel.set_title(f"the best {len(shown)} of {len(means)}")
    return figure


def resolution(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False, most: int = 10) -> plt.Figure:
    """Half the width of a 95 % interval against the number of seeds, by the spread over seeds in these results: paired with the best, and of one mean.

    Needs at least two seeds; raises NothingToDraw otherwise.
    """
    column = column or distance_column(rows)
    found, axes = paired.numbers(_trained(rows, column), column)
    groups = [(key, found.loc[index]) for key, index in paired.configurations(found, axes)]
    by_seed = {key: part.groupby("seed")["debiased"].mean() for key, part in groups}
    if max(len(y) for y in by_seed.values()) < 2:
        raise NothingToDraw("one seed does not tell how far seeds spread: run the matrix with seed: [0, 1, 2]")
    best = (max if higher_is_better else min)(by_seed, key=lambda key: by_seed[key].mean())
    rest = [y for key, y in by_seed.items() if key != best]
    spreads = {"a difference, paired by seed": [(y - by_seed[best]).dropna().var() for y in rest],
               "a difference of unpaired seeds": [y.var() + by_seed[best].var() for y in rest], "a mean": [y.var() for y in by_seed.values()]}
    figure, panel = plt.subplots(figsize=(6.5, 4), layout="constrained")
    counts = list(range(2, most + 1))
    for (name, style), variances in zip(_styles(spreads).items(), spreads.values(), strict=True):
        variance = pd.Series(variances, dtype=float).mean()
        if variance > 0:
            panel.plot(counts, [paired.t_quantile(n - 1) * (variance / n) ** 0.5 for n in counts], label=name, **style)
    panel.set(xlabel="seeds", ylabel=_plain(f"half width of the 95 % interval, {column}"), xticks=counts)
    _logarithmic(panel, "y")
    panel.grid(alpha=0.3, which="both")
    panel.legend(frameon=False, title="interval of")
    return figure


def _trained(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Rows that are ok, have a value and are not of an untrained network."""
    return rows[(rows["status"] == "ok") & rows[column].notna() & (rows["train_steps"] > 0)]


def _options(part: pd.DataFrame, kind: str) -> list[str]:
    return [c for c in part.columns if c.startswith(f"{kind}.") and part[c].notna().all()] or ["steps"]


def _best_panels(means: pd.Series, higher_is_better: bool) -> tuple[list[str], str | None]:
    """(the panels to draw, in their order; what is said of those that are not)."""
    if len(means) <= PANELS:
        return list(means.index), None
    kept = set(means.sort_values(ascending=not higher_is_better).index[:PANELS])
    return [name for name in means.index if name in kept], f"the best {PANELS} of {len(means)} configurations"


def _panels(count: int) -> tuple[plt.Figure, list[plt.Axes]]:
    across = min(count, 4 if count > 6 else 3 if count not in (2, 4) else 2)
    down = -(-count // across)
    width = 3.1 if across > 2 else 4.2
    figure, panels = plt.subplots(down, across, figsize=(width * across + 1.2, 3.1 * down + 0.5), sharex=True, sharey=True, squeeze=False, layout="constrained")
    for empty in panels.ravel()[count:]:
        empty.remove()
    return figure, list(panels.ravel()[:count])


def _styles(names: object, line: bool = True) -> dict[object, dict[str, object]]:
    """Colour, marker and line by name: told apart by hue, by shape and by dashes."""
    return {name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ls": LINES[i % len(LINES)] if line else "", "ms": 6, "lw": 1.3}
            for i, name in enumerate(names)}


def _bars(points: pd.DataFrame) -> list[pd.Series]:
    """Distances to both ends of the intervals; none where there is no interval."""
    return [(points["debiased"] - points["low"]).clip(lower=0), (points["high"] - points["debiased"]).clip(lower=0)]


def _logarithmic(panel: plt.Axes, which: str) -> None:
    """A logarithmic axis that says 40 and 6, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8) if high / low < 8 else (1, 2, 5) if high / low < 200 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3, which="major")


def _named(column: str, rows: pd.DataFrame, higher_is_better: bool) -> str:
    what = f"{column}, without bias" if f"{column}_debiased" in rows else column
    return f"{what} ({'higher' if higher_is_better else 'lower'} is better)"


def _legend(figure: plt.Figure, panels: list[plt.Axes], title: str) -> None:
    entries = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False, title=title)


def _plain(text: object) -> str:
    """A dollar sign stays one: mathematics would be set between two."""
    return str(text).replace("$", r"\$")
