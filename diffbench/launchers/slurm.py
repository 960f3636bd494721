"""Workers as jobs of a Slurm queue, submitted through submitit: `--launcher slurm` or `slurm:PARTITION`.

The store has to lie where the nodes see it under the same path. A job outlives its driver: what it publishes is found
by the next run, and the claim it stands in keeps others from doing the same work meanwhile.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import math
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import submitit

from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Ended, Job, Launcher, any_gpu
from diffbench.launchers.lifelines import adopt_orphans, end_orphans, kill_tree
from diffbench.launchers.processes import POOLS
from diffbench.launchers.queue import Queue
from diffbench.machine.fingerprint import cores
from diffbench.process import import_path
from diffbench.store.artefacts import write_atomically

MOST_JOBS = 100                       # in the queue at once, unless --jobs says otherwise
THREADS = 4                           # of each worker, where nodes have as many, unless --threads says otherwise
SPARE_MINUTES = 5                     # for Slurm, beyond what a stage may take: the engine ends it first
LONGEST_MINUTES = 365 * 24 * 60       # of a stage without a limit, in a partition without one
LOOK_SECONDS = 0.1                    # between looks for what workers leave when they end
ASK_SECONDS = 2.0                     # between questions to Slurm, about all jobs at once
GRACE_SECONDS = 15.0                  # until a file that a node has written is seen here
QUEUED = {"PENDING", "CONFIGURING", "RUNNING", "SUSPENDED", "STOPPED", "COMPLETING", "REQUEUED", "REQUEUE_HOLD",
          "REQUEUE_FED", "RESIZING", "SIGNALING",
          "STAGE_OUT", "SPECIAL_EXIT", "RESV_DEL_HOLD", "PREEMPTED"}
ENDED = "ended.json"


class SlurmLauncher(Launcher):
    """Launcher that keeps up to `slots` jobs in the queue.

    partition: "" is the cluster's default. cluster: "slurm", or submitit's "local", which runs jobs as processes of
    this machine.
    """

    def __init__(self, partition: str = "", cluster: str = "slurm"):
        self.partition, self.cluster = partition, cluster
        self.nodes, self.longest = ([(cores(), True)], LONGEST_MINUTES) if cluster == "local" else _nodes(partition)
        self.slots = MOST_JOBS
        self.queue = Queue()
        self.running: dict[str, tuple[Job, submitit.Job]] = {}
        self.asked_at = 0.0
        self.missing_since: dict[str, float] = {}  # id -> since when Slurm has it no more, though it has left nothing

    @classmethod
    def open(cls, address: str, device: str) -> SlurmLauncher:
        any_gpu("slurm", device)
        return cls(address)

    def capacity(self, device: str, widest: int, jobs: int | None) -> Capacity:
        """As many jobs as stages, up to a limit. A GPU worker has a whole GPU, since Slurm divides none."""
        nodes = [cpus for cpus, has_gpus in self.nodes if has_gpus or device == "cpu"]
        if not nodes:
            raise DiffbenchError(f"--launcher slurm: no node of {self.partition or 'the default partition'} has a GPU")
        self.slots = jobs or max(1, min(widest, MOST_JOBS))
        return Capacity(slots=self.slots, threads=min(THREADS, *nodes), machines=self.slots,
                        gpus=float(device == "cuda"), machine_threads=min(nodes))

    def submit(self, job: Job) -> None:
        self.queue.jobs.append(job)
        self._submit_waiting()

    def poll(self, seconds: float) -> list[Ended]:
        deadline = time.monotonic() + seconds
        while not self._collect() and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        ends = self.queue.take_ends()
        self._submit_waiting()
        return ends

    def cancel(self, id: str) -> None:
        if not self.queue.withdraw(id) and id in self.running:
            self.running[id][1].cancel(check=False)

    def close(self) -> None:
        self.queue.jobs.clear()
        for id in list(self.running):
            self.cancel(id)
        deadline = time.monotonic() + 10
        while self.running and time.monotonic() < deadline:
            self.poll(1)
        self.running.clear()

    def _collect(self) -> list[Ended]:
        states = self._states()
        for id, (job, handle) in list(self.running.items()):
            code, state = _code(job), states.get(handle.job_id)
            if code is not None:
                self.queue.ends.append(Ended(id=id, code=code))
            elif state is not None and (state != "COMPLETED" or self._missing_seconds(id) > GRACE_SECONDS):
                reason = f"Slurm says of its job {handle.job_id}: {state.lower().replace('_', ' ')}"
                self.queue.ends.append(Ended(id=id, code=-signal.SIGKILL, reason=reason))
            else:
                continue
            del self.running[id]
            self.missing_since.pop(id, None)
        return self.queue.ends

    def _missing_seconds(self, id: str) -> float:
        """Seconds since Slurm was first seen to have a job no more."""
        now = time.monotonic()
        return now - self.missing_since.setdefault(id, now)

    def _states(self) -> dict[str, str]:
        """The states, by Slurm's ids, of our jobs that are no longer queued or running.

        Asked every ASK_SECONDS at most.
        """
        if not self.running or time.monotonic() - self.asked_at < ASK_SECONDS:
            return {}
        self.asked_at, ids = time.monotonic(), [handle.job_id for _, handle in self.running.values()]
        if self.cluster == "local":
            return {handle.job_id: handle.state for _, handle in self.running.values() if handle.done()}
        # Not sacct, as submitit does: many clusters keep no accounts, and it is late where they do.
        command = ["squeue", "--noheader", "--states=all", f"--user={getpass.getuser()}", "--format=%i|%T"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        except (OSError, subprocess.SubprocessError):     # the controller is busy or restarts: jobs go on
            return {}
        state_by_id = dict(line.split("|") for line in answer.split())
        return {id: state_by_id.get(id, "COMPLETED") for id in ids if state_by_id.get(id) not in QUEUED}

    def _submit_waiting(self) -> None:
        while self.queue.jobs and len(self.running) < self.slots:
            job = self.queue.jobs.popleft()
            resources, folder = job.resources, job.attempt.resolve() / "slurm"
            minutes = self.longest
            if resources.seconds is not None:
                minutes = min(minutes, math.ceil(resources.seconds / 60) + SPARE_MINUTES)
            executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
            executor.update_parameters(
                timeout_min=minutes, cpus_per_task=resources.threads, gpus_per_node=math.ceil(resources.gpus) or None,
                slurm_partition=self.partition or None,
                slurm_job_name=f"diffbench-{job.id[:8]}", slurm_exclusive=True if resources.is_exclusive else None,
                # `python -m` there imports nothing from the user's working folder
                slurm_setup=[f"cd {shlex.quote(str(job.attempt.resolve()))}"])
            try:
                handle = executor.submit(work, str(job.store.resolve()), str(job.attempt.resolve()), resources.threads,
                                         resources.gpus, os.getcwd())
            except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
                self.queue.ends.append(Ended(id=job.id, code=1,
                                             reason=f"slurm refused the job: {' '.join(str(error).split())[-300:]}"))
                continue
            self.running[job.id] = (job, handle)


def work(store: str, attempt: str, threads: int, gpus: float, folder: str) -> None:
    """Runs one worker on a node and writes its exit code next to its task."""
    adopt_orphans()
    environment = {**os.environ, **dict.fromkeys(POOLS, str(threads))} | ({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})
    command = import_path.command("diffbench.launchers.child", store, attempt)
    with open(Path(attempt) / "log.txt", "ab") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=environment,
                                   start_new_session=True,
                                   # one that the node does not see matters to relative paths only
                                   cwd=folder if os.path.isdir(folder) else None)
    try:
        code = process.wait()
    finally:
        kill_tree(process.pid)
        end_orphans()
    write_atomically(Path(attempt) / ENDED, json.dumps({"code": code}).encode())


def _code(job: Job) -> int | None:
    """The exit code of a worker that has ended, or None."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((job.attempt / ENDED).read_bytes())["code"]
    return None


def _nodes(partition: str) -> tuple[list[tuple[int, bool]], int]:
    """(CPUs, whether there are GPUs) of each node of a partition, and the longest time of a job there, in minutes."""
    command = ["sinfo", "--noheader", "--Node", "--format=%c|%G|%l|%P",
               *(["--partition", partition] if partition else [])]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except FileNotFoundError:
        raise DiffbenchError("--launcher slurm: there is no sinfo here; run where Slurm's commands are, on a login "
                             "node") from None
    except (OSError, subprocess.SubprocessError) as error:
        raise DiffbenchError(
            f"--launcher slurm: {' '.join(command)}: {getattr(error, 'stderr', None) or error}") from None
    rows = [line.split("|") for line in answer.split()]
    rows = [row for row in rows if partition or row[3].endswith("*")]         # a star marks the default
    if not rows:
        raise DiffbenchError(f"--launcher slurm: there is no partition {partition or 'that is the default'}; `sinfo` "
                             "lists them")
    return [(int(row[0].rstrip("+")), "gpu" in row[1]) for row in rows], min(_minutes(row[2]) for row in rows)


def _minutes(limit: str) -> int:
    """Minutes of Slurm's [days-]hours:minutes:seconds, rounded down."""
    if not limit[0].isdigit():                            # infinite, n/a
        return LONGEST_MINUTES
    days, _, clock = limit.rpartition("-")
    parts = [0, 0, *map(int, clock.split(":"))]           # minutes:seconds where there are no hours
    return int(days or 0) * 24 * 60 + parts[-3] * 60 + parts[-2]
