"""The lock of a device, with real processes: what is left behind, stopped or killed keeps nobody from it, and no wait is for ever."""

import contextlib
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from diffbench.cli import installation
from diffbench.machine import device_lock, lock_folder
from diffbench.machine.device_lock import Hold
from diffbench.machine.lock_folder import CannotLock
from diffbench.results import speed_columns

HOLDS = """
import os, subprocess, sys, time
from diffbench.machine import device_lock
device, alone, then = sys.argv[1], sys.argv[2] == "alone", sys.argv[3]
device_lock.BEAT_SECONDS = 0.1
def waiting(holder):
    print(holder, flush=True)
with device_lock.held(device, alone=alone, work=f"throughput of {then}", waiting=waiting) as hold:
    print("has it", hold.beside, flush=True)
    if then == "daemon":
        if os.fork() == 0:                               # a daemon as `daemon(3)` makes it, with every descriptor of its parent
            os.setsid()
            if os.fork() == 0:
                os.write(1, b"%d\\n" % os.getpid())
                time.sleep(600)
            os._exit(0)
        child = subprocess.Popen(["sleep", "600"], close_fds=False)
        os.write(1, b"%d\\n" % child.pid)
    sys.stdin.readline()
    print("lost" if hold.has_lost() else "kept", flush=True)
os._exit(0)
"""


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def other():
    """Starts another process that has the device, or waits for it; all are ended with the test."""
    with contextlib.ExitStack() as stack:
        def start(alone: str = "shared", then: str = "RUN", device: str = "cpu") -> subprocess.Popen:
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", HOLDS, device, alone, then], stdin=subprocess.PIPE,
                                                           stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            return process
        yield start


def has_it(process: subprocess.Popen) -> subprocess.Popen:
    assert process.stdout.readline() == "has it \n"
    return process


def end(process: subprocess.Popen) -> str:
    """Lets it go on to its end; what it said of its lock."""
    process.stdin.write("\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert process.wait() == 0
    return answer.strip()


def take(device: str = "cpu", *, alone: bool, meanwhile=lambda holder: None) -> tuple[Hold, list[str]]:
    """(How this process had the device, whom it waited for)."""
    waited = []

    def waiting(holder: str) -> None:
        waited.append(holder)
        meanwhile(holder)
    with device_lock.held(device, alone=alone, work="train of MINE", waiting=waiting) as hold:
        return hold, waited


def test_many_share_a_device_and_one_has_it_alone(other):
    first = has_it(other())
    assert take(alone=False)[1] == []
    hold, waited = take(alone=True, meanwhile=lambda holder: end(first))
    assert waited == [f"throughput of RUN, pid {first.pid}"] and not hold.beside and not hold.unlocked and not hold.disturbance()
    second = has_it(other("alone"))
    assert take("cuda", alone=True)[1] == []              # another device
    assert take(alone=False, meanwhile=lambda holder: end(second))[1] == [f"throughput of RUN, pid {second.pid}"]


def test_a_killed_holder_frees_the_device_and_its_note_goes(other):
    holder = has_it(other("alone"))
    holder.kill()
    holder.wait()
    assert take(alone=True)[1] == []
    assert not list(lock_folder.lock_folder().glob("*.note"))


def test_what_a_holder_leaves_behind_does_not_have_the_device(other):
    holder = other("alone", "daemon")
    has_it(holder)
    left = [int(holder.stdout.readline()) for _ in range(2)]
    try:
        holder.stdin.close()
        assert holder.wait() == 0
        assert all(os.path.exists(f"/proc/{pid}") for pid in left)
        hold, waited = take(alone=True)
        assert waited == [] and not hold.disturbance()
    finally:
        for pid in left:
            os.kill(pid, signal.SIGKILL)


def test_a_stopped_holder_loses_the_device_and_its_own_timing_says_so(other, monkeypatch):
    monkeypatch.setattr(device_lock, "SILENT_SECONDS", 1.0)
    holder = has_it(other("alone"))
    os.kill(holder.pid, signal.SIGSTOP)
    hold, waited = take(alone=True)
    assert waited[-1] in (f"throughput of RUN, pid {holder.pid}", f"throughput of RUN, pid {holder.pid}, which gives no sign of life")
    assert not hold.beside and take(alone=False)[1] == [] and take(alone=True)[1] == []       # nor does it keep those who come later
    os.kill(holder.pid, signal.SIGCONT)
    assert end(holder) == "lost"
    lost = Hold(has_lost=lambda: True)
    assert lost.disturbance() == "this process gave no sign of life for a while, and others took the device"


def test_a_holder_that_beats_is_waited_for_though_another_is_stopped(other, monkeypatch):
    monkeypatch.setattr(device_lock, "SILENT_SECONDS", 1.0)
    stopped, beating = has_it(other()), has_it(other())
    os.kill(stopped.pid, signal.SIGSTOP)
    ended = []

    def meanwhile(holder: str) -> None:
        if holder.startswith(f"throughput of RUN, pid {beating.pid}") and not ended:
            ended.append(end(beating))
    hold, waited = take(alone=True, meanwhile=meanwhile)
    assert ended == ["kept"] and not hold.beside and f"throughput of RUN, pid {beating.pid} and 1 more" in waited
    assert end(has_it(other("alone"))) == "kept"          # the stopped one has it no more for anybody


def test_who_waits_to_be_alone_goes_before_those_who_come_later(other):
    holder = has_it(other())
    waiter = other("alone", "LATER")
    assert waiter.stdout.readline() == f"throughput of RUN, pid {holder.pid}\n"

    def meanwhile(first: str) -> None:
        if "LATER" in first and holder.poll() is None:
            end(holder)
            end(has_it(waiter))
    assert take(alone=False, meanwhile=meanwhile)[1][0] == f"throughput of LATER, pid {waiter.pid}, which waits for the device to be free"


def test_it_does_so_for_a_while_and_then_lets_others_pass_for_as_long(monkeypatch):
    def closes(after: float, **changes) -> bool:
        monkeypatch.setattr(device_lock.time, "time", lambda: 1e9 + after)
        facts = {"pid": 1, "start": "", "place": "", "work": "x", "alone": True, "has": False, "since": 1e9, "beat": 1e9 + after}
        return device_lock._Note(**facts | changes).closes_the_gate
    seconds = device_lock.GATE_SECONDS
    assert [closes(share * seconds) for share in (0.0, 0.9, 1.1, 1.9, 2.1, 3.1)] == [True, True, False, False, True, False]
    assert not closes(1.0, has=True) and not closes(1.0, alone=False) and not closes(1.0, beat=1e9 - 2 * device_lock.SILENT_SECONDS)


def test_a_wait_ends_and_the_timing_says_beside_whom_it_was_taken(other, monkeypatch):
    monkeypatch.setattr(device_lock, "WAIT_SECONDS", 0.0)
    holder = has_it(other())
    hold, waited = take(alone=True)
    assert waited == [f"throughput of RUN, pid {holder.pid}"] == [hold.beside]
    assert hold.disturbance() == f"throughput of RUN, pid {holder.pid} had the device too"
    facts = {"spread": 0.0, "cores": 2, "device": "cpu", "load": {"cores_of_others": 0.0, "gpu_busy_before": None, "disturbance": hold.disturbance()}}
    assert speed_columns.noise(facts) == [hold.disturbance()]


def test_a_lock_without_a_note_is_waited_for_and_not_taken_away(monkeypatch):
    monkeypatch.setattr(device_lock, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(device_lock, "WAIT_SECONDS", 0.0)
    take(alone=True)
    path = next(lock_folder.lock_folder().glob("cpu.*.lock"))
    code = f"import fcntl, sys; file = open({str(path)!r}, 'r+'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stranger:
        stranger.stdout.readline()
        hold, _ = take(alone=True)
        stranger.stdin.close()
    assert hold.beside == "a process that left no note"


def test_torn_notes_and_strange_files_in_the_folder_change_nothing(other):
    folder = lock_folder.lock_folder()
    for name, text in (("cpu.1-a.note", "{"), ("cpu.2-a.note", "[]"), ("cpu.3-a.note", '{"pid": 1}'), ("cpu.x.lock", ""), ("cpu.note", "")):
        (folder / name).write_text(text)
    assert take(alone=True)[1] == [] and take(alone=False)[1] == []


def test_the_note_of_another_container_counts_by_its_signs_of_life(monkeypatch):
    folder, now = lock_folder.lock_folder(), device_lock.time.time()
    facts = {"pid": 1, "start": "5", "place": "another", "work": "throughput of FAR", "alone": True, "has": False}
    (folder / "cpu.1-far.note").write_text(json.dumps(facts | {"since": now, "beat": now}))
    lock = device_lock._Lock(folder, "cpu", False, "x")
    assert lock.take() == "throughput of FAR, pid 1, which waits for the device to be free"
    (folder / "cpu.1-far.note").write_text(json.dumps(facts | {"since": now, "beat": now - 2 * device_lock.SILENT_SECONDS}))
    assert take(alone=False)[1] == []
    (folder / "cpu.1-far.note").write_text(json.dumps(facts | {"since": now, "beat": now - 2 * device_lock.KEPT_SECONDS}))
    assert take(alone=False)[1] == [] and not (folder / "cpu.1-far.note").exists()


def unusable(monkeypatch, tmp_path) -> None:
    """No temporary folder but those of the test."""
    monkeypatch.setattr(lock_folder, "TEMPORARY", tmp_path / "tmp")
    monkeypatch.setattr(lock_folder.tempfile, "gettempdir", lambda: str(tmp_path / "jobs"))


def test_without_a_state_folder_locks_lie_in_the_temporary_one_and_need_no_home_and_no_user_name(tmp_path, monkeypatch):
    unusable(monkeypatch, tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.delenv("HOME", raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(f"pwd.{name}", lambda _: (_ for _ in ()).throw(KeyError("no such user")))
    folder = lock_folder.lock_folder()
    assert folder.parent == tmp_path / "tmp" / f"diffbench-locks-{os.geteuid()}" and folder.parent.stat().st_mode & 0o777 == 0o700
    assert folder.name == lock_folder.table.machine()                 # a folder that machines share has a place for each
    assert take(alone=True)[1] == []


@pytest.mark.skipif(not hasattr(os, "setuid") or os.geteuid() != 0, reason="needs to become another user")
def test_a_user_without_an_entry_and_a_home_measures_speed():
    code = ("import fcntl, os, sys; from pathlib import Path; from diffbench.machine import device_lock, lock_folder\n"
            "os.setgid(54321); os.setuid(54321)             # after the imports: an interpreter may lie where only its owner may read\n"
            "lock_folder.TEMPORARY = Path(sys.argv[1])\n"
            "with device_lock.held('cpu', alone=True, work='x', waiting=print) as hold: print(repr(hold.unlocked), lock_folder.lock_folder().parent.name)")
    environment = {name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_STATE_HOME")}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o777)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment)
    assert done.stdout == "'' diffbench-locks-54321\n", done.stderr


def test_a_folder_that_is_a_link_or_open_to_others_is_not_used(tmp_path, monkeypatch):
    unusable(monkeypatch, tmp_path)
    monkeypatch.delenv("XDG_STATE_HOME")
    for name in ("tmp", "jobs", "elsewhere"):
        (tmp_path / name).mkdir()
    mine = tmp_path / "tmp" / f"diffbench-locks-{os.geteuid()}"
    mine.symlink_to(tmp_path / "elsewhere")
    assert lock_folder.lock_folder().parent.parent == tmp_path / "jobs" and not list((tmp_path / "elsewhere").iterdir())
    mine.unlink()
    mine.mkdir()
    mine.chmod(0o777)
    assert lock_folder.lock_folder().parent.parent == tmp_path / "jobs"
    monkeypatch.setattr(lock_folder.os, "geteuid", lambda: 54321)
    with pytest.raises(CannotLock, match="is not a folder that this user owns and nobody else may write"):
        lock_folder._check_owner(tmp_path / "jobs")


@pytest.mark.parametrize("answer", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL, errno.EROFS])
def test_where_nothing_can_be_locked_stages_run_and_say_so(answer, monkeypatch, tmp_path):
    unusable(monkeypatch, tmp_path)
    (tmp_path / "tmp").mkdir()

    def refuse(*_):
        raise OSError(answer, os.strerror(answer))
    monkeypatch.setattr(fcntl, "lockf", refuse)
    hold, waited = take(alone=True)
    assert waited == [] and not hold.disturbance()
    assert hold.unlocked.startswith("devices cannot be locked, so that runs measure speed beside each other; ") and os.strerror(answer) in hold.unlocked
    assert hold.unlocked.endswith("Set XDG_STATE_HOME to a folder of this machine that can be written")
    finding = installation._locks()
    assert finding.is_problem and finding.text == hold.unlocked
    laps = {"noise": [], "load": {"unlocked": hold.unlocked}}
    row = {"train_laps": laps | {"load": {"unlocked": ""}}, "sample_laps": laps, "throughput_by_batch": []}
    assert speed_columns.judged(row)["speed_remark"] == f"sampling was timed without a lock: {hold.unlocked}"


def test_a_lock_that_fails_later_is_said_too(monkeypatch):
    monkeypatch.setattr(device_lock, "try_lock", lambda *_, **__: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    assert take(alone=True)[0].unlocked.endswith("Input/output error")


def test_a_home_that_cannot_be_written_changes_nothing(monkeypatch, tmp_path):
    unusable(monkeypatch, tmp_path)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/none")
    monkeypatch.setenv("HOME", "/proc/none")
    assert lock_folder.lock_folder().is_relative_to(tmp_path / "tmp")
    assert not installation._locks().is_problem
