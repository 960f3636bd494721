"""Writing to the disk: content is whole or absent after a kill, a full disk or a power cut.

Used by everything that writes.

A file is on the disk once it is flushed, its name once the folder that holds it is flushed, and a new folder's name
once *its* folder is.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from diffbench.errors import DiskFull
from diffbench.wording import in_bytes

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_ROOM = (*FULL, errno.EFBIG, errno.EROFS)               # no write can succeed here until somebody mends that


class Disk:
    """Every operation that changes the disk, one method each, so that tests can record them or make them fail.

    Modes are the kernel's: it applies the umask of the user, so that a shared store is shared and a private one
    private.
    """

    def create(self, path: Path) -> io.FileIO:
        """Makes a new, empty, unbuffered file. Raises FileExistsError where the name is taken, also by a link."""
        with explained(path):
            return open(path, "xb", buffering=0)

    def write(self, file: io.FileIO, data: bytes) -> None:
        """Appends all of the data to a file."""
        remaining = memoryview(data)
        with explained(Path(file.name), len(data)):
            while remaining:
                remaining = remaining[file.write(remaining):]

    def append(self, path: Path, data: bytes) -> None:
        """Appends to a file, which is made where it does not exist, by a single write."""
        with explained(path, len(data)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, data)
            finally:
                os.close(handle)

    def flush(self, file: io.FileIO) -> None:
        """Waits until a file's content is on the disk."""
        with explained(Path(file.name)):
            os.fsync(file.fileno())

    def flush_file(self, path: Path) -> None:
        """Waits until the content of a file that is not open here is on the disk."""
        _flush_named(path)

    def flush_folder(self, path: Path) -> None:
        """Waits until a folder's entries are on the disk."""
        _flush_named(path)

    def mkdir(self, path: Path) -> None:
        """Makes a new, empty folder. Raises FileExistsError where the name is taken."""
        with explained(path):
            os.mkdir(path)

    def rename(self, old: Path, new: Path) -> None:
        """Moves a file or folder in one step. A file in its place is replaced, a folder that is not empty never."""
        with explained(new):
            os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Removes a file or link."""
        os.unlink(path)

    def rmtree(self, path: Path) -> None:
        """Removes a folder with its content. Links are removed, not followed; a folder that is gone is no error."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


def _flush_named(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        with explained(path):
            os.fsync(handle)
    finally:
        os.close(handle)


disk = Disk()


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a new file and waits until its content is on the disk. Its name is there once its folder is flushed."""
    file = disk.create(path)
    with file:
        disk.write(file, data)
        disk.flush(file)


def write_atomically(path: Path, data: bytes) -> None:
    """Replaces the content of a file in one step; on return the new content is on the disk.

    Raises DiskFull where nothing can be written.
    """
    aside = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        write_flushed(aside, data)
        disk.rename(aside, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            disk.unlink(aside)
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise no_room(path, error) from error
        raise
    disk.flush_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Appends a line by a single write, so that several processes may share a file. It is not flushed."""
    make_folders(path.parent)
    disk.append(path, line + b"\n")


def make_folders(path: Path, top: Path | None = None) -> None:
    """Makes a folder and its missing parents; on return their names are on the disk.

    Of folders below `top` that holds too where another process made them: it may have been killed before it flushed
    them.
    """
    if path == top or (top is None and path.is_dir()):
        return
    make_folders(path.parent, top)
    try:
        disk.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(path)) from None
    disk.flush_folder(path.parent)


def publish_folder(aside: Path, path: Path, top: Path) -> None:
    """Moves a folder of flushed files into place; on return it is on the disk, with all folders below `top`.

    Raises OSError where `path` is a folder that holds something: who was first stays.
    """
    disk.flush_folder(aside)
    make_folders(path.parent, top)
    disk.rename(aside, path)
    disk.flush_folder(path.parent)


@contextlib.contextmanager
def explained(path: Path, needs: int = 0) -> Iterator[None]:
    """Context in which an OSError gets the path, or becomes DiskFull where the disk has no room."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise no_room(path, error) from error
        if error.errno in FULL or (needs and _free(path) < needs):
            raise disk_full(path, needs) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def disk_full(path: Path, needs: int) -> DiskFull:
    """The error for a disk that has no room for `needs` bytes at a path."""
    free = _free(path)
    needed = f"needs about {in_bytes(needs)}, " if needs else ""
    hint = "; a quota or the number of files is exhausted" if free > max(needs, 4096) else ""
    return DiskFull(f"disk full: {needed}{in_bytes(free)} free at {path.parent}{hint}")


def no_room(path: Path, error: OSError) -> DiskFull:
    """The error for a write that failed with one of NO_ROOM."""
    if error.errno == errno.EFBIG:
        return DiskFull(f"{path} would be larger than a file may be here: {error.strerror}; raise the limit, of this "
                        "process (`ulimit -f`) or of the file system")
    if error.errno == errno.EROFS:
        return DiskFull(f"{path.parent} can only be read: {error.strerror}; mount it for writing again")
    return disk_full(path, 0)


def _free(path: Path) -> int:
    folder = path if path.is_dir() else path.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0
