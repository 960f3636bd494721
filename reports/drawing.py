"""Elements of figures that also read in black and white: panels, styles, axes, legends. Used by `figures`."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd

# Okabe & Ito's colours without yellow, which white paper swallows; each comes with a marker and a line of its own.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000"]
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
LINES = ["-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1))]


def panels(count: int) -> tuple[plt.Figure, list[plt.Axes]]:
    across = min(count, 4 if count > 6 else 3 if count not in (2, 4) else 2)
    down = -(-count // across)
    width = 3.1 if across > 2 else 4.2
    figure, axes = plt.subplots(down, across, figsize=(width * across + 1.2, 3.1 * down + 0.5), sharex=True,
                                sharey=True,
                                squeeze=False, layout="constrained")
    for empty in axes.ravel()[count:]:
        empty.remove()
    return figure, list(axes.ravel()[:count])


def styles(names: object, line: bool = True) -> dict[object, dict[str, object]]:
    """Colour, marker and line by name, so that names differ in hue, shape and dashes."""
    return {name: {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "ls": LINES[i % len(LINES)]
                   if line else "", "ms": 6, "lw": 1.3}
            for i, name in enumerate(names)}


def bars(points: pd.DataFrame) -> list[pd.Series]:
    """Distances to both ends of the intervals; NaN where there is no interval."""
    return [(points["mean"] - points["low"]).clip(lower=0), (points["high"] - points["mean"]).clip(lower=0)]


def logarithmic(panel: plt.Axes, which: str) -> None:
    """Sets a logarithmic axis with labels such as 40 and 6, not powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis = panel.xaxis if which == "x" else panel.yaxis
    (panel.set_xscale if which == "x" else panel.set_yscale)("log")
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 6, 8) if high / low < 8 else (1, 2, 5)
                                      if high / low < 200 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())
    panel.grid(alpha=0.3, which="major")


def legend(figure: plt.Figure, panels: list[plt.Axes]) -> None:
    entries = {label: handle for panel in panels for handle, label in zip(*panel.get_legend_handles_labels(),
                                                                          strict=True)}
    figure.legend(entries.values(), entries.keys(), loc="outside right upper", frameon=False, title="scheduler")


def plain(text: object) -> str:
    """The text with dollar signs escaped, which would set mathematics."""
    return str(text).replace("$", r"\$")
