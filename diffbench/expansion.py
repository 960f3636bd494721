"""From the content of a matrix to its cells: axes, grids, `together`, `exclude`, `include`, every mistake noted with its path."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from diffbench import rules, source, tracking
from diffbench.errors import DiffbenchError, OptionError, UnknownComponent, did_you_mean
from diffbench.matrix import BLOCKS, KEYS, SCHEMA, VARIABLE_BLOCKS, Cell, Excluded, Matrix, unique_ids
from diffbench.measured import metrics_of
from diffbench.options import Options, unknown_option
from diffbench.planning import describe_cell
from diffbench.selection import faults_of_report
from diffbench.settings import Run
from diffbench.specs import Names, Path, Reader, digest

SMOKE_TRAIN: dict[str, Any] = {"steps": 2, "batch_size": 8}
SMOKE_SAMPLE: dict[str, Any] = {"count": 8, "batch_size": 8}
SMOKE_THROUGHPUT: dict[str, Any] = {"repeats": 3, "batch_size": (2,)}


class Expansion:
    """One reading of one document: its axes, rules and single cells, made into points and the points into cells."""

    def __init__(self, data: Any, reader: Reader, max_cells: int, only: tuple[str, ...], smoke: bool):
        self.data = data if isinstance(data, dict) else {}
        self.reader, self.registry, self.max_cells, self.only, self.smoke = reader, reader.registry, max_cells, only, smoke
        self._replaced: dict[tuple[int, str, int], tuple[Any, ...]] = {}
        self.axis_kinds = [k.name for k in self.registry.kinds.values() if k.axis]
        if not isinstance(data, dict):
            reader.fault((), f"a matrix is a mapping that begins with 'diffbench: {SCHEMA}', got {data!r}")

    def matrix(self) -> Matrix | None:
        self._head()
        blocks = {name: self.reader.settings(cls, name, self.data.get(name), (name,)) for name, cls in BLOCKS.items()}
        self._trackers(blocks["run"])
        extractor = self._one("extractor")
        metrics = metrics_of(self.data.get("metrics", []), extractor, self.reader, lambda: self._default("metric"))
        axes = self._axes()
        coupled = self._together(axes)
        if self.reader.problems:                          # cells of a faulty file would only repeat its faults
            return None
        product = self._product(axes, coupled)
        if product is None:
            return None
        chosen, excluded = self._exclude(product)
        if self.smoke:
            metrics = [metric.for_smoke() for metric in metrics]
            blocks["throughput"] = replace(blocks["throughput"], **SMOKE_THROUGHPUT)
        points = rules.chosen_only(chosen + self._include(axes), self.only, self.registry)
        cells = [self._cell(point, blocks) for point in points]
        if self.reader.problems:
            return None
        names = Names(self.registry)
        ids = [digest(cell.identity(names))[:12] for cell in cells]
        first = {cell_id: i for i, cell_id in reversed(list(enumerate(ids)))}
        kept = [i for i, cell_id in enumerate(ids) if first[cell_id] == i or cells[first[cell_id]] != cells[i]]
        # A part of a matrix, or a smoke test of it, may be without its baseline.
        described = None if self.only or self.smoke else (describe_cell(cell, names) for cell in cells)
        for path, fault in faults_of_report(blocks["report"], self.axis_kinds, VARIABLE_BLOCKS, described):
            self.reader.fault(("report", *path), fault)
        return Matrix(name=self.data.get("name", "matrix"), cells=tuple(cells[i] for i in kept), cell_ids=unique_ids([ids[i] for i in kept]),
                      excluded=tuple(excluded), extractor=extractor, metrics=tuple(metrics), throughput=blocks["throughput"], run=blocks["run"],
                      report=blocks["report"], document=self.data)

    def _head(self) -> None:
        for key in self.data:
            if key not in KEYS:
                self.reader.fault((key,), f"unknown key {key!r}.{did_you_mean(key, (*KEYS, *self.axis_kinds))} A matrix has: {', '.join(KEYS)}"
                                  + (f"; '{key}' goes under axes" if key in self.axis_kinds else ""), on_key=True)
        if self.data.get("diffbench") != SCHEMA:
            found = repr(self.data["diffbench"]) if "diffbench" in self.data else "nothing"
            self.reader.fault(("diffbench",), f"the version of the file's schema must be {SCHEMA}, got {found}; write 'diffbench: {SCHEMA}'")
        name = self.data.get("name", "matrix")
        if not isinstance(name, str) or not source.is_name(name.replace("-", "_")):
            self.reader.fault(("name",), f"a name has letters a-z, digits, '-' and '_', begins with a letter and is at most 64 long, got {name!r}")

    def _trackers(self, run: Run) -> None:
        for i, name in enumerate(run.trackers):
            try:
                tracking.find(name)
            except DiffbenchError as error:
                self.reader.fault(("run", "trackers", i), str(error))

    def _one(self, kind: str) -> Any:
        if kind not in self.data:
            return self._default(kind)
        found = self.reader.components(kind, self.data[kind], (kind,))
        if len(found) > 1:
            self.reader.fault((kind,), f"one {kind} is used for the whole matrix, got {len(found)}")
        return found[0] if found else None

    def _default(self, kind: str) -> Any:
        try:
            return self.registry.default(kind)
        except DiffbenchError as error:
            self.reader.fault(("axes",) if self.registry.kinds[kind].axis else (), f"{kind} must be named: {error}")
            return None

    def _axes(self) -> dict[str, list[Any]]:
        """Values by axis name, in the order of the file; kinds it does not name follow with their default."""
        node = self.data.get("axes", {})
        if not isinstance(node, dict):
            self.reader.fault(("axes",), f"axes is a mapping from axis to values, got {node!r}")
            return {}
        axes: dict[str, list[Any]] = {}
        if "dataset" in self.data:
            if "dataset" in node:
                self.reader.fault(("axes", "dataset"), "dataset stands both at the top and under axes; keep one", on_key=True)
            axes["dataset"] = self.reader.components("dataset", self.data["dataset"], ("dataset",))
        for name, values in node.items():
            axes[name] = self._values(name, values, ("axes", name))
        groups = self.data.get("together")
        coupled = {name for group in (groups if isinstance(groups, list) else ()) if isinstance(group, dict) for name in group}
        axes |= {kind: [self._default(kind)] for kind in self.axis_kinds if kind not in axes and kind not in coupled}
        return axes if "seed" in axes or "seed" in coupled else axes | {"seed": [0]}

    def _values(self, name: str, node: Any, path: Path) -> list[Any]:
        """The values of an axis, or of one key of `together`."""
        items = [(v, (*path, i)) for i, v in enumerate(node)] if isinstance(node, list) else [(node, path)]
        if not items:
            self.reader.fault(path, f"the axis {name!r} is empty: name at least one value")
        block, _, option = name.partition(".")
        found: list[Any] = []
        for value, place in items:
            if name in self.axis_kinds:
                found += self.reader.components(name, value, place)
            elif name == "seed":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
                    self.reader.fault(place, f"a seed is an integer in [0, 2147483648), got {value!r}")
                else:
                    found.append(value)
            elif block in VARIABLE_BLOCKS and option:
                cls = BLOCKS[block]
                if option not in {f.name for f in fields(cls)}:
                    self.reader.fault(path, unknown_option(f"'{block}'", cls, option), on_key=True)
                    return []
                found += self.reader.value(cls, option, value, place).values()
            else:
                known = [*self.axis_kinds, "seed", *(f"{b}.{f.name}" for b in VARIABLE_BLOCKS for f in fields(BLOCKS[b]))]
                axes = ", ".join([*self.axis_kinds, "seed"])
                self.reader.fault(path, f"there is no axis {name!r}.{did_you_mean(name, known)} Axes are: {axes}, train.*, sample.*", on_key=True)
                return []
        return found

    def _together(self, axes: dict[str, list[Any]]) -> list[list[dict[str, Any]]]:
        """For each group, its positions: what they set, in step."""
        node = self.data.get("together", []) or []
        if not isinstance(node, list):
            self.reader.fault(("together",), f"together is a list of groups, got {node!r}")
            node = []
        groups = []
        for g, group in enumerate(node):
            path: Path = ("together", g)
            if not isinstance(group, dict) or not group:
                self.reader.fault(path, f"a group maps options to lists of one length, got {group!r}")
                continue
            columns: dict[str, list[Any]] = {}
            for name, values in group.items():
                if not isinstance(values, list):
                    self.reader.fault((*path, name), f"{name!r} changes in step with others, so it needs a list, got {values!r}")
                    continue
                kind, _, option = name.partition(".")
                if name in axes and name in (self.data.get("axes") or {}):
                    self.reader.fault((*path, name), f"{name!r} is already an axis; an option multiplies or changes in step, not both", on_key=True)
                elif kind in self.axis_kinds and option:
                    columns[name] = self._component_option(axes, kind, option, values, (*path, name))
                else:
                    columns[name] = self._values(name, values, (*path, name))
            lengths = {name: len(values) for name, values in columns.items()}
            if len(set(lengths.values())) > 1 and not self.reader.problems:
                self.reader.fault(path, "lists that change in step must have one length, got " + ", ".join(f"{n} for {name}" for name, n in lengths.items()))
                continue
            groups.append([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=False)])
        return groups

    def _component_option(self, axes: dict[str, list[Any]], kind: str, option: str, values: list[Any], path: Path) -> list[Any]:
        found: list[Any] = []
        for i, value in enumerate(values):
            accepted: dict[str, Any] = {}
            for component in axes.get(kind, []):
                if option not in {f.name for f in fields(component)}:
                    self.reader.fault(path, unknown_option(component.component_name(), type(component), option), on_key=True)
                    return []
                accepted = self.reader.value(type(component), option, value, (*path, i))
            found += accepted.values()
        return found

    def _product(self, axes: dict[str, list[Any]], coupled: list[list[dict[str, Any]]]) -> list[dict[str, Any]] | None:
        size = math.prod(len(v) for v in axes.values()) * math.prod(len(g) for g in coupled)
        if size > self.max_cells:
            lengths = " x ".join(f"{len(v)} {name}" for name, v in axes.items() if len(v) > 1)
            self.reader.fault(("axes",), f"the product has {size} cells ({lengths}), and {self.max_cells} are allowed; --max-cells raises the limit")
            return None
        points: list[dict[str, Any]] = [{}]
        for name, values in axes.items():
            points = [{**point, name: value} for point in points for value in values]
        for group in coupled:
            points = [{**point, **position} for point in points for position in group]
        return points

    def _exclude(self, points: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Excluded]]:
        node = self.data.get("exclude", []) or []
        excluded: list[Excluded] = []
        if not isinstance(node, list):
            self.reader.fault(("exclude",), f"exclude is a list of rules, got {node!r}")
            return points, excluded
        for i, rule in enumerate(node):
            path: Path = ("exclude", i)
            if not isinstance(rule, dict) or not set(rule) - {"why"}:
                self.reader.fault(path, f"a rule maps axes to the values it leaves out, got {rule!r}")
                continue
            if not isinstance(rule.get("why", ""), str):
                self.reader.fault((*path, "why"), f"why is a text, got {rule['why']!r}")
                continue
            wanted = {key: value for key, value in rule.items() if key != "why"}
            unknown = [key for key in wanted if points and not rules.is_known(key, points[0])]
            for key in unknown:
                here = ", ".join(points[0])
                self.reader.fault((*path, key), f"there is no axis {key!r} to match.{did_you_mean(key, points[0])} This matrix has: {here}", on_key=True)
            if unknown:
                continue
            try:
                kept = [p for p in points if not all(rules.matches(p, key, value, self.registry) for key, value in wanted.items())]
            except UnknownComponent as error:
                self.reader.fault(path, str(error))
                continue
            if len(kept) == len(points):
                self.reader.fault(path, f"this rule leaves out no cell (of {len(points)}): correct or remove it")
            excluded.append(Excluded(count=len(points) - len(kept), why=rule.get("why", "excluded without a reason")))
            points = kept
        return points, excluded

    def _include(self, axes: dict[str, list[Any]]) -> list[dict[str, Any]]:
        node = self.data.get("include", []) or []
        if not isinstance(node, list):
            self.reader.fault(("include",), f"include is a list of cells, got {node!r}")
            node = []
        points = []
        for i, cell in enumerate(node):
            path: Path = ("include", i)
            if not isinstance(cell, dict):
                self.reader.fault(path, f"a cell maps axes to values, got {cell!r}")
                continue
            point: dict[str, Any] = {}
            for name, value in cell.items():
                values = self._values(name, value, (*path, name))
                if len(values) > 1:
                    self.reader.fault((*path, name), f"an included cell is a single one, and {name!r} has {len(values)} values")
                point.update({name: values[0]} if values else {})
            for name, values in axes.items():
                if name not in cell and len(values) > 1 and not name.startswith(VARIABLE_BLOCKS):
                    self.reader.fault(path, f"this cell must say which {name}: the axis has {len(values)} values")
                elif name not in cell and not name.startswith(VARIABLE_BLOCKS):
                    point[name] = values[0]
            points.append(point)
        return points

    def _cell(self, point: dict[str, Any], blocks: dict[str, Any]) -> Cell | None:
        """A point as a cell: dotted keys change options of its components and settings."""
        values = {name: value for name, value in point.items() if "." not in name}
        settings = {"train": blocks["train"], "sample": blocks["sample"]}
        for name, value in point.items():
            owner, _, option = name.partition(".")
            try:
                if owner in settings and option:
                    settings[owner] = self._with(settings[owner], option, value)
                elif option:
                    values[owner] = self._with(values[owner], option, value)
            except OptionError as error:
                self.reader.fault(("together",), f"{name}: {error}")
        if self.smoke:
            values["scheduler"] = self._with(values["scheduler"], "steps", max(2, values["scheduler"].min_steps))
            for block, smaller in (("train", SMOKE_TRAIN | {"gpus": min(settings["train"].gpus, SMOKE_TRAIN["batch_size"])}), ("sample", SMOKE_SAMPLE)):
                for option, value in smaller.items():
                    settings[block] = self._with(settings[block], option, value)
        wanted = [f.name for f in fields(Cell) if f.name not in settings]
        missing = [name for name in wanted if values.get(name) is None]
        if missing:                                       # an included cell that is silent about what changes in step elsewhere
            self.reader.fault(("include",), f"an included cell must also name its {', '.join(missing)}")
            return None
        return Cell(**{name: values[name] for name in wanted}, **settings)

    def _with(self, options: Options, name: str, value: Any) -> Any:
        """Options with one of them changed, made and checked once for all cells that ask for it."""
        key = (id(options), name, id(value))
        if key not in self._replaced:
            self._replaced[key] = (replace(options, **{name: value}), options, value)         # kept, so that their ids stay their own
        return self._replaced[key][0]
