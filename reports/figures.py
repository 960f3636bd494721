"""What the notebooks share: reading a results file, the two tables, and a figure of quality against cost. Pandas and matplotlib only."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

AXES = ["dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing"]


def read(path: str | Path) -> pd.DataFrame:
    """results.parquet, results.csv or the folder that holds them; one row per cell."""
    path = Path(path)
    if path.is_dir():
        path = path / "results.parquet" if (path / "results.parquet").exists() else path / "results.csv"
    if path.suffix == ".csv":
        return pd.read_csv(path, keep_default_na=False, na_values=[""])      # `none` is a name, not a missing value
    return pd.read_parquet(path)


def distance_column(rows: pd.DataFrame) -> str:
    """The Fréchet distance: `fid` for Inception features, `fd_<extractor>` for others."""
    return next(c for c in rows.columns if c == "fid" or (c.startswith("fd_") and not c.endswith(("_debiased", "_low", "_high"))))


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


def quality_against_nfe(rows: pd.DataFrame) -> plt.Figure:
    """Fréchet distance against network evaluations per image, one panel per backbone, one colour per scheduler; whiskers are the
    95 % interval of the debiased value, moved to the value shown."""
    value = distance_column(rows)
    ok = rows[(rows["status"] == "ok") & (rows["train_steps"] > 0)]
    backbones = list(ok["backbone"].unique())
    figure, panels = plt.subplots(1, len(backbones), figsize=(5.2 * len(backbones), 4), sharey=True, squeeze=False, layout="constrained")
    colours = {name: f"C{i}" for i, name in enumerate(ok["scheduler"].unique())}
    for panel, backbone in zip(panels[0], backbones, strict=True):
        for scheduler, part in ok[ok["backbone"] == backbone].groupby("scheduler", sort=False):
            half = (part[f"{value}_high"] - part[f"{value}_low"]) / 2 if f"{value}_low" in part else None
            panel.errorbar(part["nfe"], part[value], yerr=half, fmt="o", ms=5, capsize=2, alpha=0.8, color=colours[scheduler], label=scheduler)
        panel.set(title=backbone, xlabel="network evaluations per image (NFE)", xscale="log", yscale="log")
        for axis in (panel.xaxis, panel.yaxis):               # 40 and 6, not powers of ten
            axis.set_major_formatter("{x:g}")
            axis.set_minor_formatter("{x:g}")
        panel.grid(alpha=0.3, which="both")
    panels[0, 0].set_ylabel(f"{value} (lower is better)")
    panels[0, -1].legend(title="scheduler", frameon=False)
    return figure
