"""A worker that was spawned: `python -m diffbench.launchers.child STORE ATTEMPT` is `diffbench.worker` with a lifeline.

Its standard input is a pipe from whoever started it. It ends when that closes, because the other side has ended in whatever way.
"""

from __future__ import annotations

import os
import sys

from diffbench.launchers.lifelines import end_with_pipe


def main(store: str, attempt: str) -> int:
    """Does the stage of an attempt."""
    end_with_pipe(os.dup(0))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)                                   # a stage that reads its input finds nothing
    from diffbench import worker

    return worker.run(store, attempt)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
