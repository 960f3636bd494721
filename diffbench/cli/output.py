"""The one writer of the command line: nothing of diffbench reaches a terminal or a pipe by another way.

No letter of a name, a path or a reason acts on a terminal, no reader that has gone ends a command, and no letter is one
too many for an encoding.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from diffbench.wording import printable

if TYPE_CHECKING:
    from rich.console import Console


def say(text: object = "", *, err: bool = False, end: str = "\n") -> None:
    """Writes a text to standard output, or to standard error;
    line ends in it stay, whatever else could act on a terminal is shown as an escape.
    """
    stream = _shown(sys.stderr if err else sys.stdout)
    stream.write(f"{text}{end}")
    stream.flush()


def say_data(data: Any, **options: Any) -> None:
    """Writes a value to standard output as JSON, in ASCII. options: of json.dumps."""
    # the one control character that json leaves as it is
    say(json.dumps(data, **options).replace("\x7f", "\\u007f"))


def console(*, err: bool = False) -> Console:
    """Console that draws on standard output or standard error; the texts that it is given must be printable."""
    from rich.console import Console

    stream = _shown(sys.stderr if err else sys.stdout)
    return Console(file=_Shown(stream.stream, escapes=False))  # type: ignore[arg-type]  # all that it uses of a file


def is_read() -> bool:
    """Whether what goes to standard output arrives anywhere."""
    return _shown(sys.stdout).error is None


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """While it lasts, what anything writes to the standard streams is shown as `say` shows it:
    click's complaints, warnings, prints of plug-ins.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _shown(sys.stdout), _shown(sys.stderr)       # type: ignore[assignment]  # all that is used of a stream
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def failure() -> str | None:
    """Why standard output cannot be written, in words; None where it can, or where its reader has gone, as `head` does.
    """
    error = _shown(sys.stdout).error
    return None if error is None or error.errno == errno.EPIPE else error.strerror or str(error)


class _Shown:
    """A stream that shows what is written to it, and forgets it once the stream can no longer be written."""

    def __init__(self, stream: TextIO, *, escapes: bool = True):
        self.stream, self.escapes = stream, escapes
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        visible = printable(text) if self.escapes else text
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        self._try(self.stream.write, visible.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def _try(self, do: Any, *arguments: Any) -> None:
        if self.error is not None:
            return
        try:
            do(*arguments)
        except OSError as error:
            self.error = error
            # what is left in a buffer would fail again when Python ends
            with contextlib.suppress(OSError, io.UnsupportedOperation):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, self.stream.fileno())
                os.close(null)


def _shown(stream: TextIO | _Shown) -> _Shown:
    return stream if isinstance(stream, _Shown) else _Shown(stream)
