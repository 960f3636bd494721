"""Facts about processes from the operating system: existence, start, scope of process numbers.

Used by locks and claims.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path


def machine() -> str:
    """An id of this boot of this machine, the same in all its containers; the host's name where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return socket.gethostname()


def place() -> str:
    """An id of the scope of a process number: this boot, this container. '' where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def start_of(pid: int) -> str:
    """The start of a process, in ticks of the kernel. A number may be used again, a number with a start is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False
