"""Means of quality over seeds with intervals, and differences to the best row or to a baseline. Used by all tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import pandas

from diffbench.report.layout import layout, named
from diffbench.results import nfe
from diffbench.results.quantity import Quantity, quantity_of, reason_of
from diffbench.stats.numbers_of_rows import Number, Seeds, differences
from diffbench.stats.over_seeds import Estimate, estimate, holm, may_be_best

Configuration = tuple[str, ...]       # values of the naming columns


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """One column of the results: its means by configuration, and their differences to one of them, all of one quantity.
    """

    column: str
    quantity: Quantity                # of all numbers below but those of `conventional`
    better: str | None                # "lower", "higher", or None for a flag
    down: list[str]                   # naming columns: of rows,
    across: list[str]                 # and of columns
    means: dict[Configuration, Estimate]
    lacking: dict[Configuration, str]  # configurations with a row that has no debiased value and no interval, and why
    conventional: dict[Configuration, float]              # the mean of the other value; empty where there is no other
    nfe: dict[Configuration, tuple[float, ...]]           # network evaluations of its rows
    reference: Configuration | None   # what others are compared with: the baseline or the best; None where nothing
                                      # ranks
    is_baseline: bool                 # whether a baseline was asked for; it is no reference where it has no mean
    to_reference: dict[Configuration, Estimate]           # of those that share a seed with it
    by_seed: dict[Configuration, dict[Seeds, float]]      # the same differences, one by one

    @property
    def naming(self) -> list[str]:
        """All naming columns, in the order of a configuration."""
        return self.across + self.down

    @property
    def configurations(self) -> list[Configuration]:
        """All, in the order of the results."""
        return list(self.nfe)

    @property
    def telling(self) -> list[int]:
        """The places in a configuration of those naming columns in which configurations differ."""
        return [i for i in range(len(self.naming)) if len({key[i] for key in self.nfe}) > 1]

    @cached_property
    def are_equal(self) -> bool:
        """Whether no configuration differs from another in any number."""
        return all(d.debiased == d.standard_error == 0 for d in self.to_reference.values())

    @cached_property
    def may_be_best(self) -> set[Configuration]:
        """Configurations that the data cannot tell from the best; empty where others are compared with a baseline."""
        if self.is_baseline or self.better is None or self.are_equal:
            return set()
        flags = may_be_best(list(self.to_reference.values()), self.better == "higher")
        return {key for key, may in zip(self.to_reference, flags, strict=True) if may}

    @cached_property
    def best(self) -> Configuration | None:
        """The best by its mean; None where nothing ranks."""
        return None if self.better is None or not self.means or self.are_equal else best_of(self.means, self.better)

    @property
    def has_one_training(self) -> bool:
        """Whether no configuration was trained more than once, so that nothing here speaks of other trainings."""
        return all(len({seeds.training for seeds in mean.seeds}) == 1 for mean in self.means.values())


def sheet(table: pandas.DataFrame, column: str, better: str | None, records: Mapping[str, Mapping[str, Any]],
          rows: tuple[str, ...],
          columns: tuple[str, ...], baseline: frozenset[str] = frozenset()) -> Sheet:
    """The rows of a frame that have a value of this column.

    records: by cell id, for their left-out values; baseline: ids of the cells others are compared with, where not with
    the best.
    """
    down, across = layout(table, rows, columns)
    there = named(table[table[column].notna()], across + down)
    measured: dict[Configuration, dict[Seeds, dict[str, Any]]] = {}
    against: Configuration | None = None
    for row in there.to_dict("records"):
        key = tuple(row[name] for name in across + down)
        measured.setdefault(key, {})[Seeds(row["seed"], row["noise_seed"])] = row | dict(
            records.get(row["cell_id"], {})
        )
        against = key if row["cell_id"] in baseline else against
    quantity = quantity_of(column, [record for of_seeds in measured.values() for record in of_seeds.values()])
    numbers = _numbers(measured, quantity)
    means = {key: estimate(some) for key, some in numbers.items()}
    is_baseline = against is not None
    if not is_baseline and means and better is not None:
        against = best_of(means, better)
    against = against if against in numbers else None
    pairs = ({key: differences(numbers[against], some) for key, some in numbers.items() if key != against}
             if against is not None else {})
    pairs = {key: some for key, some in pairs.items() if some}
    conventional = (
        {key: fmean(record[column] for record in of_seeds.values()) for key, of_seeds in measured.items()}
        if quantity.is_debiased
        else {}
    )
    return Sheet(
        column=column,
        quantity=quantity,
        better=better,
        down=down,
        across=across,
        means=means,
        lacking=_lacking(measured, quantity),
        conventional=conventional,
        nfe={
            key: tuple(float(record["nfe"]) for record in of_seeds.values() if pandas.notna(record.get("nfe")))
            for key, of_seeds in measured.items()
        },
        reference=against,
        is_baseline=is_baseline,
        to_reference={key: estimate(some) for key, some in pairs.items()},
        by_seed={key: {seeds: n.debiased for seeds, n in some.items()} for key, some in pairs.items()},
    )


def _numbers(
    measured: Mapping[Configuration, Mapping[Seeds, Mapping[str, Any]]], quantity: Quantity
) -> dict[Configuration, dict[Seeds, Number]]:
    """By configuration and seeds, those of configurations that have one for each seed:
    a mean is of all seeds, never of those that have a number.
    """
    numbers = {
        key: {seeds: quantity.number(record) for seeds, record in of_seeds.items()}
        for key, of_seeds in measured.items()
    }
    return {
        key: {seeds: number for seeds, number in of_seeds.items() if number is not None}
        for key, of_seeds in numbers.items()
        if None not in of_seeds.values()
    }


def _lacking(
    measured: Mapping[Configuration, Mapping[Seeds, Mapping[str, Any]]], quantity: Quantity
) -> dict[Configuration, str]:
    """The configurations with a row that has no debiased value and no interval, and why,
    as far as it matters or is known.
    """
    without = {
        key: [record for record in of_seeds.values() if not quantity.has_debiased(record)]
        for key, of_seeds in measured.items()
    }
    reasons = {
        key: [reason_of(record, quantity.column) for record in records] for key, records in without.items() if records
    }
    return {key: next(filter(None, of_key), "their records do not say why") for key, of_key in reasons.items()
            if any(of_key) or quantity.is_debiased}


def worse_by(difference: Estimate, better: str | None) -> tuple[float, float, float]:
    """(value, low, high) of a difference, turned so that above zero is worse; as it is where neither way is better."""
    d = difference
    return (-d.debiased, -d.high, -d.low) if better == "higher" else (d.debiased, d.low, d.high)


def as_frames(sheets: list[Sheet]) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """(means, differences) of all sheets, one line for each column and configuration; means.csv and differences.csv."""
    means, differences = [], []
    for s in sheets:
        for key in s.configurations:
            m = s.means.get(key)
            numbers = (
                {"mean": math.nan}
                if m is None
                else {"mean": m.debiased, **_numbers_of(m)}
                | {
                    f"{name}_sd": math.sqrt(max(0.0, v)) if not math.isnan(v) else v
                    for name, v in m.spread._asdict().items()
                }
            )
            means.append(
                {
                    "column": s.column,
                    **dict(zip(s.naming, key, strict=True)),
                    "nfe": _mean(s.nfe[key]),
                    "quantity": s.quantity.name,
                    **numbers,
                    "conventional": s.conventional.get(key, math.nan),
                    "not_debiased": s.lacking.get(key, ""),
                }
            )
        against = "" if s.reference is None else label(s, s.reference)
        adjusted = holm([d.p for d in s.to_reference.values()])
        for (key, d), p in zip(s.to_reference.items(), adjusted, strict=True):
            differences.append(
                {
                    "column": s.column,
                    **dict(zip(s.naming, key, strict=True)),
                    "nfe": _mean(s.nfe[key]),
                    "versus": against,
                    "nfe_versus": _mean(s.nfe[s.reference or key]),
                    "quantity": s.quantity.name,
                    "difference": d.debiased,
                    **_numbers_of(d),
                    "p": d.p,
                    "p_holm": p,
                    "comparisons": len(adjusted),
                    "half_width": d.half_width,
                    "resolvable_at_80": d.resolvable,
                    "may_be_best": key in s.may_be_best,
                    "by_seed": "; ".join(f"{t}/{n}: {v:+.6g}" for (t, n), v in s.by_seed[key].items()),
                }
            )
    return pandas.DataFrame(means), pandas.DataFrame(differences)


def head(sheet: Sheet, key: Configuration) -> str:
    """Label that tells a configuration from the others, and what it costs: 'pndm, steps 10 · NFE 19'."""
    return " · ".join(filter(None, (label(sheet, key), nfe.spelt(sheet.nfe[key]))))


def label(sheet: Sheet, key: Configuration) -> str:
    """Text that tells a configuration from the others: 'ddim, steps 50'."""
    parts = [(sheet.naming[i], key[i]) for i in sheet.telling if key[i] != "-"]
    return ", ".join(f"{name} {value}" if value.replace(".", "").isdigit() else value for name, value in parts)


def _mean(numbers: tuple[float, ...]) -> float:
    return fmean(numbers) if numbers else math.nan


def _numbers_of(of: Estimate) -> dict[str, Any]:
    return {"low": of.low, "high": of.high, "standard_error": of.standard_error, "degrees": of.degrees,
            "design": of.design, "seeds": len(of.seeds)}


def best_of(means: Mapping[Configuration, Estimate], better: str) -> Configuration:
    """By the mean; the first of equal ones."""
    return best_of_values({key: mean.debiased for key, mean in means.items()}, better)


def best_of_values(values: Mapping[Configuration, float], better: str) -> Configuration:
    """The configuration of the best value; the first of equal ones."""
    return (max if better == "higher" else min)(values, key=lambda key: values[key])
