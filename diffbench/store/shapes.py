"""Checks of JSON that is read from a disk, which can be combined. Each raises ValueError with the place.

Used by `contents`.

Used by `contents` for artefacts and by `results.folder` for the folder of results.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NoReturn

Check = Callable[[Any, str], None]    # (value, where): raises ValueError where the value is not what is expected
MOST_SHOWN = 60                       # letters of a value in a message
_SEPARATORS = re.compile(rb"[,\[{:]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")       # half of a letter, as the name of a file that is no text gives it


def parse(data: bytes, most_values: int | None = None) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, holds NaN or infinity, or has too many values.

    most_values: counted before anything is parsed, since Python makes 60 to 100 bytes of a value of two letters.
    """
    if most_values is not None and len(data) > most_values and sum(1 for _ in _SEPARATORS.finditer(data)) > most_values:
        raise ValueError(f"it holds more than {most_values:,} values")
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        return _as_unicode(value) if _SURROGATE.search(data) else value
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def number(value: Any, where: str) -> None:
    """An integer or a finite float."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or (isinstance(value, float) and not math.isfinite(value)) or abs(value) > 1e308:
        expected("a number", value, where)


def positive(value: Any, where: str) -> None:
    """A number above 0."""
    number(value, where)
    if value <= 0:
        expected("a number above 0", value, where)


def count(value: Any, where: str) -> None:
    """An integer of at least 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        expected("a count", value, where)


def text(value: Any, where: str) -> None:
    """A text."""
    if not isinstance(value, str):
        expected("a text", value, where)


def flag(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        expected("true or false", value, where)


def anything(value: Any, where: str) -> None:
    """Any JSON value."""


def mapping(value: Any, where: str) -> None:
    """A mapping with any content."""
    if not isinstance(value, dict):
        expected("a mapping", value, where)


def one_of(*allowed: Any) -> Check:
    """Check for one of these values."""
    def check(value: Any, where: str) -> None:
        if not any(value is choice or (value == choice and type(value) is type(choice)) for choice in allowed):
            expected(" or ".join(map(repr, allowed)), value, where)
    return check


def matching(pattern: re.Pattern[str], form: str) -> Check:
    """Check for a text that matches a pattern. form: the pattern in words."""
    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            expected(form, value, where)
    return check


def optional(inner: Check) -> Check:
    """Check for null, or what `inner` accepts."""
    return lambda value, where: None if value is None else inner(value, where)


def list_of(inner: Check, least: int = 0) -> Check:
    """Check for a list of at least `least` items that `inner` accepts."""
    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) < least:
            expected(f"a list of at least {least}" if least else "a list", value, where)
        for i, item in enumerate(value):
            inner(item, f"{where}[{i}]")
    return check


def mapping_of(inner: Check, names: Check = text) -> Check:
    """Check for a mapping from texts to values that `inner` accepts."""
    def check(value: Any, where: str) -> None:
        if not isinstance(value, dict):
            expected("a mapping", value, where)
        for name, item in value.items():
            names(name, f"a name in {where}")
            inner(item, f"{where}.{name}")
    return check


def fields(*groups: dict[str, Check], may_have: dict[str, Check] | None = None, **more: Check) -> Check:
    """Check for a mapping with the fields of the groups and of `more`.
    Those of `may_have` are checked where present, others are not.
    """
    needed = {name: inner for group in (*groups, more) for name, inner in group.items()}

    def check(value: Any, where: str) -> None:
        mapping(value, where)
        for name, inner in needed.items():
            if name not in value:
                raise ValueError(f"{where} has no {name}")
            inner(value[name], f"{where}.{name}")
        for name, inner in (may_have or {}).items():
            if name in value:
                inner(value[name], f"{where}.{name}")
    return check


def expected(form: str, value: Any, where: str) -> NoReturn:
    """Raises the ValueError for a value of another form."""
    value_text = ascii(value) if not isinstance(value, int) or abs(value) < 10**40 else "an integer of many digits"
    raise ValueError(f"{where} is {value_text[:MOST_SHOWN]}{'...' if len(value_text) > MOST_SHOWN else ''}, expected "
                     f"{form}")


def _as_unicode(value: Any) -> Any:
    """The value with lone surrogates in its texts replaced."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_as_unicode(name): _as_unicode(inner) for name, inner in value.items()}
    return [_as_unicode(inner) for inner in value] if isinstance(value, list) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"it holds {name}")
