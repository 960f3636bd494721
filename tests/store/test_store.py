"""The store: whole artefacts or none, damage found, no copy lost in a race."""
import errno
import hashlib
import json
import os
import stat
import threading
from pathlib import Path

import pytest

from diffbench import wording
from diffbench.errors import Damaged, DiffbenchError, DiskFull
from diffbench.planning.stage import Stage
from diffbench.store import artefacts as stores
from diffbench.store import manifest
from diffbench.store.artefacts import Store, write_atomically

KEY = hashlib.sha256(b"stage").hexdigest()
FACTS = {"losses": [0.125], "steps_per_loss": 1, "train_loss": 0.125, "compiled": False}
FILES = {"facts.json": json.dumps(FACTS).encode(), "weights.safetensors": bytes(range(256)) * 4}


@pytest.fixture
def store(tmp_path):
    made = Store(tmp_path / "store root")
    made.prepare()
    return made


def test_publishing_makes_it_there_and_readable(store):
    assert not store.has("train", KEY)
    folder = store.publish("train", KEY, {"stage": "train"}, FILES)
    assert store.has("train", KEY)
    assert folder == store.path("train", KEY) and folder.parent.name == KEY[:2]
    assert store.read_json("train", KEY, "facts.json") == FACTS
    assert not list((store.root / "staging").iterdir())


@pytest.mark.parametrize("name", ["facts.json", "weights.safetensors", "manifest.json"])
def test_a_file_cut_short_or_gone_is_found(store, name):
    for change in (lambda p: p.write_bytes(p.read_bytes()[:-1]), lambda p: p.unlink()):
        store.publish("train", KEY, {"stage": "train"}, FILES)
        change(store.path("train", KEY) / name)
        assert not store.has("train", KEY)
        assert not store.path("train", KEY).exists(), "out of the way of the next try"


def test_the_loser_of_a_race_discards_its_own_copy(store):
    first = store.publish("train", KEY, {"who": "first"}, FILES)
    store.publish("train", KEY, {"who": "second"}, FILES)
    assert json.loads((first / "task.json").read_bytes()) == {"who": "first"}
    assert not list((store.root / "staging").iterdir())


def test_a_crash_before_the_rename_leaves_nothing_published(store, monkeypatch):
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output error.*" + KEY):
        store.publish("train", KEY, {}, FILES)
    monkeypatch.undo()
    assert not store.has("train", KEY) and not list((store.root / "staging").iterdir())


def test_tensors_are_checked_when_they_are_read(store):
    import safetensors.torch
    import torch

    store.publish("train", KEY, {}, {"w.safetensors": safetensors.torch.save({"a": torch.arange(9.0)})})
    assert torch.equal(store.read_tensors("train", KEY, "w.safetensors")["a"], torch.arange(9.0))
    path = store.path("train", KEY) / "w.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(Damaged):
        store.read_tensors("train", KEY, "w.safetensors")
    with pytest.raises(Damaged):
        manifest.verify(path.parent, "train", KEY)


def test_attempts_are_numbered_and_kept(store):
    stage = Stage("train", KEY, {"stage": "train"}, {"x": 1}, {}, "label")
    first, second = store.new_attempt(stage.content(), {}), store.new_attempt(stage.content(), {})
    assert (first.name, second.name) == ("01", "02")
    assert json.loads((second / "task.json").read_bytes())["task"] == {"x": 1}


def test_a_folder_that_cannot_be_written_is_said_before_any_work(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DiffbenchError, match="cannot be written.*DIFFBENCH_HOME"):
        Store(tmp_path / "file" / "below").prepare()


def test_atomic_writes_keep_the_old_content_when_they_fail(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x.json"]


def test_what_is_read_is_what_the_manifest_names_and_damage_says_whose_it_is(store):
    store.publish("train", KEY, {}, FILES)
    path = store.path("train", KEY) / "facts.json"
    path.write_bytes(FILES["facts.json"].replace(b"0.125", b"0.126"))
    for read in (lambda: store.read_json("train", KEY, "facts.json"), lambda: store.read("train", KEY, "no such file"), lambda: store.check("train", KEY),
                 lambda: store.read_json("train", KEY, "facts.json")):                # the last: set aside by the one before
        with pytest.raises(Damaged, match=KEY[:12]) as found:
            read()
        assert (found.value.stage, found.value.key) == ("train", KEY)
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_an_artefact_under_another_name_is_not_taken_for_it(store):
    other = hashlib.sha256(b"other").hexdigest()
    store.publish("train", KEY, {}, FILES)
    store.path("train", other).parent.mkdir(parents=True, exist_ok=True)
    os.rename(store.path("train", KEY), store.path("train", other))
    with pytest.raises(Damaged, match="its manifest is of train " + KEY):
        store.check("train", other)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "", ".hidden"])
def test_a_manifest_cannot_lead_out_of_its_folder(store, name):
    folder = store.publish("train", KEY, {}, FILES)
    content = json.loads((folder / "manifest.json").read_bytes())
    content["files"][name] = content["files"].pop("facts.json")
    (folder / "manifest.json").write_text(json.dumps(content))
    with pytest.raises(Damaged, match="wrongly"):
        store.check("train", KEY)


def test_an_artefact_that_another_process_takes_away_meanwhile_is_gone_and_nothing_else(store, monkeypatch):
    store.publish("train", KEY, {}, FILES)
    verify = manifest.verify

    def taken(folder, stage, key):
        if folder.exists():
            Store(store.root).set_aside(stage, key)
        return verify(folder, stage, key)
    monkeypatch.setattr(manifest, "verify", taken)
    assert not store.has("train", KEY) and not store.has("train", KEY)
    assert len(list((store.root / "damaged").iterdir())) == 1


def test_what_another_process_has_rebuilt_meanwhile_is_not_set_aside(store, monkeypatch):
    folder = store.publish("train", KEY, {}, FILES)
    (folder / "facts.json").unlink()
    verify = manifest.verify

    def rebuilt(*artefact):
        try:
            return verify(*artefact)
        except Damaged:
            store.set_aside("train", KEY)
            store.publish("train", KEY, {}, FILES)
            raise
    monkeypatch.setattr(manifest, "verify", rebuilt)
    assert not store.has("train", KEY), "what was looked at was damaged"
    monkeypatch.undo()
    assert store.has("train", KEY), "what is there now is not"


def test_a_folder_without_manifest_is_no_obstacle(store):
    folder = store.path("train", KEY)
    folder.mkdir(parents=True)
    (folder / "facts.json").write_text("half")
    store.publish("train", KEY, {}, FILES)
    assert store.read("train", KEY, "facts.json") == FILES["facts.json"]


def test_what_may_not_be_read_is_not_called_damaged(store, monkeypatch):
    store.publish("train", KEY, {}, FILES)
    monkeypatch.setattr(os, "open", lambda *a, **k: (_ for _ in ()).throw(PermissionError(errno.EACCES, "Permission denied")))
    with pytest.raises(DiffbenchError, match="cannot be read: Permission denied") as found:
        store.has("train", KEY)
    assert not isinstance(found.value, Damaged)
    monkeypatch.undo()
    assert store.has("train", KEY)


@pytest.mark.parametrize("seconds", [0.0, 1e9], ids=["threads", "one after another"])
def test_many_are_found_at_once_damaged_ones_apart(store, monkeypatch, seconds):
    monkeypatch.setattr(stores, "SLOW_SECONDS", seconds)
    keys = [hashlib.sha256(b"%d" % i).hexdigest() for i in range(150)]
    for key in keys[:140]:
        store.publish("sample", key, {}, {"facts.json": b"{}"})
    for key in keys[:150:50]:
        (store.path("sample", key) / "facts.json").write_bytes(b"[]")
    found = store.find(("sample", key) for key in keys)
    assert found.damaged == set(keys[:150:50]) and found.done == set(keys[:140]) - found.damaged
    assert store.find(("sample", key) for key in keys) == (found.done, set())


def test_modes_are_the_users(store):
    before = os.umask(0o027)
    try:
        folder = store.publish("train", KEY, {}, FILES)
        write_atomically(store.root / "x.json", b"{}")
    finally:
        os.umask(before)
    for path, mode in ((folder, 0o750), (folder.parent, 0o750), (folder / "facts.json", 0o640), (folder / "manifest.json", 0o640), (store.root / "x.json", 0o640)):
        assert stat.S_IMODE(path.stat().st_mode) == mode, path


def test_the_umask_is_never_touched(store, monkeypatch):
    """It belongs to the whole process: setting it to read it would give another thread's file a wrong mode."""
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("os.umask was called"))
    threads = [threading.Thread(target=store.publish, args=("train", hashlib.sha256(b"%d" % i).hexdigest(), {}, FILES)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(list((store.root / "store" / "train").glob("*/*"))) == 4


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_says_what_is_needed_and_where(store, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(code, os.strerror(code))))
    with pytest.raises(DiskFull, match=r"disk full: needs about 1\.\d kB, .* free at .*staging"):
        store.publish("train", KEY, {}, FILES)
    monkeypatch.undo()
    assert not store.has("train", KEY) and not list((store.root / "staging").iterdir())


def test_an_input_output_error_is_not_called_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match=r"Input/output error.*x\.json"):
        write_atomically(tmp_path / "x.json", b"new")
    assert not os.listdir(tmp_path)


def test_a_run_is_registered_once_per_folder(store, tmp_path):
    paths = {store.register_run(tmp_path / "out", [KEY]) for _ in range(2)} | {store.register_run(tmp_path / "other", [])}
    assert len(paths) == 2 == len(list((store.root / "runs").iterdir()))
    assert json.loads(store.register_run(tmp_path / "out", [KEY]).read_bytes())["folder"] == str(tmp_path / "out")


@pytest.mark.parametrize(("count", "said"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (123_456, "123 kB"), (1_200_000_000, "1.2 GB")])
def test_sizes_in_words(count, said):
    assert wording.in_bytes(count) == said


def test_only_the_door_writes():
    """Whatever changes the disk in these modules goes through `store.disk.disk`, where the faults are injected."""
    for module in (stores, manifest):
        text = Path(module.__file__).read_text()
        for call in ("os.replace", "os.rename", "os.mkdir", "os.unlink", "shutil", ".mkdir(", ".unlink(", ".write_bytes", ".write_text", "tempfile"):
            assert call not in text.replace("disk.disk.mkdir(", "").replace("disk.disk.unlink(", ""), call


def test_a_file_by_its_path_is_moved_and_has_the_manifest_of_its_bytes(store):
    in_memory = store.publish("train", KEY, {}, FILES)
    written = store.root / "attempts" / "weights.safetensors"
    written.write_bytes(FILES["weights.safetensors"])
    number, other = written.stat().st_ino, hashlib.sha256(b"other").hexdigest()
    by_path = store.publish("train", other, {}, FILES | {"weights.safetensors": written})
    assert (by_path / "weights.safetensors").stat().st_ino == number and not written.exists(), "moved, not copied"
    listings = [json.loads((folder / "manifest.json").read_bytes())["files"] for folder in (in_memory, by_path)]
    assert listings[0] == listings[1] and store.has("train", other)
    assert store.read("train", other, "weights.safetensors") == FILES["weights.safetensors"]
