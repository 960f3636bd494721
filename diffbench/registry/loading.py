"""Import of strangers' modules: what one prints, how it ends and what it changes is kept from everybody else.
Used for plug-ins of every sort.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from diffbench.errors import BrokenComponent, DiffbenchError

if TYPE_CHECKING:
    from diffbench.registry.global_state import GlobalState

_changed: list[str] = []              # what plug-ins have changed in this process, by whom
_imported: list[str] = []             # what is being imported now, innermost last


class StateChanged(ImportError):
    """An import changed what other people's components compute with."""


@contextlib.contextmanager
def importing(owner: str, *, is_watched: bool = True) -> Iterator[None]:
    """Runs a stranger's code: what it prints goes to standard error without control characters.

    Raises ImportError where it would end the process, and StateChanged where it changed the state that everybody
    computes with.
    """
    state = taken() if is_watched else None
    _imported.append(owner)
    try:
        with _printing_to_standard_error():
            yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ImportError(f"it ends the process that imports it ({type(error).__name__}: {error}); put what it does as "
                          "a script under `if __name__ == '__main__':`") from error
    finally:
        _imported.pop()
        changes = state.changes() if state is not None else []
        if changes:
            _changed.append(_sentence(owner, changes))
    if changes:
        raise StateChanged(_sentence("it", changes))


def taken() -> GlobalState | None:
    """The state of this process, or None where torch is not loaded and nothing can have changed it."""
    if "torch" not in sys.modules:
        return None
    from diffbench.registry.global_state import GlobalState

    return GlobalState()


def check(state: GlobalState | None, owners: Iterable[str]) -> None:
    """Raises BrokenComponent where the state is not what it was, with the plug-ins that have been loaded since."""
    changes = state.changes() if state is not None else []
    if changes:
        raise BrokenComponent(_sentence("one of the plug-ins that were loaded "
                                        f"({', '.join(sorted(owners)) or 'none but diffbench'})", changes))


def refuse_changes() -> None:
    """Raises BrokenComponent where a plug-in has changed the state of this process: nothing is planned with it."""
    if _changed:
        raise BrokenComponent(f"nothing is planned: {_changed[0]}")


def refuse_while_importing(what: str) -> None:
    """Raises DiffbenchError where a plug-in starts this while it is imported,
    as a script does that is given as a plug-in.
    """
    if _imported:
        raise DiffbenchError(f"{what} is called while {_imported[-1]} is imported; put the call under `if __name__ == "
                             "'__main__':`")


def _sentence(owner: str, changes: list[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return (f"{owner} changes what other components compute with: {'; '.join(changes[:3])}{more}. "
            "Set it inside the functions that need it, and put it back")


@contextlib.contextmanager
def _printing_to_standard_error() -> Iterator[None]:
    out: Any = _Printable.text(sys.stderr)
    if sys.stdout is not None:
        sys.stdout.flush()
    kept = None
    with contextlib.suppress(OSError):                    # where a stream is closed there is nothing to keep apart
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


class _Printable(io.RawIOBase):
    """A stream that hands on what can be printed; it outlives the import, as a logger may keep it."""

    def __init__(self, stream: Any):
        self.stream = stream

    @classmethod
    def text(cls, stream: Any) -> io.TextIOWrapper:
        return io.TextIOWrapper(cls(stream), encoding="utf-8", errors="replace", write_through=True)

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        text = bytes(data).decode("utf-8", "replace")
        if self.stream is not None:
            self.stream.write("".join(c if c.isprintable() or c in "\n\t" else " " for c in text))
            self.stream.flush()
        return len(data)
