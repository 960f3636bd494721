"""Levels of what was varied, means over seeds, and differences paired by seed, with Student's t. Used by the notebooks.

Where training and sampling noise change together with the seed these are the numbers of `diffbench compare`; other
designs of seeds are treated more simply here, and each result says in `basis` what its interval rests on.
"""

from __future__ import annotations

import math

import pandas as pd

KINDS = ["dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing",
         "scheduler"]
SEEDS = ["seed", "noise_seed"]
ESTIMATE = ["mean", "low", "high", "p", "seeds", "basis"]                     # what `estimate` gives
# the other value, beside the debiased one
CONVENTIONAL = "conventional, biased"
NORMAL = 1.959963984540054            # standard normal, 97.5 %
ROUNDING = 1e-9                       # share of a number below which its spread over seeds is rounding


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """The varied axes as columns, with the level of each row in words, such as 'ddim, steps 20' on `scheduler`."""
    kinds = component_columns(rows)
    owners: dict[str, dict[str, str]] = {kind: {} for kind in kinds}
    for name in rows.columns:
        owner, dot, option = name.partition(".")
        if dot and name not in ("scheduler.steps", "sample.seed"):
            owners.setdefault(owner, {})[name] = option
    owners["scheduler"]["steps"] = "steps"
    is_varied = {name: rows[name].nunique() > 1 or rows[name].isna().any() for of in owners.values() for name in of}
    options = {owner: {name: option for name, option in of.items() if is_varied[name]} for owner, of in owners.items()}
    parts = {owner: [*([owner] if owner in kinds else []), *of] for owner, of in options.items()}
    # of no columns pandas has no records
    records_of = {owner: rows[part].to_dict("records") for owner, part in parts.items() if part}
    words = pd.DataFrame({owner: [_level(row, owner, options[owner], is_kind=owner in kinds) for row in records]
                          for owner, records in records_of.items()}, index=rows.index)
    return words.loc[:, [axis for axis in words if words[axis].nunique() > 1]]


def component_columns(rows: pd.DataFrame) -> list[str]:
    """The columns that name components, those of kinds that plug-ins add included."""
    names = list(rows.columns)
    has_both = {"scheduler", "steps"} <= {*names}
    plugin_kinds = names[names.index("scheduler") + 1:names.index("steps")] if has_both else []
    return [*(kind for kind in KINDS if kind in names), *plugin_kinds]


def quantity(rows: pd.DataFrame, column: str) -> str:
    """The column whose values are displayed and ranked, the same for all rows, as in the tables of a run.

    `<column>_debiased` where at least half of the rows with a value have one; `<column>` where the metric has no bias,
    or too few have it.
    """
    with_values = rows[rows[column].notna()]
    nothing = pd.Series(math.nan, index=with_values.index)
    debiased = with_values[f"{column}_debiased"] if f"{column}_debiased" in rows else nothing
    is_biased = (debiased.notna() & (debiased != with_values[column])).any()
    return f"{column}_debiased" if is_biased and 2 * debiased.notna().sum() >= len(with_values) else column


def numbers(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, list[str]]:
    """(levels, seeds, value, interval and conventional value of the rows that are ok and have the quantity; the axes).

    A configuration of which one seed lacks the quantity is left out: a mean is of all seeds, never of those that have a
    number.
    """
    ok = rows[(rows["status"] == "ok") & rows[column].notna()]
    words, column_shown = levels(ok), quantity(ok, column)
    noise = ok["noise_seed"].fillna(ok["seed"]) if "noise_seed" in ok else ok["seed"]
    values = words.assign(cell_id=ok["cell_id"], seed=ok["seed"].astype(int), noise_seed=noise.astype(int),
                          value=ok[column_shown].astype(float),
                         conventional=ok[column].astype(float), nfe=ok["nfe"].astype(float))
    debiased = ok[f"{column}_debiased"] if f"{column}_debiased" in ok else ok[column]
    is_its_own = (column_shown != column or debiased.isna().all()
                  or (debiased.dropna() == ok.loc[debiased.notna(), column]).all())
    for end in ("low", "high"):                           # of the debiased value; a biased one has no interval
        values[end] = ok[f"{column}_{end}"].astype(float) if f"{column}_{end}" in ok and is_its_own else math.nan
    lacks = values["value"].isna()
    if list(words):
        lacks = lacks.groupby([values[axis] for axis in words], sort=False).transform("any")
    return values[~lacks], list(words)


def configurations(values: pd.DataFrame, axes: list[str]) -> list[tuple[tuple[str, ...], pd.Index]]:
    """(levels, index of its rows) of each configuration among `numbers`, in their order."""
    if not axes:
        return [((), values.index)] if len(values) else []
    return [(key, part.index) for key, part in values.groupby(axes, sort=False)]


def means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The mean over seeds of each configuration with its 95 % interval, and the conventional mean."""
    values, axes = numbers(rows, column)
    groups = [(key, values.loc[index]) for key, index in configurations(values, axes)]
    has_two = quantity(rows[rows["status"] == "ok"], column) != column
    return pd.DataFrame([{**dict(zip(axes, key, strict=True)), **estimate(part), "nfe": span(part["nfe"])}
                         | ({CONVENTIONAL: part["conventional"].mean()} if has_two else {}) for key, part in groups])


def effects(rows: pd.DataFrame, column: str, reference: dict[str, str] | None = None) -> pd.DataFrame:
    """The difference that each level of each axis makes to the reference level, all else being equal.

    Differences are averaged over configurations for each seed first, for these share its noise. reference: {axis:
    level}; by default the level that most rows have. `p_holm` is for so many comparisons at once (Holm 1979). A level
    without a partner is in the table, with no difference.
    """
    values, axes = numbers(rows, column)
    table = []
    for axis in axes:
        others = [a for a in axes if a != axis]
        versus = (reference or {}).get(axis) or values[axis].value_counts(sort=True).index[0]
        if versus not in set(values[axis]):
            raise ValueError(f"no row has {axis} = {versus!r}; there are {', '.join(map(repr, values[axis].unique()))}")
        for level in values[axis].unique():
            if level != versus:
                by_seed = differences(values[values[axis] == versus], values[values[axis] == level], others)
                table.append({"axis": axis, "level": level, "versus": versus,
                              "configurations": by_seed.attrs["configurations"], **estimate(by_seed),
                              "nfe": span(values.loc[values[axis] == level, "nfe"]),
                              "nfe_versus": span(values.loc[values[axis] == versus, "nfe"])})
    adjusted = _with_holm(pd.DataFrame(table, columns=["axis", "level", "versus", "configurations", *ESTIMATE, "nfe",
                                                       "nfe_versus"]))
    adjusted.attrs["quantity"] = quantity(rows[rows["status"] == "ok"], column)
    return adjusted


def within(rows: pd.DataFrame, column: str, effect: pd.Series) -> pd.DataFrame:
    """One line of `effects` by levels of the other axes."""
    values, axes = numbers(rows, column)
    others = [axis for axis in axes if axis != effect["axis"]]
    table = []
    for axis in others:
        for level, part in values.groupby(axis, sort=False):
            sides = [part[part[effect["axis"]] == side] for side in (effect["versus"], effect["level"])]
            table.append({"axis": axis, "level": level, **estimate(differences(*sides, others))})
    return pd.DataFrame(table, columns=["axis", "level", *ESTIMATE])


def versus_best(rows: pd.DataFrame, column: str, higher_is_better: bool = False) -> pd.DataFrame:
    """The difference of each configuration to the one with the best mean, paired by seed.

    The data chose it: p explores.
    """
    values, axes = numbers(rows, column)
    parts = {key: values.loc[index] for key, index in configurations(values, axes)}
    best = (max if higher_is_better else min)(parts, key=lambda key: estimate(parts[key])["mean"])
    table = [{**dict(zip(axes, key, strict=True)), **estimate(differences(parts[best], part, [])),
              "nfe": span(part["nfe"]),
              "nfe_versus": span(parts[best]["nfe"])} for key, part in parts.items() if key != best]
    adjusted = _with_holm(pd.DataFrame(table, columns=[*axes, *ESTIMATE, "nfe", "nfe_versus"]))
    adjusted.attrs["quantity"] = quantity(rows[rows["status"] == "ok"], column)
    adjusted.attrs["best"] = dict(zip(axes, best, strict=True))
    return adjusted


def differences(a: pd.DataFrame, b: pd.DataFrame, others: list[str]) -> pd.DataFrame:
    """b - a for each pair of seeds that every configuration has; attrs["configurations"] says how many of these there
    are.

    The intervals of both are added in squares, each on its side, as if they were independent: too wide, for both saw
    the same noise. Only a difference of single rows needs them (Zou & Donner 2008).
    """
    pairs = a.merge(b, on=[*others, *SEEDS], suffixes=("_a", "_b"))
    count = len(pairs[others].drop_duplicates()) if others else min(1, len(pairs))
    below = (pairs["value_b"] - pairs["low_b"]) ** 2 + (pairs["high_a"] - pairs["value_a"]) ** 2
    above = (pairs["high_b"] - pairs["value_b"]) ** 2 + (pairs["value_a"] - pairs["low_a"]) ** 2
    pair_values = pairs[SEEDS].assign(value=pairs["value_b"] - pairs["value_a"], below=below, above=above, count=1,
                               has_bias=_has_bias(pairs, "_a") | _has_bias(pairs, "_b"))
    of_seed = pair_values.groupby(SEEDS, as_index=False).agg({"value": "mean", "below": lambda x: x.sum(skipna=False),
                                                              "above": lambda x: x.sum(skipna=False),
                                                       "count": "sum", "has_bias": "any"})
    of_seed = of_seed[of_seed["count"] == count]
    half = of_seed[["below", "above"]] ** 0.5 / max(1, count)
    by_seed = of_seed.assign(low=of_seed["value"] - half["below"], high=of_seed["value"] + half["above"])
    by_seed.attrs["configurations"] = count
    return by_seed


def estimate(numbers: pd.DataFrame) -> dict[str, object]:
    """The mean of numbers over seeds with its 95 % interval, p of "it is zero", and the basis of the interval."""
    trainings, noises = numbers["seed"].nunique(), numbers["noise_seed"].nunique()
    middle = {"mean": numbers["value"].mean()}
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "seeds": trainings * noises}
    if numbers.empty:
        return {**middle, **nothing, "seeds": 0, "basis": "no pairs"}
    if len(numbers) == 1:
        low, high = numbers["low"].iloc[0], numbers["high"].iloc[0]
        if math.isnan(low):
            return {**middle, **nothing, "basis": "one number, no interval"}
        to_zero = middle["mean"] - low if middle["mean"] > 0 else high - middle["mean"]
        if to_zero == 0 != middle["mean"]:
            return {**middle, **nothing, "basis": "one number, no interval"}
        p = math.erfc(abs(middle["mean"]) * NORMAL / to_zero / math.sqrt(2)) if to_zero else 1.0
        return {**middle, "low": low, "high": high, "p": p, "seeds": 1, "basis": "samples of one seed"}
    unit = "seed" if trainings > 1 else "noise_seed"
    y = numbers.groupby(unit)["value"].mean()
    error = y.std(ddof=1) / math.sqrt(len(y))
    of_samples, is_known = ((numbers["high"] - numbers["low"]) / (2 * NORMAL)) ** 2, False
    has_bias = numbers["has_bias"] if "has_bias" in numbers else _has_bias(numbers, "")
    if not has_bias.any() and of_samples.notna().all():
        # A share, say: a multiple of 1/n, whose seeds often agree and tell nothing by it. Of sampling seeds the error
        # is that of the samples.
        error, is_known = max(error, math.sqrt(of_samples.mean() / noises)), unit == "noise_seed"
    if error <= ROUNDING * y.abs().max() and middle["mean"] != 0:
        return {**middle, **nothing, "basis": f"{len(y)} seeds that agree to the last digit, no interval"}
    half = (NORMAL if is_known else t_quantile(len(y) - 1)) * error
    t = middle["mean"] / error if error else 0.0
    p = math.erfc(abs(t) / math.sqrt(2)) if is_known else t_two_sided(t, len(y) - 1)
    basis = (f"{len(y)} seeds" if trainings == noises == len(numbers)
             else f"{len(y)} sampling seeds of one training" if unit == "noise_seed" else \
        f"{len(y)} trainings; the noise that they share is not in it")
    return {**middle, "low": y.mean() - half, "high": y.mean() + half, "p": p, "seeds": len(numbers), "basis": basis}


def span(evaluations: pd.Series) -> str:
    """'19', or '19 to 38' where rows differ in their network evaluations."""
    return " to ".join(dict.fromkeys(f"{value:g}" for value in (evaluations.min(), evaluations.max())))


def noisy(rows: pd.DataFrame, half: str) -> pd.Series:
    """Whether the timing of a row's "sample" or "train" figures is noisy. Early versions have one flag for both."""
    flags = pd.Series(pd.NA, index=rows.index, dtype="boolean")
    for name in (f"{half}_noisy", "noisy"):
        if name in rows:
            flags = flags.fillna(rows[name].astype("boolean"))
    return flags.fillna(False).astype(bool)


def _has_bias(numbers: pd.DataFrame, side: str) -> pd.Series:
    """Whether a number and its conventional value differ."""
    return numbers[f"conventional{side}"].notna() & (numbers[f"conventional{side}"] != numbers[f"value{side}"])


def holm(p_values: pd.Series) -> pd.Series:
    """p-values for so many comparisons at once; NaN stays and does not count.
    Source: Holm 1979, Scandinavian Journal of Statistics 6, p. 65-70.
    """
    sorted_values = p_values.dropna().sort_values()
    return (sorted_values * pd.Series(range(len(sorted_values), 0, -1),
                                      sorted_values.index)).clip(upper=1).cummax().reindex(p_values.index)


def t_two_sided(t: float, degrees: int) -> float:
    """P(|T| >= |t|) of Student's t with a whole number of degrees of freedom. Source: Abramowitz & Stegun 1964, eq.
    26.7.3 and 26.7.4.
    """
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, squared = math.sin(angle), math.cos(angle) ** 2
    term = total = math.cos(angle) if degrees % 2 else 1.0
    for k in range(3 if degrees % 2 else 2, degrees, 2):
        term *= squared * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0)) if degrees % 2 else sine * total
    return max(0.0, 1 - inside)


def t_quantile(degrees: int) -> float:
    """The t that |T| stays below in 95 % of cases."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, degrees) > 0.05 else (low, middle)
    return (low + high) / 2


def _with_holm(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(p_holm=holm(table["p"].astype(float)))


def _level(row: dict[str, object], owner: str, options: dict[str, str], *, is_kind: bool) -> str:
    """A level in words, such as 'ddim, steps 20', without options that the component does not have."""
    present = [(option, row[name]) for name, option in options.items() if not pd.isna(row[name])]
    words = [f"{option} {value:g}" if isinstance(value, float) and float(f"{value:g}") == value else f"{option} {value}"
             for option, value in present]
    component_name = [str(row[owner])] if is_kind and not pd.isna(row[owner]) else []
    return ", ".join([*component_name, *words] if is_kind else [f"{owner} {word}" for word in words]) or "-"
