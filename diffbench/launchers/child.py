"""Entry point of a spawned worker, `python -m diffbench.launchers.child STORE ATTEMPT`.

Used by `processes` and `slurm`.

Its standard input is a pipe from whoever started it. It ends when that closes, because the other side has ended in
whatever way.
"""

from __future__ import annotations

import os
import sys

from diffbench.launchers.lifelines import adopt_orphans, end_with_pipe
from diffbench.process.standard_streams import open_missing


def main(store: str, attempt: str) -> int:
    """Does the stage of an attempt; returns the exit code."""
    open_missing()
    end_with_pipe(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)                                   # a stage that reads its input finds nothing
    from diffbench.process import worker_settings
    from diffbench.stages import worker

    worker_settings.prepare()
    adopt_orphans()
    return worker.run(store, attempt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
