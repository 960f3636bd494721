"""What can go wrong, as sentences a user can act on.

Every exception a user may see derives from DiffbenchError; the command line prints its text and no traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field


class DiffbenchError(Exception):
    """A request that cannot be met, said in one sentence: where, what was found, what would work."""


class OptionError(DiffbenchError, ValueError):
    """A component or a settings block was given an option it does not have, or a value out of range."""


class UnknownComponent(DiffbenchError, LookupError):
    """No component of this name is registered."""


class BrokenComponent(DiffbenchError, ImportError):
    """A registered component cannot be imported or breaks its contract; the text names its distribution."""


class DataError(DiffbenchError):
    """A data set is missing, damaged or not what it should be."""


class DiskFull(DiffbenchError):
    """There is no room left where something had to be written; what was there before is whole."""


class Damaged(DiffbenchError):
    """An artefact's files are gone or do not match its manifest."""

    def __init__(self, message: str, *, stage: str, key: str):
        super().__init__(message)
        self.stage, self.key = stage, key


class Diverged(DiffbenchError, ArithmeticError):
    """A loss or a sample became NaN or infinite."""


class FailedElsewhere(DiffbenchError):
    """A process that works for a stage failed, and has said how: status, kind and reason, as in the error.json of an attempt."""

    def __init__(self, said: dict[str, str]):
        super().__init__(said["reason"])
        self.said = said


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: torch says so on CUDA and on a CPU in different words, numpy and Python by MemoryError."""
    text = str(error)
    return isinstance(error, MemoryError) or "out of memory" in text.lower() or "DefaultCPUAllocator" in text


@dataclass(frozen=True)
class Problem:
    """One mistake in a matrix: the path to it, such as ("axes", "scheduler", 2), and a sentence."""

    path: tuple[str | int, ...]
    message: str
    on_key: bool = False          # points at the key rather than at its value


@dataclass
class MatrixError(DiffbenchError):
    """Every mistake found in one matrix, each already rendered with its place."""

    rendered: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = len(self.rendered)
        return "\n\n".join(self.rendered) + f"\n\n{count} mistake{'s' if count != 1 else ''}; nothing was run."


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """' Did you mean 'ddim'?' for the nearest known name, or nothing where none is near."""
    near = difflib.get_close_matches(str(word), list(known), n=1, cutoff=0.55)
    return f" Did you mean '{near[0]}'?" if near else ""


def unknown_name(what: str, word: object, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist: the nearest one, and all that do."""
    names = sorted(known)
    listed = ", ".join(names) if names else "none is installed"
    return f"no {what} named {str(word)!r}.{did_you_mean(str(word), names)} Known: {listed}"
