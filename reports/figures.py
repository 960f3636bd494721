"""Reading of results, tables, and figures of quality and cost. Used by the notebooks. Pandas and matplotlib only."""

from __future__ import annotations

from pathlib import Path

import drawing
import matplotlib.pyplot as plt
import paired
import pandas as pd

PANELS = 12                           # of one figure


class NothingToDraw(ValueError):
    """Raised where the results lack what a figure shows."""


def read(path: str | Path) -> pd.DataFrame:
    """The rows of results.parquet, results.csv or the folder that holds them, one for each cell."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.parquet" if (path / "results.parquet").exists() else path / "results.csv"
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])      # `none` is a name, not a missing value
    return pd.read_parquet(path)


def distance_column(rows: pd.DataFrame) -> str:
    """The column of the Fréchet distance: `fid` or `fd_<extractor>`. Raises NothingToDraw where none was measured."""
    distances = [c for c in rows.columns if c == "fid"
                 or (c.startswith("fd_") and not c.endswith(("_debiased", "_low", "_high", "_no_interval")))]
    with_values = [c for c in distances if rows.loc[rows["status"] == "ok", c].notna().any()]
    if not with_values:
        raise NothingToDraw("these results have no Fréchet distance: name another column, such as class_accuracy")
    return with_values[0]


def varying(rows: pd.DataFrame) -> list[str]:
    """The columns in which cells differ, apart from seeds, schedulers and their options."""
    options = [c for c in rows.columns if "." in c and not c.startswith("scheduler.")]
    return [c for c in [*paired.component_columns(rows), *options] if c != "scheduler"
            and rows[c].nunique(dropna=False) > 1]


def table(rows: pd.DataFrame, value: str) -> pd.DataFrame:
    """A column as a pivot table: schedulers, steps and NFE across, other varied columns down, means over seeds."""
    ok = rows[rows["status"] == "ok"]
    value = paired.quantity(ok, value)
    down = varying(ok) or ["backbone"]
    labelled = ok.assign(**{c: ok[c].astype(object).where(ok[c].notna(), "-") for c in down})
    labelled["NFE"] = labelled.groupby(["scheduler", "steps"], sort=False)["nfe"].transform(paired.span)
    return labelled.pivot_table(index=down, columns=["scheduler", "steps", "NFE"], values=value, aggfunc="mean",
                                sort=False)


def quality_against_nfe(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Quality against network evaluations per image: a line for each scheduler, a panel for each other configuration.

    At most 12 panels are drawn.
    Points are means over seeds of the quantity that is ranked, bars their 95 % intervals. Schedulers are
    moved aside by a hair, so that bars of one NFE do not hide each other.
    """
    column = column or distance_column(rows)
    ok = trained_rows(rows, column)
    words = paired.levels(ok)
    others = [axis for axis in words if axis != "scheduler"]
    panel_of = words[others].agg("\n".join, axis=1) if others else pd.Series("", index=ok.index)
    configurations, title = _best_panels(ok[paired.quantity(ok, column)].groupby(panel_of, sort=False).mean(),
                                         higher_is_better)
    figure, panels = drawing.panels(len(configurations))
    styles = drawing.styles(ok["scheduler"].unique())
    is_positive = True
    for panel, name in zip(panels, configurations, strict=True):
        configuration = ok[panel_of == name]
        for i, (scheduler, part) in enumerate(configuration.groupby("scheduler", sort=False)):
            points = [{"nfe": same["nfe"].mean(), **paired.estimate(paired.numbers(same, column)[0])}
                      for _, same in part.groupby(_options(part, "scheduler"))]
            line_points = pd.DataFrame(points).sort_values("nfe")
            is_positive &= line_points["mean"].min() > 0
            panel.errorbar(line_points["nfe"] * 1.025**i, line_points["mean"], yerr=drawing.bars(line_points),
                           capsize=2, label=drawing.plain(scheduler), **styles[scheduler])
        panel.set(title=drawing.plain(name), xlabel="network evaluations per image (NFE)")
    for panel in panels:
        for which in ("x", "y") if is_positive else ("x",):
            drawing.logarithmic(panel, which)
        panel.label_outer()
    figure.supylabel(drawing.plain(axis_label(column, rows, higher_is_better)), fontsize="medium")
    drawing.legend(figure, panels)
    figure.suptitle(title)
    return figure


def cost(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> pd.DataFrame:
    """The quality of each configuration, its sampling time in ms per image, and whether no other is better in both.

    A configuration that was not timed is left out; raises NothingToDraw where none was.
    """
    column = column or distance_column(rows)
    ok = trained_rows(rows, column).dropna(subset=["sample_images_per_second"])
    if ok.empty:
        raise NothingToDraw("nothing was timed: `throughput` in the matrix says what is")
    quality = paired.means(ok, column)
    axes = list(paired.levels(ok))
    words = paired.levels(ok).assign(ms=1e3 / ok["sample_images_per_second"], noisy=paired.noisy(ok, "sample"),
                                     scheduler_name=ok["scheduler"])
    for name, end in (("ms_low", "high"), ("ms_high", "low")):
        words[name] = (1e3 / ok[f"sample_images_per_second_{end}"] if f"sample_images_per_second_{end}" in ok
                       else float("nan"))
    how = {"ms": "median", "ms_low": "median", "ms_high": "median", "noisy": "any", "scheduler_name": "first"}
    times = words.groupby(axes or (lambda _: 0), sort=False).agg(how).reset_index(drop=not axes)
    quality_and_times = quality.merge(times, on=axes) if axes else pd.concat([quality, times], axis=1)
    loss = -quality_and_times["mean"] if higher_is_better else quality_and_times["mean"]
    is_beaten = [((quality_and_times["ms"] < ms) & (loss <= own) | (quality_and_times["ms"] <= ms) & (loss < own)).any()
                 for ms, own in zip(quality_and_times["ms"], loss, strict=True)]
    is_best_value = [not beaten for beaten in is_beaten]
    return quality_and_times.assign(is_best_value=is_best_value).sort_values("ms", ignore_index=True)


def quality_against_cost(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Quality against sampling time per image. The line is the Pareto front.

    Upright bars: 95 % intervals. Level bars: quartiles of the laps. Hollow: the timing was noisy.
    """
    column = column or distance_column(rows)
    points = cost(rows, column, higher_is_better)
    figure, panel = plt.subplots(figsize=(7.5, 5.2), layout="constrained")
    for scheduler, style in drawing.styles(points["scheduler_name"].unique(), line=False).items():
        part = points[points["scheduler_name"] == scheduler]
        panel.errorbar(part["ms"], part["mean"], yerr=drawing.bars(part), fmt="none", ecolor=style["color"],
                       elinewidth=0.8, capsize=2)
        if part["ms_low"].notna().all():
            laps = [part["ms"] - part["ms_low"], part["ms_high"] - part["ms"]]
            panel.errorbar(part["ms"], part["mean"], xerr=laps, fmt="none", ecolor=style["color"], elinewidth=0.8)
        for is_noisy, some in part.groupby("noisy"):
            panel.plot(some["ms"], some["mean"], **style | {"mfc": "white" if is_noisy else style["color"]})
        panel.plot([], [], label=drawing.plain(scheduler), **style)
    front = points[points["is_best_value"]]
    axes = list(points.columns[: list(points.columns).index("mean")])
    panel.step([*front["ms"], 1.15 * points["ms"].max()], [*front["mean"], front["mean"].iloc[-1]], where="post",
               color="black", lw=2.5, alpha=0.35,
               zorder=3, label="no other is better\nand faster")
    for number, (_, row) in enumerate(front.iterrows(), start=1):
        panel.annotate(str(number), (row["ms"], row["mean"]), xytext=(5, 5), textcoords="offset points", fontsize=9,
                       fontweight="bold")
    legend_lines = [f"{number}: {'; '.join(str(row[c]) for c in axes)} · NFE {row['nfe']}" for number,
                    (_, row) in enumerate(front.iterrows(), start=1)]
    figure.supxlabel(drawing.plain("\n".join(legend_lines)), fontsize=8, x=0.02, ha="left")
    if points["noisy"].any():
        panel.plot([], [], "o", mfc="white", mec="0.35", label="noisy timing")
    panel.set(xlabel="sampling time per image, ms", ylabel=drawing.plain(axis_label(column, rows, higher_is_better)))
    drawing.logarithmic(panel, "x")
    if points["mean"].min() > 0:
        drawing.logarithmic(panel, "y")
    figure.legend(loc="outside right upper", frameon=False, title="scheduler")
    return figure


def enough(rows: pd.DataFrame, column: str, within: float = 0.10) -> pd.DataFrame:
    """The fewest evaluations with which each scheduler comes within a share of the best mean of its configuration.

    NaN where a scheduler does not come so near. By means alone: it says nothing of how sure they are.
    """
    ok = trained_rows(rows, column)
    words = paired.levels(ok)
    others = [axis for axis in words if axis != "scheduler"]
    labelled = words[others].assign(scheduler=ok["scheduler"], nfe=ok["nfe"], value=ok[paired.quantity(ok, column)])
    means = labelled.groupby([*others, "scheduler", "nfe"], sort=False)["value"].mean().reset_index()
    best = means.groupby(others, sort=False)["value"].transform("min") if others else means["value"].min()
    near = means.assign(nfe=means["nfe"].where(means["value"] <= (1 + within) * best),
                        configuration=means[others].agg("; ".join, axis=1) if others else "all")
    return near.groupby(["configuration", "scheduler"], sort=False)["nfe"].min().unstack()


def trained_rows(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The rows that are ok, have a value and a trained network."""
    is_trained = rows["train_steps"].isna() | (rows["train_steps"] > 0)       # given weights count as trained
    return rows[(rows["status"] == "ok") & rows[column].notna() & is_trained]


def _options(part: pd.DataFrame, kind: str) -> list[str]:
    return [c for c in part.columns if c.startswith(f"{kind}.") and part[c].notna().all()] or ["steps"]


def _best_panels(means: pd.Series, higher_is_better: bool) -> tuple[list[str], str | None]:
    """(names of the panels to draw, in order; the title where others are left out)."""
    if len(means) <= PANELS:
        return list(means.index), None
    best = set(means.sort_values(ascending=not higher_is_better).index[:PANELS])
    return [name for name in means.index if name in best], f"the best {PANELS} of {len(means)} configurations"


def axis_label(column: str, rows: pd.DataFrame, higher_is_better: bool) -> str:
    return (f"{paired.quantity(rows[rows['status'] == 'ok'], column)} ({'higher' if higher_is_better else 'lower'} is "
            "better)")
