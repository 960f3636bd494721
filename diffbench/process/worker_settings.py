"""Settings of worker processes that decide their speed, made before torch is imported.

Used by `child` and `forkserver`.

Threads wait passively. OpenMP's default is to spin, and where others use the cores too, threads that spin keep those
from running that they wait for.

Freed memory is kept, in blocks of up to 32 MiB. The allocator of glibc gives large blocks back to the system when they
are freed, or keeps them, by bounds that it moves by what a process has freed before. A block that is given back costs a
page fault for every 4 KiB when it is next used: the same small network then takes twice as long in one process as in
another, for as long as the process lives.
"""

from __future__ import annotations

import ctypes
import os

PASSIVE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
ALLOCATOR = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3               # of mallopt(3)
LARGEST_KEPT = 32 << 20               # bytes: the highest threshold that mallopt takes
_memory = "as the allocator does"


def prepare() -> None:
    """Makes the settings for this process; values set by the user stay."""
    global _memory
    if not _set_by_user(PASSIVE):
        os.environ.update(PASSIVE)
    own = _set_by_user(ALLOCATOR) or ("GLIBC_TUNABLES" if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
                                      else "")
    if own:
        _memory = f"as {own} says"
    elif _keep_freed_memory():
        _memory = "kept"


def facts() -> dict[str, str]:
    """Settings of this process, how its threads wait and whether freed memory is kept: recorded with the number of
    threads.
    """
    waiting = ", ".join(f"{name}={os.environ[name]}" for name in PASSIVE if name in os.environ)
    return {"threads_wait": "passively" if all(os.environ.get(name) == value for name, value in PASSIVE.items())
            else waiting or "as OpenMP does",
            "freed_memory": _memory}


def _keep_freed_memory() -> bool:
    """Keeps freed memory in the heap; False where the allocator is not glibc's.

    Larger blocks always are: in the heap, a small block that is put where a large one lay leaves a hole too small for
    the next, and a loop over blocks of 490 MB would take 490 MB more each time.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def _set_by_user(names: tuple[str, ...] | dict[str, str]) -> str:
    return ", ".join(name for name in names if name in os.environ)
