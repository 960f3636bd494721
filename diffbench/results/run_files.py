"""The files of a run that are made of its rows, each written apart from the others; used when a run ends."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from diffbench.errors import DiffbenchError, DiskFull
from diffbench.store.disk import NO_ROOM, no_room
from diffbench.wording import message_of

T = TypeVar("T")


class RunFiles:
    """Writes files into a folder of results; one that cannot be made costs no other, `problems` names it and says why.
    """

    def __init__(self, folder: Path):
        self.folder, self.problems = folder, list[str]()

    def write(self, names: str, make: Callable[[], T]) -> T | None:
        """Result of `make`, or None where it raises. A disk without room, and a folder that is gone, end the run."""
        try:
            return make()
        except DiskFull:
            raise
        except Exception as error:
            if isinstance(error, FileNotFoundError) and not self.folder.is_dir():
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            self.problems.append(f"{self.folder}: could not write {names}: {type(error).__name__}: {message_of(error)} "
                                 f"({where}); the rows and the other files are whole")
            return None


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """A folder that is removed while a run writes to it, and a place where nothing can be written, as sentences."""
    try:
        yield
    except FileNotFoundError as error:
        if folder.is_dir():
            raise
        raise DiffbenchError(f"--out {folder}: the folder was removed or moved while this run wrote to it; what was "
                             "finished is in the store, and the same line again writes the results anew") from error
    except OSError as error:
        if error.errno not in NO_ROOM or error.filename is None:
            raise
        raise no_room(Path(os.fsdecode(error.filename)), error) from error
