"""The one door to the disk: what is written here is whole or absent after a kill, a full disk or a power cut.

A file is on the disk once it is flushed, its name once the folder that holds it is flushed, and a new folder's name once *its* folder is.
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

FULL = (errno.ENOSPC, errno.EDQUOT)


class Disk:
    """Every operation that changes the disk, one method each, so that a test can record them or make them fail.

    Modes are the kernel's: it applies the umask of the user, so that a shared store is shared and a private one private.
    """

    def create(self, path: Path) -> io.FileIO:
        """A new, empty, unbuffered file; FileExistsError where the name is taken, also by a link."""
        with _explained(path):
            return open(path, "xb", buffering=0)

    def write(self, file: io.FileIO, data: bytes) -> None:
        """Appends to a file, whole."""
        left = memoryview(data)
        with _explained(Path(file.name), len(data)):
            while left:
                left = left[file.write(left):]

    def append(self, path: Path, data: bytes) -> None:
        """Adds to the end of a file, which is made where it is not there, by one write."""
        with _explained(path, len(data)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            try:
                os.write(handle, data)
            finally:
                os.close(handle)

    def flush(self, file: io.FileIO) -> None:
        """Waits until a file's content is on the disk."""
        with _explained(Path(file.name)):
            os.fsync(file.fileno())

    def flush_folder(self, path: Path) -> None:
        """Waits until a folder's entries are on the disk."""
        handle = os.open(path, os.O_RDONLY)
        try:
            with _explained(path):
                os.fsync(handle)
        finally:
            os.close(handle)

    def mkdir(self, path: Path) -> None:
        """A new, empty folder; FileExistsError where the name is taken."""
        with _explained(path):
            os.mkdir(path)

    def rename(self, old: Path, new: Path) -> None:
        """Moves a file or folder in one step: over a file, never over a folder that holds something."""
        with _explained(new):
            os.replace(old, new)

    def unlink(self, path: Path) -> None:
        """Removes a file or link."""
        os.unlink(path)

    def rmtree(self, path: Path) -> None:
        """Removes a folder with all it holds; links are removed, not followed. One that is gone already is no error."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)


disk = Disk()


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a new file and waits until its content is on the disk; its name is when its folder is flushed."""
    file = disk.create(path)
    with file:
        disk.write(file, data)
        disk.flush(file)


def write_atomically(path: Path, data: bytes) -> None:
    """The old content or the new one, never part of one; on return the new one is on the disk."""
    aside = path.parent / f".{path.name}-{secrets.token_hex(4)}"
    try:
        write_flushed(aside, data)
        disk.rename(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(aside)
        raise
    disk.flush_folder(path.parent)


def append_line(path: Path, line: bytes) -> None:
    """Adds a line by a single write, so that several processes may add to one file; not waited for: for what can be derived again."""
    make_folders(path.parent)
    disk.append(path, line + b"\n")


def make_folders(path: Path, top: Path | None = None) -> None:
    """Makes a folder and those above it that are missing; on return their names are on the disk.

    Of folders below `top` that holds too where another process made them: it may have been killed before it flushed them.
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
    """Moves a folder, whose files are flushed, into place whole; on return it is on the disk, with all folders below `top`.

    Raises OSError where `path` is a folder that holds something: who was first stays.
    """
    disk.flush_folder(aside)
    make_folders(path.parent, top)
    disk.rename(aside, path)
    disk.flush_folder(path.parent)


@contextlib.contextmanager
def _explained(path: Path, needs: int = 0) -> Iterator[None]:
    """An error with its path; DiskFull where the disk, asked, has no room."""
    try:
        yield
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno in FULL or (needs and _free(path) < needs):
            raise disk_full(path, needs) from error
        raise OSError(error.errno, error.strerror, str(path)) from error


def disk_full(path: Path, needs: int) -> DiskFull:
    """The error for a disk that has no room for `needs` bytes at a path."""
    free = _free(path)
    wanted = f"needs about {in_bytes(needs)}, " if needs else ""
    hint = "; a quota or the number of files is exhausted" if free > max(needs, 4096) else ""
    return DiskFull(f"disk full: {wanted}{in_bytes(free)} free at {path.parent}{hint}")


def _free(path: Path) -> int:
    folder = path if path.is_dir() else path.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0


def in_bytes(count: int) -> str:
    """A number of bytes for people: 512 B, 1.2 GB."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"
