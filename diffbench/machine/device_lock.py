"""The lock of a device. Stages share it; those that measure speed have it alone, across all runs of a user here.

It is a record lock of the operating system, free again the moment its process ends in whatever way; processes that a
stage starts or leaves behind do not have it. Notes beside it say who has the device and who waits for it alone. No wait
is for ever:

- A holder that has given no sign of life for SILENT_SECONDS, because it is stopped or frozen, loses the device to
  whoever waits.
- Who waits to be alone keeps others from beginning for GATE_SECONDS, then lets them pass for as long, and so on.
- After WAIT_SECONDS the device is used beside those who have it, and a timing taken so says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diffbench.machine.lock_folder import CannotLock, lock_folder, try_lock
from diffbench.process import table

LOOK_SECONDS = 0.1                    # between tries to have a device
BEAT_SECONDS = 5.0                    # between signs of life
SILENT_SECONDS = 30.0
GATE_SECONDS = 60.0
WAIT_SECONDS = 3600.0
# how long a note of a process that cannot be looked up stays after its last sign of life
KEPT_SECONDS = 86400.0


@dataclass
class Hold:
    """The way in which a stage has its device."""

    unlocked: str = ""                # why it has no lock, so that others do not know of it
    beside: str = ""                  # who had the device when waiting for them ended
    has_lost: Callable[[], bool] = lambda: False

    def disturbance(self) -> str:
        """The reason why others may have used a device that was asked for alone; '' where there is none."""
        if self.beside:
            return f"{self.beside} had the device too"
        return "this process gave no sign of life for a while, and others took the device" if self.has_lost() else ""


@contextlib.contextmanager
def held(device: str, *, alone: bool, work: str, waiting: Callable[[str], None]) -> Iterator[Hold]:
    """Waits for a device ("cpu" or "cuda"), shared or alone, at most WAIT_SECONDS, and holds it.

    On CUDA each visible GPU is its own device: CUDA_VISIBLE_DEVICES tells which.
    work: what it is used for, as others read it. waiting: is told who is waited for, when that is somebody new.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = lock_folder()
            locks = [stack.enter_context(_Lock(folder, name, alone, work)) for name in _names(device)]
            deadline, last_holders, others = time.monotonic() + WAIT_SECONDS, "", ""
            for lock in locks:
                while (holders := lock.take()) and not others:
                    if holders != last_holders:
                        last_holders = holders
                        waiting(holders)
                    time.sleep(LOOK_SECONDS)
                    if time.monotonic() > deadline:
                        others = holders
                lock.begin()
            hold = Hold(beside=others, has_lost=lambda: any(lock.is_lost() for lock in locks))
        except CannotLock as error:
            hold = Hold(unlocked=str(error))
        yield hold


def _names(device: str) -> list[str]:
    """The names of the locks of a device, in the order in which every process takes them."""
    if device != "cuda":
        return [device]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return sorted({"cuda-" + "".join(c for c in part if c.isalnum() or c == "-")
                   for part in visible.split(",")}) if visible else ["cuda"]


@dataclass(frozen=True)
class _Note:
    """The note of a process that has or awaits a lock."""

    pid: int
    start: str
    place: str
    work: str
    alone: bool
    has: bool                         # else it waits
    since: float                      # wall clock of this machine, as is `beat`
    beat: float

    @property
    def is_dead(self) -> bool:
        """Whether its process has ended, as far as this process can tell."""
        if self.place and self.place == table.place():
            return not table.is_running(self.pid) or table.start_of(self.pid) != self.start
        return time.time() - self.beat > KEPT_SECONDS

    @property
    def is_silent(self) -> bool:
        return time.time() - self.beat > SILENT_SECONDS

    @property
    def closes_the_gate(self) -> bool:
        """Whether others should not begin, so that this process gets the device alone."""
        return (self.alone and not self.has and not self.is_silent
                and (time.time() - self.since) % (2 * GATE_SECONDS) < GATE_SECONDS)

    def __str__(self) -> str:
        return f"{self.work}, pid {self.pid}" + (", which gives no sign of life" if self.is_silent else "")


class _Lock:
    """The lock of one device: a file with a number, which one with a higher number replaces."""

    def __init__(self, folder: Path, name: str, alone: bool, work: str):
        self.folder, self.name, self.alone, self.work = folder, name, alone, work
        # process numbers of two containers may be the same
        place_digest = hashlib.sha256(table.place().encode()).hexdigest()[:8]
        self.note, self.since = folder / f"{name}.{os.getpid()}-{place_digest}.note", time.time()
        self.descriptor: int | None = None
        self.number, self.has = 0, False
        self.has_ended, self.writing = threading.Event(), threading.Lock()

    def __enter__(self) -> _Lock:
        self._write_note()
        threading.Thread(target=self._beat, name="device lock", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self.writing, contextlib.suppress(OSError):  # a note that stays is that of a process that is no more
            self.has_ended.set()
            self.note.unlink(missing_ok=True)
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def take(self) -> str:
        """Tries to take the lock. Returns '' or the processes that have it or come first. Raises CannotLock."""
        notes = self._notes()
        first = next((note for note in notes if note.closes_the_gate and not self.alone), None)
        if first is not None:
            return f"{first}, which waits for the device to be free"
        try:
            while not self._try():
                holders = [note for note in notes if note.has]
                if not holders or not all(note.is_silent for note in holders):
                    alive = sorted(holders, key=lambda note: note.is_silent)
                    others = f" and {len(alive) - 1} more" if len(alive) > 1 else ""
                    return f"{alive[0]}{others}" if alive else "a process that left no note"
                self._replace()
        except OSError as error:
            raise CannotLock(f"devices cannot be locked: {self.folder}: {error.strerror or error}") from None
        return ""

    def begin(self) -> None:
        """Marks the device as used from now on."""
        self.has = True
        self._write_note()

    def is_lost(self) -> bool:
        """Whether other processes have taken the device from this one."""
        return self.descriptor is not None and self._newest() != self.number

    def _try(self) -> bool:
        while True:
            number = self._newest()
            try:
                descriptor = os.open(self._file(number), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                self._create(number)
                continue
            if not try_lock(descriptor, alone=self.alone):
                os.close(descriptor)
                self.number = number
                return False
            if self._newest() == number:
                with contextlib.suppress(OSError):        # what cleans temporary folders goes by age
                    os.utime(descriptor)
                self.descriptor, self.number = descriptor, number
                return True
            os.close(descriptor)                          # a lock that another has just replaced

    def _replace(self) -> None:
        """Leaves the lock to holders that give no sign of life, and makes the next one."""
        self._create(self.number + 1)
        self._file(self.number).unlink(missing_ok=True)

    def _file(self, number: int) -> Path:
        return self.folder / f"{self.name}.{number}.lock"

    def _create(self, number: int) -> None:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self._file(number), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))

    def _newest(self) -> int:
        numbers = [path.name.removeprefix(f"{self.name}.").removesuffix(".lock")
                   for path in self.folder.glob(f"{self.name}.*.lock")]
        return max((int(number) for number in numbers if number.isdigit()), default=1)

    def _notes(self) -> list[_Note]:
        """The notes of other processes; notes of processes that have ended are removed."""
        notes = []
        for path in self.folder.glob(f"{self.name}.*.note"):
            if path == self.note:
                continue
            # being removed, or torn by a full disk: as if it were not there
            with contextlib.suppress(OSError, ValueError, TypeError):
                note = _Note(**json.loads(path.read_bytes()))
                if note.is_dead:
                    path.unlink(missing_ok=True)
                else:
                    notes.append(note)
        return notes

    def _write_note(self) -> None:
        me = os.getpid()
        note = _Note(pid=me, start=table.start_of(me), place=table.place(), work=self.work, alone=self.alone,
                     has=self.has, since=self.since, beat=time.time())
        staging = self.note.with_suffix(".new")
        # A full disk: others do not learn who has the device, and wait longer for it.
        with self.writing, contextlib.suppress(OSError):
            if not self.has_ended.is_set():
                staging.write_text(json.dumps(vars(note)))
                staging.replace(self.note)

    def _beat(self) -> None:
        while not self.has_ended.wait(BEAT_SECONDS):
            self._write_note()
