"""Frames as CSV and parquet: read back, each value is what it was, and no spreadsheet runs a text.

Parquet: a column of several types, of lists, or of integers beyond 64 bits is a column of JSON texts, and its field
says so in its metadata. CSV: a text that a spreadsheet or a reader would take for something else begins with an
apostrophe; reading takes it off again.
"""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffbench.results.frame import column, is_missing, kind_of, of_text
from diffbench.wording import encoded

if TYPE_CHECKING:
    import pandas

MARK = {b"diffbench": b"json"}        # metadata of a parquet field whose texts are JSON
FORMULA = re.compile(r"[\t\r\n']|\s*[=+\-@＝＋－＠]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?inf|nan", re.IGNORECASE | re.ASCII)
WORDS = {"True": True, "False": False}


def as_csv(table: pandas.DataFrame) -> bytes:
    """A frame as CSV, without its index."""
    # rows of results: what is no text there is told apart from texts
    is_typed = "cell_id" in table
    columns = [[guarded(str(name)), *(_cell(value, is_typed and kind_of(str(name)) == "any")
                                      for value in table[name].tolist())]
               for name in table.columns]
    return encoded("".join(",".join(map(_quoted, line)) + "\n" for line in zip(*columns, strict=True)))


def pivot_as_csv(table: pandas.DataFrame) -> bytes:
    """A pivot, whose lines and columns are named by texts, as CSV."""
    def name(text: Any) -> Any:
        return guarded(text).replace("\r", " ") if isinstance(text, str) else text
    return encoded(table.rename(index=name, columns=name).to_csv(lineterminator="\n"))


def read_csv(path: Path) -> pandas.DataFrame:
    """A CSV as `as_csv` wrote it, or one without its apostrophes. The name `none` is a name, and keys are texts."""
    import pandas

    cells = pandas.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    cells.columns = [name.removeprefix("'") for name in cells.columns]
    return pandas.DataFrame({name: column(name, [_value(text, kind_of(name)) for text in cells[name]])
                             for name in cells.columns},
                            columns=cells.columns)


def as_parquet(table: pandas.DataFrame) -> bytes:
    """A frame as parquet, with checksums of its pages."""
    import pyarrow
    import pyarrow.parquet

    mixed = [name for name in table.columns if table[name].dtype == "object" and not of_text(table[name])]
    texts = {name: [None if is_missing(value) else json.dumps(value) for value in table[name]] for name in mixed}
    whole = pyarrow.Table.from_pandas(table.assign(**texts), preserve_index=False)
    for name in mixed:
        place = whole.schema.get_field_index(name)
        whole = whole.set_column(place, whole.schema.field(place).with_metadata(MARK), whole.column(place))
    data = io.BytesIO()
    pyarrow.parquet.write_table(whole, data, write_page_checksum=True)
    return data.getvalue()


def read_parquet(path: Path) -> pandas.DataFrame:
    """A parquet file as `as_parquet` wrote it."""
    import pyarrow.parquet

    whole = pyarrow.parquet.read_table(path)
    table = whole.to_pandas()
    for field in whole.schema:
        if (field.metadata or {}).get(b"diffbench") == MARK[b"diffbench"]:
            values = [None if is_missing(text) else json.loads(text) for text in table[field.name]]
            table[field.name] = column(field.name, values)
    return table


def guarded(text: str, *, is_typed: bool = False) -> str:
    """A text as a cell of CSV. is_typed: whether other cells of its column may be numbers, truths or lists."""
    if FORMULA.match(text) and text != "-" and not _is_written_number(text):
        return f"'{text}"
    if NUMBER.fullmatch(text) and (is_typed or not _is_written_number(text)):
        return f"'{text}"
    return f"'{text}" if is_typed and (text in WORDS or text == "" or text.startswith("[")) else text


def _is_written_number(text: str) -> bool:
    """Whether a text is a number as printed, which may be read as one without loss: '-1', '1e-05', not '007' or '+1'.
    """
    if not NUMBER.fullmatch(text) or len(text) > 24 or not text[-1].isdecimal():
        return False
    value = float(text)
    is_whole = text.lstrip("-").isdecimal() and len(text) <= 16
    return text in (repr(value), f"{value:g}") or (is_whole and text == str(int(text)))


def _quoted(cell: str) -> str:
    """A cell as it stands in a line; pandas' writer leaves a carriage return bare, at which every reader ends the line.
    """
    doubled = cell.replace('"', '""')
    return f'"{doubled}"' if any(c in cell for c in ',"\n\r') else cell


def _cell(value: Any, is_typed: bool) -> str:
    if is_missing(value):
        return ""
    if isinstance(value, str):
        return guarded(value, is_typed=is_typed)
    return json.dumps(value) if isinstance(value, tuple) else repr(value) if isinstance(value, float) else str(value)


def _value(text: str, kind: str) -> Any:
    """Value of a cell; None where it is empty."""
    if text.startswith("'"):
        return text[1:]
    if text == "":
        return None
    if kind == "text":
        return text
    if NUMBER.fullmatch(text):
        return int(text) if text.lstrip("+-").isdecimal() else float(text)
    if text in WORDS:
        return WORDS[text]
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text
