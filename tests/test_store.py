"""The store: whole artefacts or none, damage found, no copy lost in a race."""

import hashlib
import json
import os
import random

import pytest

from diffbench.errors import DiffbenchError
from diffbench.planning import Stage
from diffbench.store import Damaged, Store, verify, write_atomically

KEY = hashlib.sha256(b"stage").hexdigest()
FILES = {"facts.json": b'{"loss": 0.125}', "weights.safetensors": bytes(range(256)) * 4}


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
    assert store.read_json("train", KEY, "facts.json") == {"loss": 0.125}
    assert not list((store.root / "staging").iterdir())


@pytest.mark.parametrize("name", ["facts.json", "weights.safetensors", "task.json", "manifest.json"])
def test_any_flipped_bit_is_found_set_aside_and_rebuilt(store, name):
    rng = random.Random(0)
    for _ in range(50):
        store.publish("train", KEY, {"stage": "train"}, FILES)
        path = store.path("train", KEY) / name
        data = bytearray(path.read_bytes())
        bit = rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        intact = name == "manifest.json" and json.loads(bytes(data).decode("utf-8", "replace") if is_json(data) else "{}").get("files") == listing(store)
        assert store.has("train", KEY) == intact, "a flipped bit outside the checksums may pass, one inside never"
        if intact:
            store.set_aside("train", KEY)
    assert list((store.root / "damaged").iterdir())


def is_json(data):
    try:
        json.loads(bytes(data))
    except ValueError:
        return False
    return True


def listing(store):
    other = Store(store.root.parent / "fresh")
    other.prepare()
    folder = other.publish("train", KEY, {"stage": "train"}, FILES)
    return json.loads((folder / "manifest.json").read_bytes())["files"]


@pytest.mark.parametrize("name", ["facts.json", "weights.safetensors", "manifest.json"])
def test_a_file_cut_short_or_gone_is_found(store, name):
    for change in (lambda p: p.write_bytes(p.read_bytes()[:-1]), lambda p: p.unlink()):
        store.publish("train", KEY, {"stage": "train"}, FILES)
        change(store.path("train", KEY) / name)
        assert not store.has("train", KEY)
        if store.path("train", KEY).exists():
            store.set_aside("train", KEY)


def test_the_loser_of_a_race_discards_its_own_copy(store):
    first = store.publish("train", KEY, {"who": "first"}, FILES)
    store.publish("train", KEY, {"who": "second"}, FILES)
    assert json.loads((first / "task.json").read_bytes()) == {"who": "first"}
    assert not list((store.root / "staging").iterdir())


def test_a_crash_before_the_rename_leaves_nothing_published(store, monkeypatch):
    monkeypatch.setattr(os, "rename", lambda *a: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
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
        verify(path.parent)


def test_attempts_are_numbered_and_kept(store):
    stage = Stage("train", KEY, {"stage": "train"}, {"x": 1}, {}, "label")
    first, second = store.new_attempt(stage, {}), store.new_attempt(stage, {})
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
