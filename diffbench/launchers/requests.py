"""Requests to a process that starts workers. Written by `processes`, read by `forkserver`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WorkerRequest:
    """The worker of one attempt that is to be started; its fields as JSON are one line of a fork server's input."""

    id: str
    store: str                        # absolute
    attempt: str                      # absolute
    threads: int
    log: str                          # file that standard output and errors go to
    environment: dict[str, str]       # added to that of the process


@dataclass(frozen=True, kw_only=True)
class KillRequest:
    """The end of a worker, with all that it started; as JSON likewise."""

    kill: str                         # id of the worker
