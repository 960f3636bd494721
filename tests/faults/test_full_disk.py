"""A disk that is full or cannot be written: said with the path and what is needed; what was there is whole."""

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
import hashlib, os, resource, signal, sys
from pathlib import Path
from diffbench.errors import DiffbenchError, DiskFull
from diffbench.store.artefacts import Store, write_atomically
place = Path(sys.argv[1])
store = Store(place / "home")
A, B = (hashlib.sha256(x).hexdigest() for x in (b"a", b"b"))
SMALL, LARGE = {"facts.json": b"{}"}, {"weights.safetensors": os.urandom(3_000_000)}
"""


def in_a_file_system(tmp_path, mount, code):
    """Runs `code` in a mount of its own; {place} in `mount` is its folder."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("a file system of one's own needs unshare with user namespaces, and this system does not allow them")
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "script.py").write_text(PRELUDE + textwrap.dedent(code))
    line = f"{mount.format(place=place)} && exec {sys.executable} {tmp_path / 'script.py'} {place}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", line], capture_output=True, text=True, timeout=6000)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_full_disk(tmp_path):
    said = in_a_file_system(tmp_path, "mount -t tmpfs -o size=1m tmpfs {place}", """
        store.prepare()
        store.publish("train", A, {}, SMALL)
        try:
            store.publish("train", B, {}, LARGE)
        except DiskFull as error:
            print(error)
        assert not store.has("train", B) and not list((store.root / "staging").iterdir()), "nothing half is left"
        assert store.read("train", A, "facts.json") == b"{}", "what was there is whole"
        row = place / "row.json"
        write_atomically(row, b"old")
        (place / "ballast").write_bytes(bytes(os.statvfs(place).f_bavail * os.statvfs(place).f_frsize))
        try:
            write_atomically(row, bytes(10_000))
        except DiskFull as error:
            print(error)
        assert row.read_bytes() == b"old" and sorted(p.name for p in place.iterdir()) == ["ballast", "home", "row.json"]
        (place / "ballast").unlink()
        store.publish("train", B, {}, SMALL)
        assert store.has("train", B), "and goes on once there is room"
    """)
    first, second = said.splitlines()
    assert first.startswith("disk full: needs about 3.0 MB, ") and f"free at {tmp_path}/place/home/staging" in first
    assert second.startswith("disk full: needs about 10.0 kB, 0 B free at ")


def test_a_disk_without_room_for_another_file(tmp_path):
    said = in_a_file_system(tmp_path, "mount -t tmpfs -o size=1m,nr_inodes=16 tmpfs {place}", """
        store.prepare()
        try:
            for i in range(20):
                store.publish("train", hashlib.sha256(b"%d" % i).hexdigest(), {}, SMALL)
        except DiskFull as error:
            print(error)
        assert not list((store.root / "staging").iterdir())
    """)
    assert "a quota or the number of files is exhausted" in said


def test_a_disk_that_may_only_be_read(tmp_path):
    said = in_a_file_system(tmp_path, "mount -t tmpfs tmpfs {place} && mkdir {place}/home && mount -o remount,ro {place}", """
        try:
            store.prepare()
        except DiffbenchError as error:
            print(error)
        assert not store.has("train", A)
    """)
    assert f"{tmp_path}/place/home cannot be written: Read-only file system; set DIFFBENCH_HOME" in said


def test_a_store_that_may_only_be_read_can_still_be_read(tmp_path):
    said = in_a_file_system(tmp_path, "mount -t tmpfs tmpfs {place}", """
        store.prepare()
        store.publish("train", A, {}, SMALL)
        store.publish("train", B, {}, SMALL)
        (store.path("train", B) / "facts.json").write_bytes(b"[]")
        os.system(f"mount -o remount,ro {place}")
        assert store.has("train", A) and store.find([("train", A)]).done == {A}
        try:
            store.has("train", B)
        except DiffbenchError as error:
            print(error)
    """)
    assert "cannot be set aside: Read-only file system" in said


def test_a_limit_on_file_size_is_an_error_of_its_own(tmp_path):
    """Where no file system can be mounted: the same path, another error number."""
    (tmp_path / "script.py").write_text(PRELUDE + textwrap.dedent("""
        store.prepare()
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            store.publish("train", B, {}, LARGE)
        except DiskFull as error:
            print(error)
        assert not store.has("train", B) and not list((store.root / "staging").iterdir())
    """))
    done = subprocess.run([sys.executable, tmp_path / "script.py", tmp_path], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "would be larger than a file may be here: File too large; raise the limit, of this process (`ulimit -f`)" in done.stdout
    assert str(Path("staging")) in done.stdout and "disk full" not in done.stdout
