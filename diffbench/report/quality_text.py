"""Tables of quality as Markdown, and what their data can tell in sentences. Used by fid.md, the page and exports."""

from __future__ import annotations

import math
from statistics import fmean

from diffbench.report.layout import laid_out, markdown, with_nfe
from diffbench.report.quality import Configuration, Sheet, best_of_values, head, worse_by
from diffbench.results import nfe
from diffbench.results.quantity import ABSENT
from diffbench.stats.over_seeds import holm, pooled

MARK = " ≈"                           # behind an entry that the data cannot tell from the best
LABELS = "sample.labels"              # the naming column of the classes that are asked for


def means_of(sheet: Sheet) -> str:
    """The pivot of a sheet as Markdown: best in bold, marked what may be as good."""
    texts = {key: _entry(sheet, key) for key in sheet.configurations}
    return laid_out(*with_nfe(texts, sheet.down, sheet.across, sheet.nfe))


def conventional_of(sheet: Sheet) -> str:
    """The conventional values of a sheet of debiased ones, as a pivot of their own; "" where there are none."""
    if not sheet.conventional:
        return ""
    texts = {key: f"{value:.3g}" for key, value in sheet.conventional.items()}
    return (
        f"### `{sheet.quantity.conventional}`\n\nAs it is published elsewhere. Its bias differs from row to row, so "
        "that its order may be another one: "
        f"it is not ranked.\n\n{laid_out(*with_nfe(texts, sheet.down, sheet.across, sheet.nfe))}"
    )


def summary(sheet: Sheet) -> str:
    """Text on what the data of a sheet can tell: what is not ranked, how many comparisons, the smallest difference,
    and the spread by its source.
    """
    sentences = [*remarks(sheet)]
    surely = [d for d in sheet.to_reference.values() if not math.isnan(d.standard_error)]
    if surely and sheet.are_equal:
        return " ".join([*sentences, "All rows have the same numbers."])
    if surely:
        middle = sorted(surely, key=lambda d: d.half_width)[len(surely) // 2]
        what = "the baseline" if sheet.is_baseline else "the best"
        sentences.append(
            f"Comparisons with {what} ({head(sheet, sheet.reference)}), paired by seed: {len(surely)}, on "
            f"{middle.basis}. The median of them calls "
            f"differences above {middle.half_width:.2g} significant, alone and at 5 %, and finds a true one of "
            f"{middle.resolvable:.2g} in 80 of 100 repeats."
        )
    if sheet.may_be_best:
        sentences.append(
            f"What is marked{MARK}, {len(sheet.may_be_best)} in all, cannot be told from the best: with it they hold "
            "the truly best one in 95 % of cases, whichever it is."
        )
    spread = _spread(sheet)
    return " ".join([*sentences, spread] if spread else sentences)


def differences_of(sheet: Sheet) -> str:
    """Each row's difference to the reference as Markdown, seed by seed and in the mean."""
    if not sheet.to_reference or sheet.reference is None or sheet.are_equal:
        return ""
    adjusted = dict(zip(sheet.to_reference, holm([d.p for d in sheet.to_reference.values()]), strict=True))
    has_seeds = any(len(some) > 1 for some in sheet.by_seed.values())
    sign = -1 if sheet.better == "higher" else 1
    body = []
    for key, d in sheet.to_reference.items():
        value, low, high = worse_by(d, sheet.better)
        seeds = [", ".join(f"{sign * v:+.2g}" for v in sheet.by_seed[key].values())] if has_seeds else []
        sure = ["", ""] if math.isnan(d.standard_error) else [f"{low:+.3g} to {high:+.3g}", f"{adjusted[key]:.2g}"]
        body.append(
            [
                *(key[i] for i in sheet.telling),
                nfe.span(sheet.nfe[key]),
                *seeds,
                f"{value:+.3g}{MARK if key in sheet.may_be_best else ''}",
                *sure,
            ]
        )
    way = (
        "difference"
        if sheet.better is None
        else "worse by"
        if all(worse_by(d, sheet.better)[0] >= 0 for d in sheet.to_reference.values())
        else "worse by (below 0: better)"
    )
    titles = [
        *(sheet.naming[i] for i in sheet.telling),
        "NFE",
        *(["seed by seed"] if has_seeds else []),
        way,
        "95 % interval",
        f"p, of {len(body)} (Holm)",
    ]
    what = "baseline" if sheet.is_baseline else "best"
    note = nfe.unequal([(fmean(sheet.nfe[key]), fmean(sheet.nfe[sheet.reference])) for key in sheet.to_reference
                        if sheet.nfe[key] and sheet.nfe[sheet.reference]])
    return (f"### Differences of `{sheet.quantity.name}` to the {what}: {head(sheet, sheet.reference)}\n\n"
            + (f"This {note}.\n\n" if note else "") + markdown(titles, body))


def remarks(sheet: Sheet) -> list[str]:
    """Sentences a reader needs on the quantity of a sheet, and on rows that were asked for other labels."""
    sentences, reasons = [], "; ".join(dict.fromkeys(sheet.lacking.values()))
    if sheet.lacking and sheet.quantity.is_debiased:
        sentences.append(
            f"{len(sheet.lacking)} of {len(sheet.configurations)} rows have no `{sheet.quantity.name}` ({ABSENT}) and "
            f"are not ranked: {reasons}."
        )
        best = best_of_values(sheet.conventional, sheet.better) if sheet.better else None
        if best in sheet.lacking:
            sentences.append(f"One of them, {head(sheet, best)}, has the best `{sheet.quantity.conventional}`.")
    elif sheet.lacking and sheet.quantity.is_biased:
        sentences.append(
            f"{len(sheet.lacking)} of {len(sheet.configurations)} rows have no debiased value, so that the biased one "
            f"is what is shown and ranked, for all rows: {reasons}."
        )
    elif sheet.lacking:
        sentences.append(f"{len(sheet.lacking)} of {len(sheet.configurations)} rows have no interval: {reasons}.")
    if sheet.is_baseline and sheet.reference is None:
        sentences.append(f"The baseline has no `{sheet.quantity.name}`: nothing is compared with it.")
    if (
        LABELS in sheet.naming
        and len(of := sorted({key[sheet.naming.index(LABELS)] for key in sheet.configurations})) > 1
    ):
        sentences.append(
            f"Rows were asked for labels in different shares (`{LABELS}`: {', '.join(of)}): what that changes is in "
            "their differences."
        )
    return sentences


def _spread(sheet: Sheet) -> str:
    """'Standard deviation between training seeds 0.25, ...', pooled over rows."""
    designs = {m.design for m in sheet.means.values()}
    spread = pooled(m.spread for m in sheet.means.values())
    if len(designs) > 1 or designs == {"one"} or math.isnan(spread.sampling):
        return ""
    source = {
        "crossed": f", {spread.residual:.2g} left after both (training and sampling seeds are crossed)",
        "together": " (by the jackknife of each row), training taking the rest of the spread over seeds",
        "training": " (by the jackknife of each row), which all trainings share",
        "sampling": "",
    }[next(iter(designs))]
    training = "" if math.isnan(spread.training) else f"{spread.training:.2g} between trainings and "
    return (f"Standard deviations, pooled over {len(sheet.means)} rows: {training}{spread.sampling:.2g} between "
            f"sampling seeds{source}.")


def _entry(sheet: Sheet, key: Configuration) -> str:
    """'12.3 (11.2 to 13.4)': the mean and its own interval; '—' where the configuration lacks the quantity."""
    mean = sheet.means.get(key)
    if mean is None:
        return ABSENT
    text = (
        f"{mean.debiased:.3g}"
        if math.isnan(mean.standard_error)
        else f"{mean.debiased:.3g} ({mean.low:.3g} to {mean.high:.3g})"
    )
    return f"**{text}**" if key == sheet.best else text + (MARK if key in sheet.may_be_best else "")
