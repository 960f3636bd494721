"""Expansion of a matrix file into cells: axes, `together`, `exclude`, `include`. Used by `loading`."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

from diffbench.contracts.cell import component_kinds
from diffbench.contracts.options import Options, unknown_option, write_whole
from diffbench.errors import DiffbenchError
from diffbench.matrix import selection
from diffbench.matrix.cells import Cells
from diffbench.matrix.chosen_points import Point, excluded_from, selected
from diffbench.matrix.describing import describe_cell, identity_of
from diffbench.matrix.matrix import BLOCKS, KEYS, SCHEMA, VARIABLE_BLOCKS, Matrix, axis_kinds, unique_ids
from diffbench.matrix.metrics import metrics_of
from diffbench.matrix.reading import Path, Reader
from diffbench.matrix.settings import OFF, Run
from diffbench.registry import entry_points, offered
from diffbench.registry.describing import Names
from diffbench.store.digest import digest
from diffbench.wording import brief, did_you_mean

SMOKE_THROUGHPUT: dict[str, Any] = {"repeats": 3, "batch_size": (2,)}


class Expansion:
    """Expansion of one document: axes, rules and included cells become points, and points become cells."""

    def __init__(self, data: Any, reader: Reader, max_cells: int, only: tuple[str, ...], smoke: bool):
        self.data = data if isinstance(data, dict) else {}
        self.reader, self.registry, self.max_cells, self.only, self.smoke = (
            reader, reader.registry, max_cells, only, smoke)
        self.axis_kinds = axis_kinds(self.registry)
        groups = self.data.get("together")
        self.coupled = {name for group in (groups if isinstance(groups, list) else ()) if isinstance(group, dict)
                        for name in group}
        # of these every cell has a value
        self.axis_names = {*self.coupled, *(axes if isinstance(axes := self.data.get("axes"), dict) else ())}
        if not isinstance(data, dict):
            reader.fault((), f"a matrix is a mapping that begins with 'diffbench: {SCHEMA}', got {brief(data)}")

    def matrix(self) -> Matrix | None:
        self._head()
        blocks: dict[str, Any] = {name: self._block(name, cls) for name, cls in BLOCKS.items()}
        self._trackers(blocks["run"])
        extractor = self._extractor()
        metrics = metrics_of(self.data.get("metrics", []), extractor, self.reader, lambda: self._default("metric"))
        axes = self._axes()
        coupled = self._together(axes)
        if self.reader.problems:                          # cells of a faulty file would only repeat its faults
            return None
        product = self._product(axes, coupled)
        if product is None:
            return None
        product_cells, excluded = excluded_from(product, self._items("exclude", "rules"), self.reader)
        if self.smoke:
            metrics = [metric.for_smoke() for metric in metrics]
            blocks["throughput"] = blocks["throughput"] and replace(blocks["throughput"], **SMOKE_THROUGHPUT)
        included = self._include(axes)
        if len(product) + len(included) > self.max_cells:
            self.reader.fault(("include",), f"{len(included)} cells are included beside {len(product)} of the product, "
                                            f"and {self.max_cells} are allowed; "
                              "--max-cells raises the limit")
            return None
        if self.reader.problems:
            return None
        points = selected(product_cells + included, self.only, self.registry)
        maker = Cells(self.reader, blocks, self.axis_names, self.smoke)
        cells = [maker.cell(point) for point in points]
        if self.reader.problems:
            return None
        names = Names(self.registry)
        ids = [digest(identity_of(cell, names))[:12] for cell in cells]
        first = {cell_id: i for i, cell_id in reversed(list(enumerate(ids)))}
        distinct = [i for i, cell_id in enumerate(ids) if first[cell_id] == i or cells[first[cell_id]] != cells[i]]
        # A part of a matrix, or a smoke test of it, may be without its baseline.
        descriptions = None if self.only or self.smoke else (describe_cell(cell, names) for cell in cells)
        for path, fault in selection.faults_of_report(blocks["report"], self.axis_kinds, VARIABLE_BLOCKS, descriptions):
            self.reader.fault(("report", *path), fault)
        return Matrix(name=self.data.get("name", "matrix"), cells=tuple(cells[i] for i in distinct),
                      cell_ids=unique_ids([ids[i] for i in distinct]),
                      excluded=tuple(excluded), extractor=extractor, metrics=tuple(metrics),
                      throughput=blocks["throughput"], run=blocks["run"],
                      report=blocks["report"], document=self.data)

    def _block(self, name: str, cls: type[Options]) -> Options | None:
        """One block of settings; None for `throughput: off`."""
        if name == "throughput" and self.data.get(name) in (OFF, False):
            return None
        return self.reader.settings(cls, name, self.data.get(name), (name,),
                                    instead=f" or {OFF}" if name == "throughput" else "")

    def _head(self) -> None:
        for key in self.data:
            if key not in KEYS:
                self.reader.fault((key,), f"unknown key {brief(key)}.{did_you_mean(key, (*KEYS, *self.axis_kinds))} A "
                                          f"matrix has: {', '.join(KEYS)}"
                                  + (f"; {brief(key)} goes under axes" if key in self.axis_kinds else ""), on_key=True)
        version = self.data.get("diffbench")
        if version != SCHEMA or isinstance(version, bool):
            given = brief(version) if "diffbench" in self.data else "nothing"
            self.reader.fault(("diffbench",),
                              f"the version of the file's schema must be {SCHEMA}, got {given}; write 'diffbench: "
                              f"{SCHEMA}'")
        name = self.data.get("name", "matrix")
        if not isinstance(name, str) or not entry_points.is_name(name.replace("-", "_")):
            self.reader.fault(("name",), "a name has letters a-z, digits, '-' and '_', begins with a letter and is at "
                                         f"most 64 long, got {brief(name)}")

    def _trackers(self, run: Run) -> None:
        for i, name in enumerate(run.trackers):
            try:
                offered.find("tracker", name)
            except DiffbenchError as error:
                self.reader.fault(("run", "trackers", i), str(error))

    def _extractor(self) -> Any:
        if "extractor" not in self.data:
            return self._default("extractor")
        components = self.reader.components("extractor", self.data["extractor"], ("extractor",))
        if len(components) > 1:
            self.reader.fault(("extractor",), f"one extractor is used for the whole matrix, got {len(components)}")
        return components[0] if components else None

    def _default(self, kind: str) -> Any:
        try:
            return self.registry.default(kind)
        except DiffbenchError as error:
            self.reader.fault(("axes",) if self.registry.kinds[kind].axis else (), f"{kind} must be named: {error}")
            return None

    def _axes(self) -> dict[str, list[Any]]:
        """Values by axis name, in the order of the file.

        Kinds that the file does not name follow with their default.
        """
        node = self.data.get("axes", {})
        if not isinstance(node, dict):
            self.reader.fault(("axes",), f"axes is a mapping from axis to values, got {brief(node)}")
            return {}
        axes: dict[str, list[Any]] = {}
        if "dataset" in self.data:
            if "dataset" in node:
                self.reader.fault(("axes", "dataset"), "dataset stands both at the top and under axes; keep one",
                                  on_key=True)
            axes["dataset"] = self.reader.components("dataset", self.data["dataset"], ("dataset",))
        for name, values in node.items():
            axes[name] = self._values(name, values, ("axes", name))
        axes |= {kind: [self._default(kind)] for kind in component_kinds() if kind not in axes
                 and kind not in self.coupled}
        return axes if "seed" in axes or "seed" in self.coupled else axes | {"seed": [0]}

    def _items(self, key: str, item_kind: str) -> list[tuple[Any, Path]]:
        """The items of a list at the top of the file, each with its path; a single item may stand without brackets."""
        node = self.data.get(key)
        if isinstance(node, dict):
            return [(node, (key,))]
        if not isinstance(node, list | None):
            self.reader.fault((key,), f"{key} is a list of {item_kind}, got {brief(node)}")
            return []
        return [(item, (key, i)) for i, item in enumerate(node or [])]

    def _values(self, name: str, node: Any, path: Path) -> list[Any]:
        """The values of an axis, or of one key of `together`."""
        items = [(v, (*path, i)) for i, v in enumerate(node)] if isinstance(node, list) else [(node, path)]
        if not items:
            self.reader.fault(path, f"the axis {brief(name)} is empty: name at least one value")
        block, _, option = name.partition(".")
        accepted: list[Any] = []
        for value, place in items:
            if name in self.axis_kinds:
                accepted += self.reader.components(name, value, place)
            elif name == "seed":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
                    self.reader.fault(place, "a seed is an integer in [0, 2147483648), got "
                                             f"{brief(value)}{write_whole(value)}")
                else:
                    accepted.append(value)
            elif block in VARIABLE_BLOCKS and option:
                cls = BLOCKS[block]
                if option not in {f.name for f in fields(cls)}:
                    self.reader.fault(path, unknown_option(f"'{block}'", cls, option), on_key=True)
                    return []
                accepted += self.reader.value(cls, option, value, place).values()
            else:
                names = [*self.axis_kinds, "seed", *(f"{b}.{f.name}" for b in VARIABLE_BLOCKS
                                                     for f in fields(BLOCKS[b]))]
                axes = ", ".join([*self.axis_kinds, "seed"])
                self.reader.fault(path, f"there is no axis {brief(name)}.{did_you_mean(name, names)} Axes are: {axes}, "
                                        "train.*, sample.*", on_key=True)
                return []
        return accepted

    def _together(self, axes: dict[str, list[Any]]) -> list[list[Point]]:
        """The positions of each group of `together`; a position sets one value of every option of the group."""
        groups, coupled_names = [], set[str]()
        for group, path in self._items("together", "groups"):
            if not isinstance(group, dict) or not group:
                self.reader.fault(path, f"a group maps options to lists of one length, got {brief(group)}")
                continue
            columns: dict[str, list[Any]] = {}
            for name, node in group.items():
                values = node if isinstance(node, list) else [node]
                kind, _, option = name.partition(".")
                if name in axes and name in (self.data.get("axes") or {}):
                    self.reader.fault((*path, name), f"{brief(name)} is already an axis; an option multiplies or "
                                                     "changes in step, not both", on_key=True)
                elif name in coupled_names:
                    self.reader.fault(
                        (*path, name), f"{brief(name)} changes in step with another group already; keep one",
                        on_key=True)
                elif kind in self.axis_kinds and option:
                    columns[name] = self._component_option(axes, kind, option, values, (*path, name))
                else:
                    columns[name] = self._values(name, values, (*path, name))
            coupled_names |= set(columns)
            lengths = {name: len(values) for name, values in columns.items()}
            if len(set(lengths.values())) > 1 and not self.reader.problems:
                self.reader.fault(path, "lists that change in step must have one length, got "
                                  + ", ".join(f"{n} for {name}" for name, n in lengths.items()))
                continue
            groups.append([dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=False)])
        return groups

    def _component_option(self, axes: dict[str, list[Any]], kind: str, option: str, values: list[Any],
                          path: Path) -> list[Any]:
        # None: its default is missing
        classes = dict.fromkeys(type(component) for component in axes.get(kind, []) if component is not None)
        if kind not in axes:
            why = (f"'{kind}' changes in step itself, so its options stand beside each of its values"
                   if kind in self.coupled else \
                f"no {kind} is named, so there is none whose options could change: name one under axes")
            self.reader.fault(path, why, on_key=True)
        accepted_values: list[Any] = []
        for i, value in enumerate(values):
            by_option: dict[str, Any] = {}
            for cls in classes:
                if option not in {f.name for f in fields(cls)}:
                    self.reader.fault(path, unknown_option(cls.component_name(), cls, option), on_key=True)
                    return []
                by_option = self.reader.value(cls, option, value, (*path, i))
            accepted_values += by_option.values()
        return accepted_values

    def _product(self, axes: dict[str, list[Any]], coupled: list[list[Point]]) -> list[Point] | None:
        size = math.prod(len(v) for v in axes.values()) * math.prod(len(g) for g in coupled)
        if size > self.max_cells:
            lengths = " x ".join([*(f"{len(v)} {name}" for name, v in axes.items() if len(v) > 1),
                                  *(f"{len(g)} in step" for g in coupled)])
            self.reader.fault(("axes",), f"the product has {size} cells ({lengths}), and {self.max_cells} are allowed; "
                                         "--max-cells raises the limit")
            return None
        points: list[Point] = [{}]
        for name, values in axes.items():
            points = [{**point, name: value} for point in points for value in values]
        for group in coupled:
            points = [{**point, **position} for point in points for position in group]
        return points

    def _include(self, axes: dict[str, list[Any]]) -> list[Point]:
        points = []
        for cell, path in self._items("include", "cells"):
            if not isinstance(cell, dict):
                self.reader.fault(path, f"a cell maps axes to values, got {brief(cell)}")
                continue
            point: Point = {}
            for name, value in cell.items():
                values = self._values(name, value, (*path, name))
                if len(values) > 1:
                    self.reader.fault((*path, name), f"an included cell is a single one, and {brief(name)} has "
                                                     f"{len(values)} values")
                point.update({name: values[0]} if values else {})
            for name, values in axes.items():
                if name not in cell and len(values) > 1 and not name.startswith(VARIABLE_BLOCKS):
                    self.reader.fault(path, f"this cell must say which {name}: the axis has {len(values)} values")
                elif name not in cell and not name.startswith(VARIABLE_BLOCKS):
                    point[name] = values[0]
            points.append(point)
        return points
