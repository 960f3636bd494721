"""Jobs that a launcher keeps back until there is room for them."""

from __future__ import annotations

import signal
from collections import deque

from diffbench.launchers import Ended, Job


class Queue:
    """First come, first served; `gone` are jobs whose end nobody was told of yet."""

    def __init__(self) -> None:
        self.jobs: deque[Job] = deque()
        self.gone: list[Ended] = []

    def withdraw(self, id: str) -> bool:
        """Takes a job out, which then counts as killed; False where it is not waiting."""
        job = next((job for job in self.jobs if job.id == id), None)
        if job is None:
            return False
        self.jobs.remove(job)
        self.gone.append(Ended(id=id, code=-signal.SIGKILL))
        return True

    def take_gone(self) -> list[Ended]:
        """What ended since this was last asked."""
        gone, self.gone = self.gone, []
        return gone
