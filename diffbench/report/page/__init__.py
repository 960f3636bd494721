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

from diffbench.errors import DiffbenchError
from diffbench.pairs import without_nan
from diffbench.report.page import data, pictures
from diffbench.report.reading import Source
from diffbench.report.sections import Picture, Section
from diffbench.store import Store, write_atomically

FILE = "report.html"
PARTS = "diffbench.report.page"
NOT_JSON = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})     # what could end or open a tag


def write(source: Source, path: Path, store: Store, sections: Iterable[tuple[str, Section]] = ()) -> None:
    """Writes the page, whole or not at all."""
    write_atomically(path, html(source, store, sections).encode())


def html(source: Source, store: Store, sections: Iterable[tuple[str, Section]] = (), *, is_live: bool = False) -> str:
    """The page of one run, or of several that were merged.

    store: where the losses of trainings lie; what it no longer has is left out. sections: of plug-ins, with their names. is_live: whether the page asks the
    server it came from for news.
    """
    lines = data.configurations(source)
    sheets, costs = data.of_sheets(source, lines), data.of_costs(source, lines)
    first = next((s for s in sheets if s["better"]), None)
    order = range(len(lines.keys))
    if first is not None:
        order = sorted(order, key=lambda c: _rank(first, c))
    grids, left_out = pictures.grids(source, lines, order)
    facts = [{k: v for k, v in f.items() if k != "cells"} for f in lines.facts]
    shown = {"naming": lines.naming, "keys": list(lines.keys), "words": lines.words, "labels": lines.labels, "facts": facts, "sheets": sheets,
             "costs": costs, "curves": data.curves(source, store), "runs": source.labels}
    script, plotly = _part("script.js"), _plotly()
    statuses = source.rows["status"].value_counts().to_dict()
    return _template().render(
        source=source, lines=lines, keys=list(lines.keys), sheets=sheets, costs=costs,
        columns=_columns(sheets), first=first, headline=data.headline(sheets, costs, lines),
        cost_titles=list(dict.fromkeys(title for c in costs for title in c["more"])), curves=shown["curves"], grids=grids, left_out=left_out, order=order,
        films=pictures.films(source, lines), bad=data.not_measured(source), environments=data.environments(source), notes=list(source.notes()),
        copies=data.copies(source), statuses=statuses, sections=[(name, section.title, [_piece(part) for part in section.body]) for name, section in sections],
        caption=data.caption(source), has_scales=len({f["scale"] for f in lines.facts if f["trained"]}) > 1, is_live=is_live,
        style=Markup(_part("style.css")), script=Markup(script), plotly=Markup(plotly), json=Markup(json.dumps(without_nan(shown)).translate(NOT_JSON)),
        policy=_policy(script, plotly, is_live), best_cell=lines.facts[first["best"]]["cells"][0] if first and first["best"] is not None else None)


def _rank(sheet: dict[str, Any], place: int) -> float:
    entry = sheet["entries"].get(place)
    if entry is None:
        return float("inf")
    return entry["debiased"] if sheet["better"] == "lower" else -entry["debiased"]


def _columns(sheets: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The columns of the table of quality: sheets of one column stand in one, as long as no line would have two values."""
    found: list[dict[str, Any]] = []
    for sheet in sheets:
        same = next((c for c in found if c["column"] == sheet["column"] and not set(c["entries"]) & set(sheet["entries"])), None)
        if same is None:
            found.append({"column": sheet["column"], "title": sheet["column"] if all(c["column"] != sheet["column"] for c in found) else sheet["title"],
                          "better": sheet["better"], "entries": dict(sheet["entries"])})
        else:
            same["entries"] |= sheet["entries"]
    return found


def _piece(part: str | pandas.DataFrame | Picture) -> tuple[str, Any]:
    """(kind, what the template shows) of a part of a plug-in's section."""
    if isinstance(part, str):
        return "text", part
    if isinstance(part, pandas.DataFrame):
        return "table", ([str(name) for name in part.columns], [["" if pandas.isna(v) else f"{v:.4g}" if isinstance(v, float) else str(v) for v in row]
                                                               for row in part.itertuples(index=False, name=None)])
    return "picture", (pictures.uri(part.data, str(part.type)), part.alt)


def _prose(text: str) -> Markup:
    """Text with **bold** and `code`, all else escaped."""
    safe = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", str(escape(text)))
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", safe))


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _policy(script: str, plotly: str, is_live: bool) -> str:
    """What the browser may do with the page: run these two scripts, show pictures that are inside of it, and nothing else."""
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (script, plotly))
    server = "'self'" if is_live else "'none'"
    return (f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; connect-src {server}; base-uri 'none'; "
            "form-action 'none'")


@cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"prose": _prose, "number": _number, "signed": _signed, "entry": data.text_of, "lines": _lines, "json_link": _json_link,
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
