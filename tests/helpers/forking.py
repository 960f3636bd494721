"""Processes forked from one that has everything imported and has computed nothing, whatever other tests have done here.

`Forked` is one for any function; `server_process` one that is a fork server of the harness, which then is there in milliseconds.

Autograd refuses to work in a process forked from one in which it has threads. It starts some with the first backward
pass after torch.compile, which has it expect a GPU where there is none, and some for passes deep within each other.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Client, Connection, Listener
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path
from typing import IO

from diffbench.launchers import forkserver, processes
from diffbench.launchers.lifelines import end_with_pipe
from diffbench.process import worker_settings

STARTED = processes.server_process


class Forked:
    """A process that, once it is told to, calls a function of a module and ends with what that returns.

    Working folder and environment are those that this process has now, unless another environment is given.
    streams: descriptors of its standard input, output and error, in place of those of the process it is forked from.
    """

    def __init__(self, function: Callable[..., int], *arguments: object, environment: Mapping[str, str] | None = None,
                 streams: tuple[int, ...] = ()):
        process, folder = server()
        self._pipe = Client(f"{folder.name}/socket")
        self._pipe.send((dict(os.environ if environment is None else environment), os.getcwd(), function, arguments, len(streams)))
        for descriptor in streams:
            send_handle(self._pipe, descriptor, process.pid)
        self.pid: int = self._pipe.recv()

    def go(self) -> Forked:
        """Itself, told to begin. Until then it waits, so that a tracer can be attached."""
        self._pipe.send("go")
        return self

    def wait(self, seconds: float | None = None) -> int:
        """The exit code, negative where a signal ended it; TimeoutError where it takes longer."""
        if not self._pipe.poll(seconds):
            raise TimeoutError(f"process {self.pid} did not end within {seconds:g} s")
        with self._pipe:
            return self._pipe.recv()


class ForkedServer:
    """A fork server of the harness, forked and not started; what `_Server` uses of the `Popen` that it else is."""

    def __init__(self, environment: Mapping[str, str], words: IO[bytes]):
        (read, write), (hear, say) = os.pipe(), os.pipe()
        self._forked = Forked(_be_server, environment=environment, streams=(read, say, words.fileno())).go()
        os.close(read)
        os.close(say)
        self.stdin, self.stdout, self.pid = open(write, "wb"), open(hear, "rb"), self._forked.pid
        self._code: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, negative where a signal ended it."""
        if self._code is None:
            try:
                self._code = self._forked.wait(timeout)
            except TimeoutError:
                raise subprocess.TimeoutExpired("fork server", timeout) from None
        return self._code

    def kill(self) -> None:
        """As the kernel kills."""
        if self._code is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def server_process(environment: Mapping[str, str], words: IO[bytes]) -> ForkedServer | subprocess.Popen[bytes]:
    """In place of that of `diffbench.launchers.processes`, which starts an interpreter and imports torch.

    It still does where the environment or the interpreter is another than that of the process to fork from, in more than what is read late.
    """
    if started_for(environment) == started_for(server_environment()) and sys.executable == server()[0].args[0]:
        return ForkedServer(environment, words)
    return STARTED(environment, words)


def started_for(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment is read when an interpreter starts, or when torch is imported."""
    return {name: value for name, value in environment.items() if not name.startswith(("DIFFBENCH_", "PYTEST_", "XDG_"))}


@functools.cache
def server_environment() -> dict[str, str]:
    """The environment of the process that is forked: a pool of threads would not survive the fork."""
    return {**os.environ, **dict.fromkeys(processes.POOLS, "1")}


@functools.cache
def server() -> tuple[subprocess.Popen, tempfile.TemporaryDirectory]:
    """The process that is forked, and the folder of its socket. It ends with this one, and its forks with it."""
    folder = tempfile.TemporaryDirectory(prefix="diffbench-forks-")
    command = [sys.executable, "-m", "tests.helpers.forking", f"{folder.name}/socket"]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               env=server_environment(), start_new_session=True)
    if process.stdout.readline() != b"ready\n":
        raise RuntimeError(f"the process to fork from ended with {process.wait()}")
    return process, folder


def main() -> None:
    """Serves until standard input closes."""
    end_with_pipe(0)
    worker_settings.prepare()                             # before torch is imported
    preload()
    listener = Listener(sys.argv[1], "AF_UNIX", backlog=64)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)         # nobody waits for those that serve
    print("ready", flush=True)
    while True:
        with listener.accept() as pipe:
            if os.fork() == 0:
                _serve(pipe)


def _serve(pipe: Connection) -> None:
    """In a process for one `Forked`: forks it and says how it ended; never returns."""
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        environment, folder, function, arguments, count = pipe.recv()
        streams = [recv_handle(pipe) for _ in range(count)]
        pid = os.fork()
        if pid == 0:
            with pipe:
                pipe.recv()
            for place, descriptor in enumerate(streams):
                os.dup2(descriptor, place)
            os.environ.clear()
            os.environ.update(environment)
            os.chdir(folder)
            for descriptor in streams:
                os.close(descriptor)
            code = function(*arguments)
        else:
            for descriptor in streams:                    # whoever reads would not hear of its end
                os.close(descriptor)
            pipe.send(pid)
            pipe.send(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    except BaseException:  # noqa: BLE001  standard error is the last place it can be said
        traceback.print_exc()
    finally:
        os._exit(code)


def _be_server() -> int:
    """In the process that is to be a fork server. PYTEST_CLASSIFIER_STEPS: steps of every classifier that its workers fit."""
    os.setsid()
    if "PYTEST_CLASSIFIER_STEPS" in os.environ:
        from diffbench.diffusion import classifier, noisy_classifier

        steps = int(os.environ["PYTEST_CLASSIFIER_STEPS"])
        classifier.steps_for = noisy_classifier.steps_for = lambda count: steps
    forkserver.main()
    return 1                                              # it ends otherwise


def preload() -> None:
    """Imports all that a run imports, so that a fork starts at once."""
    import pandas
    import pyarrow.parquet  # noqa: F401
    import sklearn.datasets
    import torch

    from diffbench.api import running  # noqa: F401
    from diffbench.registry import code_identity
    from diffbench.report import grids, tables  # noqa: F401
    from diffbench.results import rows  # noqa: F401
    from diffbench.stages import train, worker  # noqa: F401
    from diffbench.store.stage_kinds import STAGE_KINDS

    forkserver.preload()
    code_identity.of_harness(*(kind.does for kind in STAGE_KINDS.values()))      # reads the sources that every plan reads
    torch.set_num_threads(1)
    sklearn.datasets.load_digits()
    torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], fused=True)
    pandas.DataFrame({"a": [1]}).to_parquet(io.BytesIO())


if __name__ == "__main__":
    main()
