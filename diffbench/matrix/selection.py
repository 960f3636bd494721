"""Selection of cells by conditions. Used by `exclude`, `--only`, `diffbench compare` and `rerun`, and by reports.

A condition is a key and a value, as text 'scheduler=ddim,steps=50' or as a mapping {scheduler: ddim, scheduler.steps:
[10, 50]}. A list means any of its values; a component is meant by its name or by 'name: {option: value}'. Cells are
asked as they are described in plans, which lie beside results: nothing that made them need be installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffbench.contracts.options import Options
from diffbench.errors import DiffbenchError, MatrixError
from diffbench.matrix import yaml_file
from diffbench.registry.describing import Names
from diffbench.registry.registry import Registry
from diffbench.wording import brief, did_you_mean

if TYPE_CHECKING:
    from diffbench.matrix.settings import Report

SEEDS = ("seed", "noise_seed")
ALIASES = {"steps": "scheduler.steps", "scheduler.steps": "steps", "sample.seed": "noise_seed"}
MOST_COMPARISONS = 1_000_000          # of all conditions of a matrix: some seconds

Named = dict[str, Any]                # 'scheduler', 'scheduler.eta', 'steps', 'train.lr', 'seed', ... -> value


class Work:
    """Counter of the comparisons that the conditions of one matrix take, so that they are limited."""

    def __init__(self) -> None:
        self.count = 0

    def spend(self, comparisons: int) -> None:
        """Adds comparisons; raises DiffbenchError where the sum is above the limit."""
        self.count += comparisons
        if self.count > MOST_COMPARISONS:
            raise DiffbenchError(f"the conditions up to here take more than {MOST_COMPARISONS} comparisons with cells; "
                                 "write fewer, or name fewer values")


def values_of(cell: Mapping[str, Any]) -> Named:
    """Every value of a cell as described in a plan, those of nested components too, by name."""
    values: Named = {}
    for key, value in cell.items():
        if key in ("train", "sample"):
            values |= {f"{key}.{option}": v for option, v in value.items() if (key, option) != ("sample", "seed")}
        elif key != "seed":
            _add(values, key, value)
    of_noise = cell["sample"].get("seed", "cell")
    return values | {"steps": values["scheduler.steps"], "seed": cell["seed"], "noise_seed": cell["seed"]
                     if of_noise == "cell" else of_noise}


def named_points(points: Iterable[Mapping[str, Any]], registry: Registry) -> list[Named]:
    """The values by name of each point of a matrix, that is of cells which are not built yet."""
    names, values_of_axis = Names(registry), dict[tuple[str, int], Named]()

    def of_axis(axis: str, value: Any) -> Named:
        if (axis, id(value)) not in values_of_axis:
            values_of_axis[axis, id(value)] = {}
            _add(values_of_axis[axis, id(value)], axis, names.describe(value) if isinstance(value, Options) else value)
        return values_of_axis[axis, id(value)]
    rows = []
    for point in points:
        row: Named = {}
        for axis in sorted(point, key=lambda axis: "." in axis):
            row |= of_axis(axis, point[axis])
        rows.append(row)
    return rows


def conditions(text: str) -> list[tuple[str, Any]]:
    """The pairs of 'KEY=VALUE,KEY=VALUE'; a value is read as YAML. Raises DiffbenchError for any other text."""
    pairs = []
    for part in _parts(text):
        key, equals, value = (piece.strip() for piece in part.partition("="))
        if not key or not equals or not value:
            raise DiffbenchError(f"{brief(text)}: write KEY=VALUE, such as scheduler=ddim,steps=50 or "
                                 f"conditioning.scale=[1.5, 3.0]; got {part.strip()!r}")
        try:
            pairs.append((key.replace("-", "_"), yaml_file.parse(value, key).data))
        except MatrixError as error:
            raise DiffbenchError(f"{brief(text)}: {error.rendered[0]}") from None
    return pairs


def meets(rows: Sequence[Named], pairs: Iterable[tuple[str, Any]], registry: Registry | None = None, work: Work
          | None = None) -> list[bool]:
    """For each row, whether it meets every condition. A condition on a key that the row lacks is not met.

    registry: where components are known, by whose names and aliases they may be meant; raises UnknownComponent for one
    that does not exist.
    """
    ways_of_pairs = [_ways(key, value, registry) for key, value in pairs]
    (work or Work()).spend(len(rows) * sum(map(len, ways_of_pairs)))
    return [all(any(all(_has(row, key, values) for key, values in way.items()) for way in of_one)
                for of_one in ways_of_pairs) for row in rows]


def select(rows: Sequence[Named], text: str, registry: Registry | None = None, work: Work | None = None) -> list[int]:
    """The indices of the rows that an expression selects.

    Raises DiffbenchError for an unknown key or an empty selection.
    """
    pairs, keys, is_met = conditions(text), {key for row in rows for key in row}, list[list[bool]]()
    try:
        for key, value in pairs if rows else ():
            unknown = unknown_key(key, keys)
            if unknown:
                raise DiffbenchError(unknown)
            is_met.append(meets(rows, [(key, value)], registry, work))
            if not any(is_met[-1]):
                values = sorted({json.dumps(_get(row, key)) for row in rows if _key_in(row, key)})
                raise DiffbenchError(f"no cell has {key}={value}; there are {', '.join(values[:12])}"
                                     + (" ..." if len(values) > 12 else ""))
    except DiffbenchError as error:
        raise DiffbenchError(f"{brief(text)}: {error}") from None
    places = [i for i, of_row in enumerate(zip(*is_met, strict=True)) if all(of_row)]
    if not places:
        raise DiffbenchError(f"{brief(text)}: no cell has all of these at once")
    return places


def selected_ids(rows: Mapping[str, Named], text: str | None) -> list[str]:
    """The ids of the rows that an expression selects; none without an expression."""
    return [cell_id for cell_id, is_met in zip(rows, meets(list(rows.values()), conditions(text)), strict=True)
            if is_met] if text else []


def unknown_key(key: str, keys: Iterable[str]) -> str | None:
    """The message for a key that no cell has, or None. keys: the keys of all cells."""
    keys = sorted(keys)
    if _key_in(keys, key):
        return None
    names = ", ".join(k for k in keys if "." not in k)
    return f"no cell has {brief(key)}.{did_you_mean(key, keys)} Known: {names}, <kind>.<option>"


def without_seeds(row: Named) -> str:
    """The values of a row but for its seeds, as a text: equal for rows that differ in nothing but seeds."""
    return json.dumps({k: v for k, v in row.items() if k not in SEEDS}, sort_keys=True)


def varying(rows: Iterable[Named]) -> list[str]:
    """The keys, apart from seeds, in which rows differ; a key that only some rows have is one of them."""
    rows = list(rows)
    keys = dict.fromkeys(key for row in rows for key in row)
    return [k for k in keys if k not in SEEDS and k != "scheduler.steps"
            and len({json.dumps(row.get(k), sort_keys=True) for row in rows}) > 1]


def faults_of_report(report: Report, kinds: Sequence[str], blocks: Sequence[str],
                     cells: Iterable[Mapping[str, Any]] | None) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Mistakes in the block `report`: (path below `report`, sentence). cells: descriptions of all cells, or None."""
    names = [*kinds, *SEEDS, "steps", "guidance_scale"]
    for side in ("rows", "columns"):
        for i, name in enumerate(getattr(report, side)):
            if name.partition(".")[0] not in (*names, *blocks):
                yield (side, i), (f"there is no column {name!r} to lay a table out by.{did_you_mean(name, names)} "
                                  f"Known: {', '.join(names)}, <axis>.<option>")
    if report.baseline and cells is not None:
        fault = _fault_of_baseline(report.baseline, cells)
        if fault:
            yield ("baseline",), fault


def _fault_of_baseline(text: str, cells: Iterable[Mapping[str, Any]]) -> str | None:
    """The reason why an expression selects no row that others can be compared with, or None."""
    rows = [values_of(cell) for cell in cells]
    try:
        baseline_rows = [rows[i] for i in select(rows, text)]
    except DiffbenchError as error:
        return str(error)
    if len({without_seeds(row) for row in baseline_rows}) > 1:
        keys = ", ".join(varying(baseline_rows))
        return f"{brief(text)} means rows that differ in {keys}; a baseline is one row for each seed: say which"
    return None


def _parts(text: str) -> Iterator[str]:
    """The parts of a text between commas, except for commas inside of lists and mappings."""
    start = depth = 0
    for i, letter in enumerate(text):
        depth += (letter in "[{") - (letter in "]}" and depth > 0)
        if letter == "," and depth == 0:
            yield text[start:i]
            start = i + 1
    yield text[start:]


def _add(values: Named, key: str, description: Any) -> None:
    if not isinstance(description, dict):
        values[key] = description
        return
    values[key] = description["component"]
    for option, value in description["options"].items():
        _add(values, f"{key}.{option}", value)


def _ways(key: str, choices: Any, registry: Registry | None) -> list[dict[str, set[Any]]]:
    """The alternatives that meet one condition, each with the accepted values by key.

    Values without options are one.
    """
    plain, ways = set[Any](), list[dict[str, set[Any]]]()
    is_kind = registry is not None and key in registry.kinds
    for item in _flat(choices):
        name, options = next(iter(item.items())) if isinstance(item, dict) and len(item) == 1 else (item, None)
        is_spec = not isinstance(item, dict) or isinstance(options, dict | None)
        if not is_spec or isinstance(name, dict) or is_kind and not isinstance(name, str):
            raise DiffbenchError(f"a {key.replace('_', ' ')} is meant by its name or by 'name: {{option: value}}', got "
                                 f"{brief(item)}")
        value = _folded(registry.find(key, name).full_name if registry is not None and is_kind else name)
        if options:
            ways.append({key: {value}} | {f"{key}.{option}": set(map(_folded, _flat(values)))
                                          for option, values in options.items()})
        else:
            plain.add(value)
    return [{key: plain}, *ways] if plain or not ways else ways


def _has(row: Named, key: str, values: set[Any]) -> bool:
    """Whether a row has one of the values; '-' equals '_', and a name matches without its distribution too."""
    if not _key_in(row, key):
        return False
    value = _get(row, key)
    return _folded(value) in values or isinstance(value, str) and _folded(value.rpartition(".")[2]) in values


def _folded(value: Any) -> Any:
    """A hashable form that values which count as equal share; true is not 1."""
    if isinstance(value, bool):
        return ("yes or no", value)
    if isinstance(value, dict):
        raise DiffbenchError(f"an option of a condition has a plain value, or a list of them, got {brief(value)}")
    return (value.replace("-", "_") if isinstance(value, str) else tuple(map(_folded, value)) if isinstance(value, list)
            else value)


def _key_in(row: Iterable[str], key: str) -> bool:
    return key in row or ALIASES.get(key) in row


def _get(row: Named, key: str) -> Any:
    return row[key if key in row else ALIASES[key]]


def _flat(values: Any) -> Iterator[Any]:
    """The single values of a list, nested lists included; a nested list is yielded too, for options that hold lists."""
    if not isinstance(values, list):
        yield values
        return
    for item in values:
        if isinstance(item, list):
            yield item
        yield from _flat(item)
