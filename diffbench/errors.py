"""The exceptions that a user may see. Their text is one sentence: where, what was found, what would work.

Every exception a user may see derives from DiffbenchError; the command line prints its text and no traceback.
"""

from __future__ import annotations

from dataclasses import dataclass, field


class DiffbenchError(Exception):
    """A request that cannot be met; base of all exceptions that a user may see."""

    exit_code = 2                     # of the command line: the request was wrong


class OptionError(DiffbenchError, ValueError):
    """A component or a settings block was given an option it does not have, or a value out of range."""


class UnknownComponent(DiffbenchError, LookupError):
    """No component of this name is registered."""


class BrokenComponent(DiffbenchError, ImportError):
    """A registered component cannot be imported or breaks its contract; the text names its distribution."""


class DataError(DiffbenchError):
    """A data set is missing, damaged or not what it should be."""


class DiskFull(DiffbenchError):
    """There is no room left for something that must be written; earlier content is unchanged."""


class NoWorkers(DiffbenchError):
    """No worker process can be started on this machine now."""

    exit_code = 1                     # the request was right


class Damaged(DiffbenchError):
    """Files of an artefact are gone, do not match its manifest, or hold what its stage does not write.

    is_content: they match the manifest, so that only who reads them can tell.
    """

    def __init__(self, message: str, *, stage: str, key: str, is_content: bool = False):
        super().__init__(message)
        self.stage, self.key, self.is_content = stage, key, is_content


class Diverged(DiffbenchError, ArithmeticError):
    """A loss or a sample became NaN or infinite."""


class FailedElsewhere(DiffbenchError):
    """The failure of another process of a stage: status, kind and reason, as in the error.json of an attempt."""

    def __init__(self, failure: dict[str, str]):
        super().__init__(failure["reason"])
        self.failure = failure


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on a GPU or a CPU, as torch, numpy and Python report it."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  a stranger's __str__ may fail
        text = ""
    return isinstance(error, MemoryError) or "out of memory" in text.lower() or "DefaultCPUAllocator" in text


@dataclass(frozen=True)
class Problem:
    """One mistake in a matrix: the path to it, such as ("axes", "scheduler", 2), and a sentence."""

    path: tuple[str | int, ...]
    message: str
    on_key: bool = False          # points at the key rather than at its value


@dataclass
class MatrixError(DiffbenchError):
    """All mistakes of one matrix, each as text with its place."""

    rendered: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        count = len(self.rendered)
        return "\n\n".join(self.rendered) + f"\n\n{count} mistake{'s' if count != 1 else ''}; nothing was run."
