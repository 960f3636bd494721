"""The folder of this user's locks on this machine. Used by `device_lock` and `diffbench doctor`."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.process import table

TEMPORARY = Path("/tmp")
BUSY = (errno.EAGAIN, errno.EACCES)   # what the system answers where another process has the lock


class CannotLock(DiffbenchError):
    """Raised where there is no place for locks, or the place supports none."""


def lock_folder() -> Path:
    """The folder of locks, in $XDG_STATE_HOME or else in the temporary folder. Raises CannotLock.

    The home folder may be shared by machines, read-only or unknown; $XDG_RUNTIME_DIR is one thing to a login and
    another to a job.
    """
    reasons = []
    for base in _bases():
        folder = base / f"diffbench-locks-{os.geteuid()}" / table.machine()
        try:
            base.mkdir(parents=True, exist_ok=True)
            for part in (folder.parent, folder):
                with contextlib.suppress(FileExistsError):
                    part.mkdir(mode=0o700)
                _check_owner(part)
            _probe(folder)
        except OSError as error:
            reasons.append(f"{folder}: {error.strerror or error}")
        except CannotLock as error:
            reasons.append(str(error))
        else:
            return folder
    raise CannotLock(f"devices cannot be locked, so that runs measure speed beside each other; {'; '.join(reasons)}. "
                     "Set XDG_STATE_HOME to a folder of this machine that can be written")


def try_lock(descriptor: int, *, alone: bool) -> bool:
    """Whether the lock of an open file was taken. Not flock, which a child process would keep."""
    import fcntl

    try:
        fcntl.lockf(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in BUSY:
            return False
        raise
    return True


def _bases() -> list[Path]:
    """The temporary folders, /tmp first: TMPDIR may differ between jobs of one user, who would then not share locks."""
    bases = [Path(os.environ["XDG_STATE_HOME"])] if os.environ.get("XDG_STATE_HOME") else []
    bases.append(TEMPORARY)
    with contextlib.suppress(OSError):                    # none of those that Python knows can be written
        bases.append(Path(tempfile.gettempdir()))
    return list(dict.fromkeys(bases))


def _check_owner(folder: Path) -> None:
    """Raises CannotLock where a name in a folder that all may write belongs to somebody else, or is a link."""
    facts = folder.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid() or facts.st_mode & 0o022:
        raise CannotLock(f"{folder}: is not a folder that this user owns and nobody else may write")


def _probe(folder: Path) -> None:
    """Raises OSError where nothing can be written or locked."""
    path = folder / f"probe.{os.getpid()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try_lock(descriptor, alone=True)
    finally:
        os.close(descriptor)
        path.unlink()
