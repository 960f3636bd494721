"""report.html: everything that a run found out, in one file that works from disk, without a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import pandas
from markupsafe import Markup, escape

from diffbench.contracts.sections import Picture, Section
from diffbench.errors import DiffbenchError
from diffbench.report.page import data, pictures
from diffbench.report.page.environments import environments
from diffbench.report.page.shapes import Column, Sheet
from diffbench.report.reading import Source
from diffbench.results.records import without_nan
from diffbench.store.artefacts import Store, write_atomically
from diffbench.wording import encoded

FILE = "report.html"
PARTS = "diffbench.report.page"
# what could end or open a tag
NOT_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def write(source: Source, path: Path, store: Store, sections: Iterable[tuple[str, Section]] = ()) -> None:
    """Writes the page, whole or not at all."""
    write_atomically(path, encoded(html(source, store, sections)))


def html(source: Source, store: Store, sections: Iterable[tuple[str, Section]] = (), *, is_live: bool = False) -> str:
    """The page of one run, or of several that were merged.

    store: where the losses of trainings lie; what it no longer has is left out. sections: of plug-ins, with their
    names. is_live: whether the page asks the server it came from for news.
    """
    lines = data.configurations(source)
    sheets, costs = data.of_sheets(source, lines), data.of_costs(source, lines)
    first = next((s for s in sheets if s["better"]), None)
    order = range(len(lines.keys))
    if first is not None:
        order = sorted(order, key=lambda c: _rank(first, c))
    grids, left_out = pictures.grids(source, lines, order)
    facts = [{k: v for k, v in f.items() if k != "cells"} for f in lines.facts]
    for_script = {"naming": lines.naming, "keys": list(lines.keys), "words": lines.words, "labels": lines.labels,
             "facts": facts, "sheets": sheets,
             "costs": costs, "curves": data.curves(source, store), "runs": source.labels}
    script, plotly = _part("script.js"), _plotly()
    statuses = source.rows["status"].value_counts().to_dict()
    return _template().render(
        source=source,
        lines=lines,
        keys=list(lines.keys),
        sheets=sheets,
        costs=costs,
        columns=_columns(sheets),
        first=first,
        headline=data.headline(sheets, costs, lines),
        cost_titles=list(dict.fromkeys(title for c in costs for title in c["more"])),
        curves=for_script["curves"],
        grids=grids,
        left_out=left_out,
        order=order,
        films=pictures.films(source, lines),
        bad=data.not_measured(source),
        environments=environments(source),
        notes=list(source.notes()),
        copies=data.copies(source),
        statuses=statuses,
        sections=[(name, section.title, [_piece(part) for part in section.body]) for name, section in sections],
        caption=data.caption(source),
        caveat=data.caveat(source),
        contradictions=data.contradictions(source, lines),
        has_scales=len({f["scale"] for f in lines.facts if f["trained"]}) > 1,
        is_live=is_live,
        has_shares=any(c["share"] is not None for c in costs),
        has_unequal=first is not None and any(e["unequal"] for a in first["axes"] for e in a["effects"]),
        style=Markup(_part("style.css")),
        script=Markup(script),
        plotly=Markup(plotly),
        json=Markup(json.dumps(without_nan(for_script)).translate(NOT_JSON)),
        policy=_policy(script, plotly, is_live),
        best_cell=lines.facts[first["best"]]["cells"][0] if first and first["best"] is not None else None,
    )


def _rank(sheet: Sheet, place: int) -> float:
    entry = sheet["entries"].get(place)
    if entry is None or entry["value"] is None:
        return float("inf")
    return entry["value"] if sheet["better"] == "lower" else -entry["value"]


def _columns(sheets: list[Sheet]) -> list[Column]:
    """The columns of the table of quality: sheets of one quantity stand in one,
    as long as no line would have two values.
    """
    columns: list[Column] = []
    for sheet in sheets:
        name, better, conventional = sheet["name"], sheet["better"], sheet["conventional"]
        same = [column for column in columns if column["name"] == name]
        free = next((column for column in same if column["entries"].keys().isdisjoint(sheet["entries"])), None)
        if free is not None:
            free["entries"] |= sheet["entries"]
        else:
            columns.append({"name": name, "title": sheet["title"] if same else name, "better": better,
                            "conventional": conventional,
                            "entries": dict(sheet["entries"])})
    return columns


def _piece(part: str | pandas.DataFrame | Picture) -> tuple[str, Any]:
    """(kind, what the template shows) of a part of a plug-in's section."""
    if isinstance(part, str):
        return "text", part
    if isinstance(part, pandas.DataFrame):
        return "table", ([str(name) for name in part.columns],
                         [["" if pandas.isna(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
                         for row in part.itertuples(index=False, name=None)])
    return "picture", (pictures.uri(part.data, str(part.type)), part.alt)


def _prose(text: str) -> Markup:
    """Text with **bold** and `code`, all else escaped."""
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _policy(script: str, plotly: str, is_live: bool) -> str:
    """Policy for what the browser may do with the page: run these two scripts, show pictures that are inside of it,
    and nothing else.
    """
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
                      for text in (script, plotly))
    server = "'self'" if is_live else "'none'"
    return (f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src "
            f"{server}; base-uri 'none'; form-action 'none'")


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
                                     lstrip_blocks=True)
    environment.filters |= {"prose": _prose, "number": _number, "entry": data.text_of, "lines": _lines,
                            "json_link": _json_link,
                            "pins": _pins}
    return environment.from_string(_part("template.html.jinja"))


def _lines(text: str) -> Iterator[str]:
    return (line for line in text.split("\n\n") if line)


def _json_link(value: Any) -> str:
    return pictures.uri(json.dumps(value, indent=1).encode(), "application/json")


def _pins(packages: dict[str, str]) -> str:
    return pictures.uri("".join(f"{name}=={version}\n" for name, version in packages.items()).encode(), "text/plain")


@cache
def _part(name: str) -> str:
    return resources.files(PARTS).joinpath(name).read_text(encoding="utf-8")


@cache
def _plotly() -> str:
    """The script that draws the figures, once."""
    from plotly.offline import get_plotlyjs

    text = get_plotlyjs()
    if "</script" in text.lower():
        raise DiffbenchError("this release of plotly has a script that cannot stand inside a page: install another one")
    return text
