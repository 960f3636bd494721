"""The result of a run in a dozen lines: its best rows, real images beside them, and what is not said. Printed when a
run ends.
"""

from __future__ import annotations

import math

import pandas

from diffbench.report import cost, quality, quality_text, tables
from diffbench.report.layout import named, short_names, worded
from diffbench.report.reading import Source
from diffbench.results import nfe
from diffbench.stats.numbers_of_rows import Number
from diffbench.stats.over_seeds import Estimate

MOST_ROWS = 8


def lines(source: Source) -> list[str]:
    """The answer by the first column of quality that ranks; empty where nothing was measured."""
    from tabulate import tabulate

    sheet, rows = next((pair for pair in source.sheets if pair[0].better), (None, None))
    if sheet is None or rows is None or not sheet.means:
        return []
    ranked = sorted(sheet.means, key=lambda key: sheet.means[key].debiased, reverse=sheet.better == "higher")
    rates = _rates(sheet, rows)
    body = [[_label(sheet, key), _shown(sheet.means[key]) + (quality_text.MARK if key in sheet.may_be_best else ""),
             nfe.span(sheet.nfe[key]), rates.get(key, "")] for key in ranked[:MOST_ROWS]]
    floor = tables.held_out(source.real, sheet, rows)
    body += [["held-out real images", _shown(floor), "", ""]] if floor is not None else []
    of = rows.iloc[0]
    title = (f"Best by {sheet.quantity.name}, {tables.BETTER[sheet.better][0]}; {of['dataset']}, {of['sample_count']} "
             "samples a row")
    table = tabulate(body, headers=["row", "value (95 % interval)", "NFE", "images/s"], tablefmt="simple",
                     disable_numparse=True).splitlines()
    return [title, *(f"  {line}".rstrip() for line in table), *_sentences(sheet, len(ranked) - MOST_ROWS)]


def _sentences(sheet: quality.Sheet, more: int) -> list[str]:
    sentences = [f"{quality_text.MARK.strip()} cannot be told from the best"] if sheet.may_be_best else []
    sentences += [f"{more} more rows are in fid.md"] if more > 0 else []
    if sheet.lacking and sheet.quantity.is_debiased:
        sentences.append(f"{len(sheet.lacking)} rows have no `{sheet.quantity.name}` and are not ranked: fid.md says "
                         "why")
    caveat = tables.caveat([sheet])
    return [f"  {sentence}." for sentence in sentences] + ([f"  {caveat}"] if caveat else [])


def _label(sheet: quality.Sheet, key: quality.Configuration) -> str:
    """'unet, cosine, ddim, steps 20': the naming columns in which configurations differ, options by their short names.
    """
    down_first = sorted(sheet.telling, key=lambda i: i < len(sheet.across))
    names = short_names([sheet.naming[i] for i in down_first])
    words = [worded(name, key[i]) for name, i in zip(names, down_first, strict=True)]
    return ", ".join(filter(None, words)) or "the only row"


def _rates(sheet: quality.Sheet, rows: pandas.DataFrame) -> dict[quality.Configuration, str]:
    """Images per second by configuration, where timed; a noisy timing is marked as in the tables."""
    timed = named(rows[rows[cost.RATE].notna()], sheet.naming) if cost.RATE in rows else rows.iloc[:0]
    return {tuple(row[name] for name in sheet.naming): f"{row[cost.RATE]:.4g}{cost.mark(row, cost.RATE)}"
            for row in reversed(timed.to_dict("records"))}


def _shown(value: Estimate | Number) -> str:
    has_interval = not (math.isnan(value.standard_error) or math.isnan(value.low))
    return f"{value.debiased:.3g}" + (f" ({value.low:.3g} to {value.high:.3g})" if has_interval else "")
