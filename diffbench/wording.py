"""Texts from outside made safe to display, and quantities in words. Used by every message and by the command line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

LONGEST = 100                         # letters of a value that a message repeats
# what is asked about letter by letter: a plan of 10,000 cells has 30 million
_DOUBTFUL = re.compile(r"[^\x20-\x7e\n\t]")


def printable(text: str) -> str:
    """The text with control characters, ESC, direction marks and lone surrogates replaced by escapes.

    Line ends and tabs stay.
    """
    return _DOUBTFUL.sub(lambda match: match[0] if match[0].isprintable() else _escaped(match[0]), text)


def one_line(text: str) -> str:
    """The printable text in one line: line ends and runs of spaces become one space."""
    return printable(" ".join(text.split()))


def brief(value: Any, longest: int = LONGEST) -> str:
    """The repr of a value, cut where it is long."""
    if isinstance(value, str):
        value = value[:longest + 1]                       # the repr of a long text takes as long as the text
    elif isinstance(value, int) and value.bit_length() > 4 * longest:
        return f"an integer of {value.bit_length():,} bits"
    text = repr(value)
    return text if len(text) <= longest else f"{text[:longest - 3]}..."


def _escaped(letter: str) -> str:
    code = ord(letter)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """' Did you mean 'ddim'?' for the nearest of some names, or an empty text where none is near."""
    near = difflib.get_close_matches(str(word), list(names), n=1, cutoff=0.55)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_name(kind: str, word: object, names: Iterable[str]) -> str:
    """The message for a name that does not exist: the nearest name, and all that exist."""
    sorted_names = sorted(names)
    listed = ", ".join(sorted_names) if sorted_names else "none is installed"
    return f"no {kind} named {brief(str(word))}.{did_you_mean(str(word), sorted_names)} Known: {listed}"


MOST = 10_000                         # characters of one text in a record
REASON = 2_000                        # characters of a reason
# Half of a UTF-16 pair, as names of files that are not UTF-8 have in Python: no encoder takes it. Control characters:
# terminals and C strings do not.
_UNFIT = re.compile("[\ud800-\udfff\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def plain(text: str, max_length: int = MOST) -> str:
    """The text with control characters and lone surrogates as escapes ('\\udce9'), cut at `max_length` characters."""
    short = text if len(text) <= max_length else f"{text[:max_length]} ... ({len(text)} characters in all)"
    return _UNFIT.sub(lambda match: match[0].encode("unicode_escape").decode(), short)


def as_reason(text: str) -> str:
    """The plain text in one line, as records hold reasons."""
    return plain(" ".join(text.split()), REASON)


def message_of(error: BaseException) -> str:
    """The message of an exception in one line; its own `__str__` may fail."""
    try:
        return as_reason(str(error))
    except Exception as broken:  # noqa: BLE001  the reason of a row must not depend on a stranger's __str__
        return f"its message cannot be had: {type(broken).__name__}"


def plain_values(value: Any) -> Any:
    """A value for JSON with all texts and keys plain; tuples become lists, other types become text."""
    if isinstance(value, str):
        return plain(value)
    if isinstance(value, dict):
        return {plain(str(key)): plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return plain(str(value))


def encoded(text: str) -> bytes:
    """The text in UTF-8, with lone surrogates as escapes."""
    return text.encode("utf-8", "backslashreplace")


def in_bytes(count: int) -> str:
    """A number of bytes in words: 512 B, 1.2 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def spoken(seconds: float) -> str:
    """A duration in words: '8 s', '41 min', '3.2 h', '2.5 days'."""
    for limit, unit, name in ((90.0, 1.0, "s"), (5400.0, 60.0, "min")):
        if seconds < limit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} days"
