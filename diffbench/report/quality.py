"""Means of quality over seeds with their intervals, what each row differs in from the best or from a baseline, and whence the spread comes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas

from diffbench.comparing import Estimate, Number, Seeds, differences, estimate, holm, may_be_best, number_of, pooled
from diffbench.report.layout import laid_out, layout, markdown, named

MARK = " ≈"                           # behind an entry that the data cannot tell from the best

Configuration = tuple[str, ...]       # values of the naming columns


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One column of the results: its means by configuration, and their differences to one of them."""

    column: str
    better: str | None                # "lower", "higher", or None for a flag
    down: list[str]                   # naming columns: of rows,
    across: list[str]                 # and of columns
    means: dict[Configuration, Estimate]
    reference: Configuration | None   # what others are compared with: the baseline or the best; None where nothing ranks
    is_baseline: bool
    to_reference: dict[Configuration, Estimate]           # of those that share a seed with it
    by_seed: dict[Configuration, dict[Seeds, float]]      # the same differences, one by one

    @property
    def naming(self) -> list[str]:
        """All naming columns, in the order of a configuration."""
        return self.across + self.down

    @property
    def telling(self) -> list[int]:
        """The places in a configuration of those naming columns in which configurations differ."""
        return [i for i in range(len(self.naming)) if len({key[i] for key in self.means}) > 1]

    @cached_property
    def are_equal(self) -> bool:
        """Whether no configuration differs from another in any number."""
        return all(d.debiased == d.standard_error == 0 for d in self.to_reference.values())

    @cached_property
    def may_be_best(self) -> set[Configuration]:
        """Configurations that the data cannot tell from the best; empty where others are compared with a baseline."""
        if self.is_baseline or self.better is None or self.are_equal:
            return set()
        told = may_be_best(list(self.to_reference.values()), self.better == "higher")
        return {key for key, may in zip(self.to_reference, told, strict=True) if may}


def sheet(table: pandas.DataFrame, column: str, better: str | None, records: Mapping[str, Mapping[str, Any]], rows: tuple[str, ...],
          columns: tuple[str, ...], baseline: frozenset[str] = frozenset()) -> Sheet:
    """The rows of a frame that have a value of this column.

    records: by cell id, for their left-out values; baseline: ids of the cells others are compared with, where not with the best.
    """
    down, across = layout(table, rows, columns)
    there = named(table[table[column].notna()], across + down)
    numbers: dict[Configuration, dict[Seeds, Number]] = {}
    against: Configuration | None = None
    for row in there.to_dict("records"):
        key = tuple(row[name] for name in across + down)
        numbers.setdefault(key, {})[Seeds(row["seed"], row["noise_seed"])] = number_of(row | dict(records.get(row["cell_id"], {})), column)
        against = key if row["cell_id"] in baseline else against
    means = {key: estimate(some) for key, some in numbers.items()}
    is_baseline = against is not None
    if against is None and better is not None and means:
        against = best_of(means, better)
    pairs = {key: differences(numbers[against], some) for key, some in numbers.items() if key != against} if against is not None else {}
    pairs = {key: some for key, some in pairs.items() if some}
    return Sheet(column=column, better=better, down=down, across=across, means=means, reference=against, is_baseline=is_baseline,
                 to_reference={key: estimate(some) for key, some in pairs.items()},
                 by_seed={key: {seeds: n.debiased for seeds, n in some.items()} for key, some in pairs.items()})


def means_of(sheet: Sheet) -> str:
    """The pivot of a sheet as Markdown: best in bold, marked what may be as good."""
    best = None if sheet.better is None or sheet.are_equal else best_of(sheet.means, sheet.better)
    texts = {key: f"**{_entry(mean)}**" if key == best else _entry(mean) + (MARK if key in sheet.may_be_best else "") for key, mean in sheet.means.items()}
    return laid_out(texts, sheet.down, sheet.across)


def summary(sheet: Sheet) -> str:
    """What the data of a sheet can tell: how many comparisons, the smallest difference, and the spread by its source."""
    said = []
    surely = [d for d in sheet.to_reference.values() if not math.isnan(d.standard_error)]
    if surely and sheet.are_equal:
        return "All rows have the same numbers."
    if surely:
        middle = sorted(surely, key=lambda d: d.half_width)[len(surely) // 2]
        what = "the baseline" if sheet.is_baseline else "the best"
        said.append(f"Comparisons with {what} ({label(sheet, sheet.reference)}), paired by seed: {len(surely)}, on {middle.basis}. The median of them calls "
                    f"differences above {middle.half_width:.2g} significant, alone and at 5 %, and finds a true one of {middle.resolvable:.2g} in 80 of "
                    "100 repeats.")
    if sheet.may_be_best:
        said.append(f"What is marked{MARK}, {len(sheet.may_be_best)} in all, cannot be told from the best: with it they hold the truly best one in 95 % of "
                    "cases, whichever it is.")
    spread = _spread(sheet)
    return " ".join([*said, spread] if spread else said)


def differences_of(sheet: Sheet) -> str:
    """Each row's difference to the reference as Markdown, seed by seed and in the mean."""
    if not sheet.to_reference or sheet.reference is None or sheet.are_equal:
        return ""
    adjusted = dict(zip(sheet.to_reference, holm([d.p for d in sheet.to_reference.values()]), strict=True))
    has_seeds = any(len(some) > 1 for some in sheet.by_seed.values())
    body = []
    for key, d in sheet.to_reference.items():
        seeds = [", ".join(f"{v:+.2g}" for v in sheet.by_seed[key].values())] if has_seeds else []
        sure = ["", ""] if math.isnan(d.standard_error) else [f"{d.low:+.3g} to {d.high:+.3g}", f"{adjusted[key]:.2g}"]
        body.append([*(key[i] for i in sheet.telling), *seeds, f"{d.debiased:+.3g}{MARK if key in sheet.may_be_best else ''}", *sure])
    titles = [*(sheet.naming[i] for i in sheet.telling), *(["seed by seed"] if has_seeds else []), "difference", "95 % interval", f"p, of {len(body)} (Holm)"]
    what = "baseline" if sheet.is_baseline else "best"
    return f"### Differences of `{sheet.column}` to the {what}: {label(sheet, sheet.reference)}\n\n{markdown(titles, body)}"


def as_frames(sheets: list[Sheet]) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """(means, differences) of all sheets, one line for each column and configuration; means.csv and differences.csv."""
    means, found = [], []
    for s in sheets:
        for key, m in s.means.items():
            sds = {f"{name}_sd": math.sqrt(max(0.0, v)) if not math.isnan(v) else v for name, v in m.spread._asdict().items()}
            means.append({"column": s.column, **dict(zip(s.naming, key, strict=True)), "mean": m.value, **_numbers(m), **sds})
        against = "" if s.reference is None else label(s, s.reference)
        adjusted = holm([d.p for d in s.to_reference.values()])
        for (key, d), p in zip(s.to_reference.items(), adjusted, strict=True):
            found.append({"column": s.column, **dict(zip(s.naming, key, strict=True)), "versus": against, "mean": d.value, **_numbers(d), "p": d.p, "p_holm": p,
                          "comparisons": len(adjusted), "half_width": d.half_width, "resolvable_at_80": d.resolvable, "may_be_best": key in s.may_be_best,
                          "by_seed": "; ".join(f"{t}/{n}: {v:+.6g}" for (t, n), v in s.by_seed[key].items())})
    return pandas.DataFrame(means), pandas.DataFrame(found)


def label(sheet: Sheet, key: Configuration) -> str:
    """What tells a configuration from the others: 'ddim, steps 50'."""
    said = [(sheet.naming[i], key[i]) for i in sheet.telling if key[i] != "-"]
    return ", ".join(f"{name} {value}" if value.replace(".", "").isdigit() else value for name, value in said)


def _numbers(found: Estimate) -> dict[str, Any]:
    return {"debiased": found.debiased, "low": found.low, "high": found.high, "standard_error": found.standard_error, "degrees": found.degrees,
            "design": found.design, "seeds": len(found.seeds)}


def _spread(sheet: Sheet) -> str:
    """'Standard deviation between training seeds 0.25, ...', pooled over rows."""
    designs = {m.design for m in sheet.means.values()}
    spread = pooled(m.spread for m in sheet.means.values())
    if len(designs) > 1 or designs == {"one"} or math.isnan(spread.sampling):
        return ""
    source = {"crossed": f", {spread.residual:.2g} left after both (training and sampling seeds are crossed)",
              "together": " (by the jackknife of each row), training taking the rest of the spread over seeds",
              "training": " (by the jackknife of each row), which all trainings share", "sampling": ""}[next(iter(designs))]
    training = "" if math.isnan(spread.training) else f"{spread.training:.2g} between trainings and "
    return f"Standard deviations, pooled over {len(sheet.means)} rows: {training}{spread.sampling:.2g} between sampling seeds{source}."


def _entry(mean: Estimate) -> str:
    """'12.3 (11.2 to 12.4)': the mean as printed, and the interval of that without bias."""
    return f"{mean.value:.3g}" if math.isnan(mean.standard_error) else f"{mean.value:.3g} ({mean.low:.3g} to {mean.high:.3g})"


def best_of(means: dict[Configuration, Estimate], better: str) -> Configuration:
    """By the mean without bias; the first of equal ones."""
    return (max if better == "higher" else min)(means, key=lambda key: means[key].debiased)
