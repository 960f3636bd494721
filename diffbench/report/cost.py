"""Content of throughput.md: timings with the mark of noise, speeds in units of an anchor, the cost of a network."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy
import pandas

from diffbench.report.layout import Key, laid_out, layout, named, with_nfe
from diffbench.results import speed_columns
from diffbench.results.columns import Record

RATE = "sample_images_per_second"
TRAINING = "train_images_per_second"
ANCHORED = "sample_images_per_anchor"
NAMED_PAIRS = 3                       # of those that two tables order differently
MARK = " †"                           # behind a figure whose timing was noisy
PARTS = (("parameters", "parameters", "{:,.0f}"), ("gmac_per_nfe", "GMAC per NFE", "{:.4g}"),
         ("seconds_per_nfe", "ms per NFE and batch", "{:.3g}"),
         ("network_seconds_per_nfe", "of them in the network", "{:.3g}"),
         ("scheduler_seconds_per_step", "ms per step and batch outside it", "{:.3g}"),
         ("train_images_per_second", "training images per second", "{:.0f}"),
         ("peak_memory_bytes", "peak MB sampling", "{:.0f}"),
         ("train_peak_memory_bytes", "peak MB training", "{:.0f}"), ("energy_joules", "J per image", "{:.3g}"))
SCALE = {"seconds": 1e3, "bytes": 1e-6}                   # of a column, by a word in its name: to ms, to MB


def caption(table: pandas.DataFrame, machine: dict[str, Any]) -> str:
    """Text on how the figures were measured, and how many of them not to trust."""
    timed = table[table["sample_images_per_second"].notna()]
    sizes = ", ".join(str(size) for size in sorted(timed["throughput_batch_size"].dropna().unique()))
    text = (f"Images per second of whole sampler runs, guidance included, batches of {sizes}: median and quartiles of "
            "repeated laps after warm-up, device to "
            f"itself, synchronised. Machine: {', '.join(f'{k} {v}' for k, v in machine.items())}. Figures of different "
            "machines do not compare.")
    counts = [(what, *_noisy(table, column)) for what, column in (("sampling", RATE), ("training", TRAINING))]
    if any(noisy for _, noisy, _ in counts):
        text += (
            f"\n\n**{' and '.join(f'{noisy} of {count} timings of {what}' for what, noisy, count in counts if noisy)} "
            f"are noisy**, marked{MARK}: their laps "
            f"spread by more than {100 * speed_columns.NOISY_SPREAD:.0f} % of the median, or others used the machine "
            "meanwhile; `speed_remark` in the results "
            "says which. Measure them again on a quiet machine before comparing them."
        )
    return text


def _noisy(table: pandas.DataFrame, column: str) -> tuple[int, int]:
    """(noisy timings, all timings) behind a rate; one that several rows share counts once."""
    timed = table[table[column].notna()].drop_duplicates(
        [name for name in (column, f"{column}_low", f"{column}_high") if name in table]
    )
    return sum(bool(mark(row, column)) for row in timed.to_dict("records")), len(timed)


def measured(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...]) -> str:
    """The pivot of images per second, each timing once, as Markdown."""
    times = timings(table, rows, columns)
    texts = {
        key: f"{row[RATE]:.0f} ({row[f'{RATE}_low']:.0f} to {row[f'{RATE}_high']:.0f}){mark(row, RATE)}"
        for key, row in times.rows.items()
    }
    return "\n\n".join(filter(None, (f"## `{RATE}`, higher is better", times.remark, _pivot(times, texts, RATE))))


def anchored(table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...]) -> list[str]:
    """The pivot of speeds in units of the anchor, and the pairs that it orders otherwise than images per second;
    nothing where there was no anchor.
    """
    if ANCHORED not in table or table[ANCHORED].isna().all():
        return []
    times = timings(table[table[ANCHORED].notna()], rows, columns)
    fastest = max(row[ANCHORED] for row in times.rows.values())
    texts = {key: f"{row[ANCHORED] / fastest:.2f}{mark(row, ANCHORED)}" for key, row in times.rows.items()}
    names = {key: " ".join(value for value in key if value != "-") for key in times.rows}
    return ["## Speed as a share of the fastest, by laps of an anchor timed in turns with each",
            contradiction([(names[key], row) for key, row in times.rows.items()]), _pivot(times, texts, ANCHORED)]


def contradiction(timed: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """A sentence that names the pairs of timings that images per second and images per anchor order differently; ""
    where there is none.

    timed: (what it is of, row of results). A pair counts where the quartiles of its laps do not overlap in either
    figure.
    """
    figures = (RATE, f"{RATE}_low", f"{RATE}_high", ANCHORED)
    first = {
        tuple(row.get(column) for column in figures): (name, row) for name, row in reversed(timed)
    }  # each timing once, by its first name
    complete = [
        named
        for values, named in reversed(first.items())
        if not any(value is None or pandas.isna(value) for value in values)
    ]
    if not complete:
        return ""
    rate, low, high, share = (
        numpy.array([float(row[column]) for _, row in complete])
        for column in (RATE, f"{RATE}_low", f"{RATE}_high", ANCHORED)
    )
    below, above = share * low / rate, share * high / rate                     # the anchored figure at the same laps
    pairs = [(i, int(j)) for i in range(len(complete)) for j in numpy.flatnonzero((low[i] > high) & (above[i] < below))]
    if not pairs:
        return ""
    pairs.sort(key=lambda pair: -abs(math.log(rate[pair[0]] / rate[pair[1]] * share[pair[1]] / share[pair[0]])))
    named = "; ".join(
        f"{complete[i][0]} ({rate[i]:.3g} images per second) and {complete[j][0]} ({rate[j]:.3g}), by the anchor "
        f"{share[i] / share.max():.2f} and {share[j] / share.max():.2f} of the fastest"
        for i, j in pairs[:NAMED_PAIRS]
    )
    more = f"; and {len(pairs) - NAMED_PAIRS} more" if len(pairs) > NAMED_PAIRS else ""
    return (
        f"**Images per second and images per anchor order {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} of "
        "timings differently**, by more than "
        f"their laps spread: {named}{more}. Of these, neither order is to be trusted."
    )


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The timings of a table, each once, by the naming columns in which timings differ."""

    down: list[str]
    across: list[str]
    rows: dict[Key, Record]
    nfe: dict[Key, tuple[float, ...]]
    remark: str                       # which naming columns rows share a timing over


def timings(
    table: pandas.DataFrame, rows: tuple[str, ...], columns: tuple[str, ...], apart: Sequence[str] = ()
) -> Timings:
    """The timed rows of a frame, laid out as asked, without the naming columns of rows in which no timing differs.
    apart: naming columns to keep in front.
    """
    timed = table[table[RATE].notna()]
    down, across = layout(timed, rows, columns)
    in_words = named(timed, across + down)
    figures = in_words[[RATE, f"{RATE}_low", f"{RATE}_high"]].apply(tuple, axis=1)
    shared: list[str] = []
    for name in reversed(down):
        others = [*apart, *across, *(other for other in down if other != name and other not in shared)]
        if (
            in_words[name].nunique() > 1
            and len(down) - len(shared) > 1
            and figures.groupby([in_words[o] for o in others], sort=False).nunique().max() == 1
        ):
            shared.insert(0, name)
    down = [*apart, *(name for name in down if name not in shared)]
    first: dict[Key, Record] = {}
    evaluations: dict[Key, tuple[float, ...]] = {}
    for row in in_words.to_dict("records"):
        key = tuple(row[name] for name in across + down)
        first.setdefault(key, row)
        evaluations[key] = (*evaluations.get(key, ()), row["nfe"])
    remark = f"Rows that differ in {', '.join(shared)} alone share a timing, which stands here once." if shared else ""
    return Timings(down=down, across=across, rows=first, nfe=evaluations, remark=remark)


def _pivot(times: Timings, texts: dict[Key, str], column: str) -> str:
    best = max(row[column] for row in times.rows.values())
    bold = {key: f"**{text}**" if times.rows[key][column] == best else text for key, text in texts.items()}
    return laid_out(*with_nfe(bold, times.down, times.across, times.nfe))


def networks(measured: pandas.DataFrame, naming: list[str]) -> tuple[list[str], list[list[str]]]:
    """(titles, body): what one network evaluation costs, by the columns that name a backbone;
    columns that nothing was measured for are left out.
    """
    by_network: dict[Key, dict[str, str]] = {}
    for number in network_numbers(measured, naming):
        by_network.setdefault(number.key, {})[number.title] = number.form.format(number.value) + (
            MARK if number.is_noisy else ""
        )
    titles = [title for _, title, _ in PARTS if any(title in texts for texts in by_network.values())]
    return [*naming, *titles], [[*key, *(texts.get(title, "") for title in titles)]
                                for key, texts in by_network.items()]


class NetworkNumber(NamedTuple):
    """One figure of one network: the median over the rows it was measured in."""

    key: Key                          # values of the naming columns
    title: str
    value: float
    form: str                         # its format
    is_noisy: bool                    # whether a timing behind it was


def network_numbers(measured: pandas.DataFrame, naming: list[str]) -> Iterator[NetworkNumber]:
    """Each number that was measured, network by network."""
    for key, part in measured.groupby(naming, sort=False):
        for column, title, form in PARTS:
            if column in part and part[column].notna().any():
                there = part[part[column].notna()]
                yield NetworkNumber(key, title, there[column].astype("float64").median() * scale(column), form,
                                    any(mark(row, column) for row in there.to_dict("records")))


def mark(row: Mapping[str, Any], column: str) -> str:
    """' †' where the figure of a row is of a noisy timing."""
    flags = {name: row[name] for name in (*speed_columns.FLAGS, "noisy") if name in row and not pandas.isna(row[name])}
    return MARK if speed_columns.is_noisy(flags, column) else ""


def scale(column: str) -> float:
    """Factor that brings a column to the unit of its title."""
    return next((factor for word, factor in SCALE.items() if word in column and "per_second" not in column), 1.0)
