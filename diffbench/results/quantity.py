"""The quantity of a column of quality that one table shows, ranks and compares. Used by tables, page, exports and
`compare`.

A metric with a bias of finitely many samples has two values, `x` (conventional, biased) and `x_debiased`, and one
interval, that of `x_debiased`. A table shows one of the two for all its rows, and beside it no interval but its own:

- where at least half of its rows have a debiased value, that one. A row that lacks it is shown as "—", with the reason,
  and is not ranked;
- else the conventional value, without the interval of the debiased one. This is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffbench.stats.jackknife import NO_INTERVAL
from diffbench.stats.numbers_of_rows import Number, number_of

CONVENTIONAL = "(conventional, biased)"                  # behind the name of a column whose values these are
ABSENT = "—"                          # in place of a value that a row does not have


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """What the numbers of one column are in one table."""

    column: str
    is_biased: bool                   # whether debiased and conventional value are two numbers
    is_debiased: bool                 # whether the debiased one is shown; False where they are the same

    @property
    def name(self) -> str:
        """Name in a table: 'fid_debiased', 'fid (conventional, biased)', or 'precision', which has no bias."""
        return f"{self.column}_debiased" if self.is_debiased else self.conventional if self.is_biased else self.column

    @property
    def conventional(self) -> str:
        """Name of the other value in a column, as others publish it."""
        return f"{self.column} {CONVENTIONAL}"

    def has_debiased(self, record: Mapping[str, Any]) -> bool:
        """Whether a row has a debiased value in this column."""
        return not math.isnan(known(record, f"{self.column}_debiased"))

    def number(self, record: Mapping[str, Any]) -> Number | None:
        """The number of a row that has a value of the column, what is shown as its `debiased`;
        None where it lacks the quantity.
        """
        if self.is_debiased and not self.has_debiased(record):
            return None
        number = number_of(record, self.column)
        if self.is_biased and not self.is_debiased:
            return Number(number.value, number.value)     # the interval of the row is that of the other value
        return number if not math.isnan(number.low) else Number(number.value, number.debiased)


def quantity_of(column: str, records: Sequence[Mapping[str, Any]], *, must_all_have_it: bool = False) -> Quantity:
    """The quantity for the rows of one table.

    must_all_have_it: the debiased value only where every row has one, as in a comparison of two sides.
    """
    pairs = [(known(record, column), known(record, f"{column}_debiased")) for record in records]
    has = [not math.isnan(debiased) for _, debiased in pairs]
    is_biased = any(value != debiased for (value, debiased), has_it in zip(pairs, has, strict=True) if has_it) or (
        is_distance(column) and not any(has))
    is_debiased = is_biased and any(has) and (all(has) if must_all_have_it else 2 * sum(has) >= len(has))
    return Quantity(column=column, is_biased=is_biased, is_debiased=is_debiased)


def is_distance(column: str) -> bool:
    """Whether it is a Fréchet distance: `fid` for Inception features, `fd_<extractor>` for others."""
    return column == "fid" or column.startswith("fd_")


def reason_of(record: Mapping[str, Any], column: str) -> str:
    """Why a row has neither debiased value nor interval in a column; "" where it has, or where its record does not say.
    """
    reason = record.get(f"{column}{NO_INTERVAL}")
    return reason if isinstance(reason, str) else ""


def known(record: Mapping[str, Any], name: str) -> float:
    """A number of a row of results, NaN where it has none."""
    value = record.get(name)
    return math.nan if value is None else float(value)
