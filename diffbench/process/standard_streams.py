"""Standard streams of a process that was started without some of them.

Used at the start of every process of diffbench.
"""

from __future__ import annotations

import os
import sys


def open_missing() -> None:
    """Opens /dev/null on those of the descriptors 0 to 2 that are closed, so that no file gets these numbers."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != descriptor:
                os.dup2(null, descriptor)
                os.close(null)
            os.set_inheritable(descriptor, True)          # processes that are started have them too
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))
