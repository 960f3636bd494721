"""What was varied, means over seeds, and whether differences are real: paired by seed, with Student's t. Pandas only.

Where training and sampling noise change together with the seed these are the numbers of `diffbench compare`; other designs of seeds are treated
more simply here, and each result says in `basis` what its interval rests on.
"""

from __future__ import annotations

import math

import pandas as pd

KINDS = ["dataset", "backbone", "noise_schedule", "parameterization", "objective", "conditioning", "spacing", "scheduler"]
SEEDS = ["seed", "noise_seed"]
ESTIMATE = ["mean", "debiased", "low", "high", "p", "seeds", "basis"]         # what `estimate` gives
NORMAL = 1.959963984540054            # standard normal, 97.5 %


def levels(rows: pd.DataFrame) -> pd.DataFrame:
    """What was varied: one column for each axis, and in it each row's level in words, such as 'ddim, steps 20' on the axis `scheduler`."""
    owners: dict[str, dict[str, str]] = {kind: {} for kind in KINDS if kind in rows}
    for name in rows.columns:
        owner, dot, option = name.partition(".")
        if dot and name not in ("scheduler.steps", "sample.seed"):
            owners.setdefault(owner, {})[name] = option
    owners["scheduler"]["steps"] = "steps"
    options = {owner: {name: said for name, said in of.items() if rows[name].nunique() > 1 or rows[name].isna().any()} for owner, of in owners.items()}
    told = {owner: rows[[*([owner] if owner in KINDS else []), *of]].to_dict("records") for owner, of in options.items()}
    words = pd.DataFrame({owner: [_level(row, owner, options[owner]) for row in records] for owner, records in told.items()}, index=rows.index)
    return words.loc[:, [axis for axis in words if words[axis].nunique() > 1]]


def numbers(rows: pd.DataFrame, column: str) -> tuple[pd.DataFrame, list[str]]:
    """(the rows that are ok and have a value: their levels, seeds, value, debiased, low and high; the axes)."""
    ok = rows[(rows["status"] == "ok") & rows[column].notna()]
    words = levels(ok)
    noise = ok["noise_seed"].fillna(ok["seed"]) if "noise_seed" in ok else ok["seed"]
    found = words.assign(cell_id=ok["cell_id"], seed=ok["seed"].astype(int), noise_seed=noise.astype(int), value=ok[column].astype(float))
    for end in ("debiased", "low", "high"):
        found[end] = ok[f"{column}_{end}"].astype(float) if f"{column}_{end}" in ok else math.nan
    return found.assign(debiased=found["debiased"].fillna(found["value"])), list(words)


def configurations(found: pd.DataFrame, axes: list[str]) -> list[tuple[tuple[str, ...], pd.Index]]:
    """(levels, index of its rows) of each configuration among `numbers`, in their order."""
    if not axes:
        return [((), found.index)] if len(found) else []
    return [(key, part.index) for key, part in found.groupby(axes, sort=False)]


def means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean over seeds of each configuration, with the 95 % interval of the mean without bias; never the best of several seeds."""
    found, axes = numbers(rows, column)
    groups = [(key, found.loc[index]) for key, index in configurations(found, axes)]
    return pd.DataFrame([{**dict(zip(axes, key, strict=True)), **estimate(part)} for key, part in groups])


def effects(rows: pd.DataFrame, column: str, reference: dict[str, str] | None = None) -> pd.DataFrame:
    """What each level of each axis changes against the axis's reference level, everything else and the seeds being equal.

    Differences are averaged over configurations for each seed first, for these share its noise. reference: {axis: level}; by default the level that
    most rows have. `p_holm` is for so many comparisons at once (Holm 1979). A level without a partner is in the table, with no difference.
    """
    found, axes = numbers(rows, column)
    table = []
    for axis in axes:
        others = [a for a in axes if a != axis]
        versus = (reference or {}).get(axis) or found[axis].value_counts(sort=True).index[0]
        if versus not in set(found[axis]):
            raise ValueError(f"no row has {axis} = {versus!r}; there are {', '.join(map(repr, found[axis].unique()))}")
        for level in found[axis].unique():
            if level != versus:
                by_seed = differences(found[found[axis] == versus], found[found[axis] == level], others)
                table.append({"axis": axis, "level": level, "versus": versus, "configurations": by_seed.attrs["configurations"], **estimate(by_seed)})
    return _with_holm(pd.DataFrame(table, columns=["axis", "level", "versus", "configurations", *ESTIMATE]))


def within(rows: pd.DataFrame, column: str, effect: pd.Series) -> pd.DataFrame:
    """One line of `effects` taken apart: the same difference for each level of each other axis."""
    found, axes = numbers(rows, column)
    others = [axis for axis in axes if axis != effect["axis"]]
    table = []
    for axis in others:
        for level, part in found.groupby(axis, sort=False):
            sides = [part[part[effect["axis"]] == side] for side in (effect["versus"], effect["level"])]
            table.append({"axis": axis, "level": level, **estimate(differences(*sides, others))})
    return pd.DataFrame(table, columns=["axis", "level", *ESTIMATE])


def versus_best(rows: pd.DataFrame, column: str, higher_is_better: bool = False) -> pd.DataFrame:
    """Each configuration against the one whose mean without bias is best, paired by seed. The data chose what to compare with: p is for exploring."""
    found, axes = numbers(rows, column)
    parts = {key: found.loc[index] for key, index in configurations(found, axes)}
    best = (max if higher_is_better else min)(parts, key=lambda key: estimate(parts[key])["debiased"])
    table = [{**dict(zip(axes, key, strict=True)), **estimate(differences(parts[best], part, []))} for key, part in parts.items() if key != best]
    done = _with_holm(pd.DataFrame(table, columns=[*axes, *ESTIMATE]))
    done.attrs["best"] = dict(zip(axes, best, strict=True))
    return done


def differences(a: pd.DataFrame, b: pd.DataFrame, others: list[str]) -> pd.DataFrame:
    """b - a for each pair of seeds that every configuration has; attrs["configurations"] says how many of these there are.

    The intervals of both are added in squares, each on its side, as if they were independent: too wide, for both saw the same noise. Only
    a difference of single rows needs them (Zou & Donner 2008).
    """
    pairs = a.merge(b, on=[*others, *SEEDS], suffixes=("_a", "_b"))
    count = len(pairs[others].drop_duplicates()) if others else min(1, len(pairs))
    below = (pairs["debiased_b"] - pairs["low_b"]) ** 2 + (pairs["high_a"] - pairs["debiased_a"]) ** 2
    above = (pairs["high_b"] - pairs["debiased_b"]) ** 2 + (pairs["debiased_a"] - pairs["low_a"]) ** 2
    each = pairs[SEEDS].assign(value=pairs["value_b"] - pairs["value_a"], debiased=pairs["debiased_b"] - pairs["debiased_a"], below=below, above=above, count=1)
    of_seed = each.groupby(SEEDS, as_index=False).agg({"value": "mean", "debiased": "mean", "below": lambda x: x.sum(skipna=False),
                                                       "above": lambda x: x.sum(skipna=False), "count": "sum"})
    of_seed = of_seed[of_seed["count"] == count]
    half = of_seed[["below", "above"]] ** 0.5 / max(1, count)
    found = of_seed.assign(low=of_seed["debiased"] - half["below"], high=of_seed["debiased"] + half["above"])
    found.attrs["configurations"] = count
    return found


def estimate(numbers: pd.DataFrame) -> dict[str, object]:
    """Mean of numbers over seeds: value as printed, without bias with its 95 % interval, p of "it is zero", and what the interval rests on."""
    trainings, noises = numbers["seed"].nunique(), numbers["noise_seed"].nunique()
    middle = {"mean": numbers["value"].mean(), "debiased": numbers["debiased"].mean()}
    nothing = {"low": math.nan, "high": math.nan, "p": math.nan, "seeds": trainings * noises}
    if numbers.empty:
        return {**middle, **nothing, "seeds": 0, "basis": "no pairs"}
    if len(numbers) == 1:
        low, high = numbers["low"].iloc[0], numbers["high"].iloc[0]
        if math.isnan(low):
            return {**middle, **nothing, "basis": "one number, no interval"}
        error = (high - low) / (2 * NORMAL)
        p = math.erfc(abs(middle["debiased"]) / error / math.sqrt(2)) if error else float(middle["debiased"] == 0)
        return {**middle, "low": low, "high": high, "p": p, "seeds": 1, "basis": "samples of one seed"}
    unit = "seed" if trainings > 1 else "noise_seed"
    y = numbers.groupby(unit)["debiased"].mean()
    error = y.std(ddof=1) / math.sqrt(len(y))
    half = t_quantile(len(y) - 1) * error
    p = t_two_sided(middle["debiased"] / error, len(y) - 1) if error else float(middle["debiased"] == 0)
    basis = f"{len(y)} seeds" if trainings == noises == len(numbers) else f"{len(y)} sampling seeds of one training" if unit == "noise_seed" else \
        f"{len(y)} trainings; the noise that they share is not in it"
    return {**middle, "low": y.mean() - half, "high": y.mean() + half, "p": p, "seeds": len(numbers), "basis": basis}


def holm(p_values: pd.Series) -> pd.Series:
    """p-values for so many comparisons at once; NaN stays and does not count. Source: Holm 1979, Scandinavian Journal of Statistics 6, p. 65-70."""
    known = p_values.dropna().sort_values()
    return (known * pd.Series(range(len(known), 0, -1), known.index)).clip(upper=1).cummax().reindex(p_values.index)


def t_two_sided(t: float, degrees: int) -> float:
    """P(|T| >= |t|) of Student's t with a whole number of degrees of freedom. Source: Abramowitz & Stegun 1964, eq. 26.7.3 and 26.7.4."""
    angle = math.atan(abs(t) / math.sqrt(degrees))
    sine, squared = math.sin(angle), math.cos(angle) ** 2
    term = total = math.cos(angle) if degrees % 2 else 1.0
    for k in range(3 if degrees % 2 else 2, degrees, 2):
        term *= squared * (k - 1) / k
        total += term
    inside = 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0)) if degrees % 2 else sine * total
    return max(0.0, 1 - inside)


def t_quantile(degrees: int, level: float = 0.95) -> float:
    """The t that |T| stays below in this share of cases."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_sided(middle, degrees) > 1 - level else (low, middle)
    return (low + high) / 2


def _with_holm(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(p_holm=holm(table["p"].astype(float)))


def _level(row: dict[str, object], owner: str, options: dict[str, str]) -> str:
    """'ddim, steps 20'; an option that a component has not is left out."""
    there = [(said, row[name]) for name, said in options.items() if not pd.isna(row[name])]
    words = [f"{said} {value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else f"{said} {value}" for said, value in there]
    return ", ".join([str(row[owner]), *words] if owner in KINDS else [f"{owner} {word}" for word in words]) or "-"
