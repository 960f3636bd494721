"""What throughput.md says: rates with the mark of noise, speeds freed from drift, and the cost of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pandas

from diffbench import costs

MARK = " †"                           # behind a figure whose timing was noisy
PARTS = (("parameters", "parameters", "{:,.0f}"), ("gmac_per_nfe", "GMAC per NFE", "{:.4g}"), ("seconds_per_nfe", "ms per NFE and batch", "{:.3g}"),
         ("network_seconds_per_nfe", "of them in the network", "{:.3g}"), ("scheduler_seconds_per_step", "ms per step and batch outside it", "{:.3g}"),
         ("train_images_per_second", "training images per second", "{:.0f}"), ("peak_memory_bytes", "peak MB sampling", "{:.0f}"),
         ("train_peak_memory_bytes", "peak MB training", "{:.0f}"), ("energy_joules", "J per image", "{:.3g}"))
SCALE = {"seconds": 1e3, "bytes": 1e-6}                   # of a column, by a word in its name: to ms, to MB


def caption(table: pandas.DataFrame, machine: dict[str, Any]) -> str:
    """How the figures were measured, and how many of them not to trust."""
    timed = table[table["sample_images_per_second"].notna()]
    sizes = ", ".join(str(size) for size in sorted(timed["throughput_batch_size"].dropna().unique()))
    said = (f"Images per second of whole sampler runs, guidance included, batches of {sizes}: median and quartiles of repeated laps after warm-up, device to "
            f"itself, synchronised. Machine: {', '.join(f'{k} {v}' for k, v in machine.items())}. Figures of different machines do not compare.")
    noisy = int(timed["sample_noisy"].fillna(False).sum()) if "sample_noisy" in timed else 0
    if noisy:
        said += (f"\n\n**{noisy} of {len(timed)} timings are noisy**, marked{MARK}: their laps spread by more than {100 * costs.NOISY_SPREAD:.0f} % of the "
                 "median, or others used the machine meanwhile; `speed_remark` in the results says which. Measure them again on a quiet machine before "
                 "comparing them.")
    return said


def rate(column: str) -> Callable[[pandas.DataFrame], str]:
    """'120 (118 to 125)': median and quartiles; marked where the timing was noisy."""
    def show(part: pandas.DataFrame) -> str:
        first = part.iloc[0]
        return f"{first[column]:.0f} ({first[f'{column}_low']:.0f} to {first[f'{column}_high']:.0f}){_mark(first)}"
    return show


def relative(table: pandas.DataFrame) -> Callable[[pandas.DataFrame], str]:
    """'0.53': speed as a share of the fastest's, both in units of the anchor that was timed beside them."""
    fastest = table["sample_images_per_anchor"].max()
    return lambda part: f"{part['sample_images_per_anchor'].iloc[0] / fastest:.2f}{_mark(part.iloc[0])}"


def networks(measured: pandas.DataFrame, naming: list[str]) -> tuple[list[str], list[list[str]]]:
    """(titles, body): what one network evaluation costs, by the columns that name a backbone; columns that nothing was measured for are left out."""
    said: dict[tuple[str, ...], dict[str, str]] = {}
    for key, title, value, form in network_numbers(measured, naming):
        said.setdefault(key, {})[title] = form.format(value)
    titles = [title for _, title, _ in PARTS if any(title in texts for texts in said.values())]
    return [*naming, *titles], [[*key, *(texts.get(title, "") for title in titles)] for key, texts in said.items()]


def network_numbers(measured: pandas.DataFrame, naming: list[str]) -> Iterator[tuple[tuple[str, ...], str, float, str]]:
    """(values of the naming columns, title, median over the rows, its format) of each number that was measured."""
    for key, part in measured.groupby(naming, sort=False):
        for column, title, form in PARTS:
            if column in part and part[column].notna().any():
                yield key, title, part[column].dropna().astype("float64").median() * scale(column), form


def scale(column: str) -> float:
    """What a column is multiplied by to be in the unit of its title."""
    return next((factor for word, factor in SCALE.items() if word in column and "per_second" not in column), 1.0)


def _mark(row: pandas.Series) -> str:
    noisy = row.get("sample_noisy")
    return "" if noisy is None or pandas.isna(noisy) or not noisy else MARK
