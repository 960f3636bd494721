"""Claims: folders that say who works on something, so that two processes or nodes do not do the same work.

Used by engine and store.

Only economy rests on claims. Truth rests on publishing by rename: should two hold one claim, work is done twice and the
loser discards its copy.

A claim is a folder that exactly one process can put in place (a rename onto a folder that is not empty fails). It holds
`owner.json` and a `beat` that whoever works on it rewrites. It is void when all who stand in it are processes of this
machine that are no more, or when nothing in it has changed for LEASE_SECONDS of the observer's own monotonic clock. No
clock of another machine is believed, and setting a clock back frees nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.process import table

BEAT_SECONDS = 10.0
LEASE_SECONDS = 60.0
OWNER = "owner.json"
PARTS = re.compile(r"owner\.json|beat|worker-\d+\.json")                # all that lies in a claim
# one being made or removed
ASIDE = re.compile(r"\.claim-(?P<pid>\d+)-(?P<start>\d*)-(?P<place>[0-9a-f]{8})-[0-9a-f]{8}")


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a claim."""

    host: str
    pid: int
    since: str                        # the holder's wall clock, for people

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} since {self.since}"


class Claims:
    """The claims of one process: taken, kept alive by a thread, released."""

    def __init__(self) -> None:
        self._mine: dict[Path, str] = {}                  # folder -> token
        # Content of the claims of others, and the monotonic time since which it is the same.
        self._last_content: dict[Path, tuple[object, float]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, folder: Path) -> Holder | None:
        """Makes `folder` a claim of this process and returns None, or returns the holder that has it.

        Raises OSError where its parent cannot be written, and DiffbenchError where something else is in its place.
        """
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
                    if error.errno == errno.ENOTDIR:
                        raise DiffbenchError(f"{folder} is no folder, and the folder of this name says who works here: "
                                             "move it away") from None
                    if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                        raise
                others = foreign(folder)
                if others:
                    raise DiffbenchError(f"{folder} holds {others[0]!r}, which is not diffbench's, and the folder of "
                                         "this name says who works here: move it away")
                holder = self._living(folder)
                if holder is not None:
                    return holder
                self._remove_void(folder)
        finally:
            _discard(aside)
        self._mine[folder] = token
        self._keep_beating()
        return None

    def holder(self, folder: Path) -> Holder | None:
        """The holder of a claim; None where there is none, or the claim is void."""
        return self._living(folder)

    def token(self, folder: Path) -> str:
        """The token with which a worker joins a claim of this process."""
        return self._mine[folder]

    def holds(self, folder: Path) -> bool:
        """Whether a claim that was taken is still held.

        Somebody may have deleted it, and another process have taken it.
        """
        return folder in self._mine and _token(folder) == self._mine[folder]

    def release(self, folder: Path) -> None:
        """Releases a claim of this process; one that another process has taken over is left alone."""
        token = self._mine.pop(folder, None)
        if token is not None and _token(folder) == token:
            _remove(folder, token)

    def close(self) -> None:
        """Releases all claims."""
        self._closed.set()
        for folder in list(self._mine):
            self.release(folder)

    def _living(self, folder: Path) -> Holder | None:
        """The holder of a claim, or None where it is void or gone."""
        content = _content(folder)
        if OWNER not in content:                          # gone, or being removed
            return None if not content else self._unless_still(folder, content, Holder(host="?", pid=0, since="?"))
        facts = [fact for name, text in content.items() if name != "beat" and (fact := _read(text))]
        owner = _read(content[OWNER]) or {"host": "?", "pid": 0, "since": "?"}
        if facts and all(_is_here(fact) and not _is_alive(fact) for fact in facts):
            return None
        return self._unless_still(folder, content, Holder(host=owner["host"], pid=owner["pid"], since=owner["since"]))

    def _unless_still(self, folder: Path, content: object, holder: Holder) -> Holder | None:
        before = self._last_content.get(folder)
        if before is None or before[0] != content:
            self._last_content[folder] = (content, time.monotonic())
            return holder
        return holder if time.monotonic() - before[1] < LEASE_SECONDS else None

    def _remove_void(self, folder: Path) -> None:
        self._last_content.pop(folder, None)
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
    """Writes a sign of life into a claim that is still held with this token. A full disk is no error."""
    if _token(folder) == token:
        with contextlib.suppress(OSError):
            (folder / "beat").write_text(secrets.token_hex(4))


def join(folder: Path, token: str) -> bool:
    """Joins a claim of the driver from a worker, so that it outlives the driver.

    False where the driver no longer holds it.
    """
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
    """Deletes from a folder what killed processes of this machine left there while taking or releasing a claim."""
    for remnant in parent.glob(".claim-*"):
        owner = ASIDE.fullmatch(remnant.name)
        if owner is None or remnant.is_symlink() or owner["place"] != _short(table.place()):
            continue
        if not (table.is_running(int(owner["pid"])) and table.start_of(int(owner["pid"])) == owner["start"]):
            _discard(remnant)


def foreign(folder: Path) -> list[str]:
    """Names of files in a claim that are not part of a claim."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(name for name in os.listdir(folder) if not PARTS.fullmatch(name))
    return []


def _aside(parent: Path) -> Path:
    """A new name next to a claim that holds the process that made it."""
    return parent / f".claim-{os.getpid()}-{table.start_of(os.getpid())}-{_short(table.place())}-{secrets.token_hex(4)}"


def _short(place: str) -> str:
    return hashlib.sha256(place.encode()).hexdigest()[:8]


def _remove(folder: Path, token: str | None) -> None:
    """Renames a claim, which only one process can do, and deletes it. A claim with another token is put back."""
    aside = _aside(folder.parent)
    with contextlib.suppress(OSError):
        folder.rename(aside)
        if _token(aside) != token:                        # somebody was faster, and works on it
            with contextlib.suppress(OSError):
                aside.rename(folder)
    _discard(aside)


def _discard(folder: Path) -> None:
    """Deletes a renamed claim. A file that is not part of a claim stays, with its folder."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if PARTS.fullmatch(name):
                (folder / name).unlink()
        folder.rmdir()


def _token(folder: Path) -> str | None:
    try:
        return json.loads((folder / OWNER).read_bytes())["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _content(folder: Path) -> dict[str, str]:
    content = {}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                content[path.name] = path.read_text(errors="replace")
        content.setdefault("", "")                        # the folder is there
    return content


def _read(text: str) -> dict | None:
    with contextlib.suppress(ValueError):
        facts = json.loads(text)
        if isinstance(facts, dict) and {"host", "pid", "since", "place", "start"} <= set(facts):
            return facts
    return None


def _self() -> dict[str, object]:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": now, "place": table.place(),
            "start": table.start_of(os.getpid())}


def _is_here(fact: dict) -> bool:
    return bool(fact["place"]) and fact["place"] == table.place()


def _is_alive(fact: dict) -> bool:
    return table.is_running(fact["pid"]) and table.start_of(fact["pid"]) == fact["start"]
