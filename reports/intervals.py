"""Figures of intervals: differences, values of every seed, and resolution by the number of seeds.

Used by the notebooks.
"""

from __future__ import annotations

import drawing
import figures
import matplotlib.pyplot as plt
import paired
import pandas as pd

LINES_OF_TABLE = 40                   # of one figure of intervals
MOST_SEEDS = 10                       # that `resolution` shows


def differences(effects: pd.DataFrame, lower_is_better: bool = True) -> plt.Figure:
    """A table of `paired.effects` or `paired.versus_best` as intervals; filled where significant (Holm, 5 %)."""
    measured = effects[effects["mean"].notna()]
    if measured.empty:
        raise figures.NothingToDraw("no two rows differ in one thing alone")
    drawn = measured.head(LINES_OF_TABLE).iloc[::-1].reset_index(drop=True)
    figure, panel = plt.subplots(figsize=(7.5, 1.2 + 0.3 * max(3, len(drawn))), layout="constrained")
    naming = list(drawn.columns[: list(drawn.columns).index("mean")])
    names = [f"{r['axis']}: {r['level']}" if "axis" in r else "; ".join(str(r[c]) for c in naming)
             for r in drawn.to_dict("records")]
    labels = [f"{name} · NFE {r['nfe']}" + (f" − {r['versus']}" if "axis" in r else "") for name,
              r in zip(names, drawn.to_dict("records"), strict=True)]
    for is_sure, part in drawn.groupby(drawn["p_holm"] < 0.05):
        panel.errorbar(part["mean"], part.index, xerr=drawing.bars(part), fmt="o", color=drawing.COLOURS[0],
                       mfc=drawing.COLOURS[0] if is_sure else "white", capsize=3,
                       label="significant" if is_sure else "cannot tell")
    panel.axvline(0, color="0.35", lw=1)
    panel.set_yticks(range(len(drawn)), [drawing.plain(text) for text in labels])
    side = "left" if lower_is_better else "right"
    panel.set(ylim=(-0.6, len(drawn) - 0.4),
              xlabel=drawing.plain(f"difference of {effects.attrs['quantity']} with its 95 % interval\n({side} of 0 is "
                                   "better)"))
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    if len(measured) > len(drawn):
        panel.set_title(f"the first {len(drawn)} of {len(measured)}")
    return figure


def by_seed(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """The value of every seed, a line for each configuration, with mean and 95 % interval; the best 40 at most."""
    column = column or figures.distance_column(rows)
    ok = figures.trained_rows(rows, column)
    values, axes = paired.numbers(ok, column)
    means = paired.means(ok, column).sort_values("mean", ascending=not higher_is_better, ignore_index=True)
    drawn = means.head(LINES_OF_TABLE).iloc[::-1].reset_index(drop=True)
    figure, panel = plt.subplots(figsize=(7.5, 1.4 + 0.3 * max(3, len(drawn))), layout="constrained")
    panel.errorbar(drawn["mean"], drawn.index, xerr=drawing.bars(drawn), fmt="|", ms=11, color="0.35", capsize=3,
                   label="mean and 95 % interval")
    place = drawn.reset_index(names="place")
    points = values.merge(place[[*axes, "place"]], on=axes) if axes else values.assign(place=0)
    styles = drawing.styles(sorted(points["seed"].unique()), line=False)
    for seed, part in points.groupby("seed"):
        panel.plot(part["value"], part["place"] + 0.12, label=f"seed {seed}", **styles[seed] | {"ms": 5})
    panel.set_yticks(range(len(drawn)), [drawing.plain(f"{'; '.join(r[a] for a in axes)} · NFE {r['nfe']}")
                                         for r in drawn.to_dict("records")] if axes else [""])
    panel.set(ylim=(-0.6, len(drawn) - 0.2), xlabel=drawing.plain(figures.axis_label(column, rows, higher_is_better)))
    panel.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    if len(means) > len(drawn):
        panel.set_title(f"the best {len(drawn)} of {len(means)}")
    return figure


def resolution(rows: pd.DataFrame, column: str | None = None, higher_is_better: bool = False) -> plt.Figure:
    """Half the width of a 95 % interval against the number of seeds, by the spread over seeds in these results.

    Needs at least two seeds; raises NothingToDraw otherwise.
    """
    column = column or figures.distance_column(rows)
    values, axes = paired.numbers(figures.trained_rows(rows, column), column)
    by_seed = {key: values.loc[index].groupby("seed")["value"].mean() for key,
               index in paired.configurations(values, axes)}
    if max(len(y) for y in by_seed.values()) < 2:
        raise figures.NothingToDraw("one seed does not tell how far seeds spread: run the matrix with seed: [0, 1, 2]")
    best = (max if higher_is_better else min)(by_seed, key=lambda key: by_seed[key].mean())
    other_values = [y for key, y in by_seed.items() if key != best]
    spreads = {"a difference, paired by seed": [(y - by_seed[best]).dropna().var() for y in other_values],
               "a difference of unpaired seeds": [y.var() + by_seed[best].var() for y in other_values],
               "a mean": [y.var() for y in by_seed.values()]}
    figure, panel = plt.subplots(figsize=(6.5, 4), layout="constrained")
    counts = list(range(2, MOST_SEEDS + 1))
    for (name, style), variances in zip(drawing.styles(spreads).items(), spreads.values(), strict=True):
        variance = pd.Series(variances, dtype=float).mean()
        if variance > 0:
            panel.plot(counts, [paired.t_quantile(n - 1) * (variance / n) ** 0.5 for n in counts], label=name, **style)
    panel.set(xlabel="seeds",
              ylabel=drawing.plain(f"half width of the 95 % interval, "
                                   f"{paired.quantity(figures.trained_rows(rows, column), column)}"), xticks=counts)
    drawing.logarithmic(panel, "y")
    panel.grid(alpha=0.3, which="both")
    panel.legend(frameon=False, title="interval of")
    return figure
