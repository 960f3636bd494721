"""Claims: a folder says that somebody works on something, so that two runs, processes or nodes do not do the same work.

Only economy rests on claims. Truth rests on publishing by rename: should two hold one claim, work is done twice and the loser
discards its copy.

A claim is a folder that exactly one process can put in place (a rename onto a folder that is not empty fails). It holds `owner.json`
and a `beat` that whoever works on it rewrites. It is void when all who stand in it are processes of this machine that are no more, or
when nothing in it has changed for LEASE_SECONDS of the observer's own monotonic clock. No clock of another machine is believed, and
setting a clock back frees nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
OWNER = "owner.json"


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who has what was asked for."""

    host: str
    pid: int
    since: str                        # the holder's wall clock, for people

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class Claims:
    """The claims of one process: taken, kept alive by one thread, let go."""

    def __init__(self) -> None:
        self._mine: dict[Path, str] = {}                  # folder -> token
        self._seen: dict[Path, tuple[object, float]] = {} # others' claims: what they looked like, and since when (monotonic)
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, folder: Path) -> Holder | None:
        """Makes `folder` a claim of ours and returns None, or says who has it. Raises OSError where its parent cannot be written."""
        if folder in self._mine:
            return None
        token = secrets.token_hex(8)
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = _aside(folder.parent)
        aside.mkdir()
        try:
            (aside / OWNER).write_text(json.dumps({"token": token, **_self()}))
            while True:
                try:
                    aside.rename(folder)
                    break
                except OSError as error:
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                holder = self._living(folder)
                if holder is not None:
                    return holder
                self._remove_void(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self._mine[folder] = token
        self._keep_beating()
        return None

    def holder(self, folder: Path) -> Holder | None:
        """Who has a claim; None where nobody has, or the claim is void."""
        return self._living(folder)

    def token(self, folder: Path) -> str:
        """What a worker shows to work under a claim of ours."""
        return self._mine[folder]

    def holds(self, folder: Path) -> bool:
        """Whether a claim that was taken is still ours: somebody may have deleted it, and another may have it now."""
        return folder in self._mine and _token(folder) == self._mine[folder]

    def release(self, folder: Path) -> None:
        """Lets go of a claim of ours; one that was taken over meanwhile is left alone."""
        token = self._mine.pop(folder, None)
        if token is not None and _token(folder) == token:
            _remove(folder, token)

    def close(self) -> None:
        """Lets go of all."""
        self._closed.set()
        for folder in list(self._mine):
            self.release(folder)

    def _living(self, folder: Path) -> Holder | None:
        """Who holds a claim, or None where it is void or gone."""
        content = _content(folder)
        if OWNER not in content:                          # gone, or being removed
            return None if not content else self._unless_still(folder, content, Holder(host="?", pid=0, since="?"))
        facts = [fact for name, text in content.items() if name != "beat" and (fact := _read(text))]
        owner = _read(content[OWNER]) or {"host": "?", "pid": 0, "since": "?"}
        if facts and all(_is_here(fact) and not _is_alive(fact) for fact in facts):
            return None
        return self._unless_still(folder, content, Holder(host=owner["host"], pid=owner["pid"], since=owner["since"]))

    def _unless_still(self, folder: Path, content: object, holder: Holder) -> Holder | None:
        before = self._seen.get(folder)
        if before is None or before[0] != content:
            self._seen[folder] = (content, time.monotonic())
            return holder
        return holder if time.monotonic() - before[1] < LEASE_SECONDS else None

    def _remove_void(self, folder: Path) -> None:
        self._seen.pop(folder, None)
        token = _token(folder)
        if token is None and not folder.exists():
            return
        _remove(folder, token)

    def _keep_beating(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._thread.start()

    def _beat(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            for folder, token in list(self._mine.items()):
                beat(folder, token)


def beat(folder: Path, token: str) -> None:
    """A sign of life in a claim that is still ours. A full disk only costs the sign."""
    if _token(folder) == token:
        with contextlib.suppress(OSError):
            (folder / "beat").write_text(secrets.token_hex(4))


def join(folder: Path, token: str) -> bool:
    """In a worker: stands in a claim of its driver, so that the claim outlives a driver that ends. False where the claim is no longer the driver's."""
    if _token(folder) != token:
        return False
    with contextlib.suppress(OSError):
        (folder / f"worker-{os.getpid()}.json").write_text(json.dumps(_self()))

    def keep() -> None:
        while _token(folder) == token:
            beat(folder, token)
            time.sleep(BEAT_SECONDS)
    threading.Thread(target=keep, name="claim", daemon=True).start()
    return True


def sweep(parent: Path) -> None:
    """Deletes what processes of this machine that were killed in the middle of taking or releasing a claim left in a folder."""
    for left in parent.glob(".claim-*"):
        _, pid, start, place, _ = left.name.split("-")
        if place == _short(_place()) and not (_is_running(int(pid)) and _start_of(int(pid)) == start):
            shutil.rmtree(left, ignore_errors=True)


def _aside(parent: Path) -> Path:
    """A new name beside claims that says whose it is."""
    return parent / f".claim-{os.getpid()}-{_start_of(os.getpid())}-{_short(_place())}-{secrets.token_hex(4)}"


def _short(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _remove(folder: Path, token: str | None) -> None:
    """Renames a claim away, which one process alone can do, and deletes it; puts it back where it was not the one that was meant."""
    aside = _aside(folder.parent)
    with contextlib.suppress(OSError):
        folder.rename(aside)
        if _token(aside) != token:                        # somebody was faster, and works on it
            with contextlib.suppress(OSError):
                aside.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _token(folder: Path) -> str | None:
    try:
        return json.loads((folder / OWNER).read_bytes())["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content(folder: Path) -> dict[str, str]:
    found = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                found[path.name] = path.read_text(errors="replace")
        found.setdefault("", "")                          # the folder is there
    return found


def _read(text: str) -> dict | None:
    with contextlib.suppress(ValueError):
        facts = json.loads(text)
        if isinstance(facts, dict) and {"host", "pid", "since", "place", "start"} <= set(facts):
            return facts
    return None


def _self() -> dict[str, object]:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "place": _place(), "start": _start_of(os.getpid())}


def _place() -> str:
    """Where a process number means something: this boot of this machine, this container. '' where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    """When a process started, in the kernel's ticks: a number is used again, a number and a start are not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_here(fact: dict) -> bool:
    return bool(fact["place"]) and fact["place"] == _place()


def _is_alive(fact: dict) -> bool:
    return _is_running(fact["pid"]) and _start_of(fact["pid"]) == fact["start"]


def _is_running(pid: int) -> bool:
    """Whether a process is there and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return False
