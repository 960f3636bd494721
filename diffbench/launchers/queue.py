"""Queue of jobs that a launcher holds back until there is room. Used by `local` and `slurm`."""

from __future__ import annotations

import signal
from collections import deque

from diffbench.launchers import Ended, Job


class Queue:
    """A queue in order of submission. `ends` are ends that were not reported yet."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.ends: list[Ended] = []

    def withdraw(self, id: str) -> bool:
        """Removes a job, which then counts as killed; False where it is not waiting."""
        job = next((job for job in self.jobs if job.id == id), None)
        if job is None:
            return False
        self.jobs.remove(job)
        self.ends.append(Ended(id=id, code=-signal.SIGKILL))
        return True

    def take_ends(self) -> list[Ended]:
        """The ends since the last call."""
        ends, self.ends = self.ends, []
        return ends
