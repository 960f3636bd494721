"""After a power cut at any moment: nothing that is read is wrong, and what was reported as done is there.

Each protocol is also run with one of its flushes left out, which must be found: a test that cannot fail proves nothing.
"""

import hashlib
import itertools

import pytest

from diffbench.errors import Damaged
from diffbench.store import disk, manifest
from diffbench.store.artefacts import Store, write_atomically, write_flushed
from tests.faults.power_loss import Model, Recorder, after_power_cuts, violations

KEY, FILES = hashlib.sha256(b"stage").hexdigest(), {"facts.json": b'{"loss": 0.125}', "weights.safetensors": bytes(range(64))}
OLD, NEW = b'{"row": "old"}', b'{"row": "new, and longer"}'


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Does `work(root, say)` on a recorded disk and returns the log."""
    def run(work):
        root = tmp_path / "disk"
        root.mkdir()
        recorder = Recorder(root, disk.Disk())
        with monkeypatch.context() as patch:
            patch.setattr(disk, "disk", recorder)
            work(root, recorder.say)
        return recorder.log
    return run


def needed_flushes(log, check, folder):
    """What cannot be left unflushed: numbers of files, paths of folders."""
    flushed = dict.fromkeys(operation[1] for operation in log if operation[0] in ("flush", "flush_folder"))
    found = set()
    for i, what in enumerate(flushed):
        forgetful = [o for o in log if not (o[0] in ("flush", "flush_folder") and o[1] == what)]
        if violations(forgetful, check, folder / str(i), most=1)[1]:
            found.add(what)
    return found


def publish(root, say):
    store = Store(root / "home")
    store.prepare()
    store.publish("train", KEY, {"stage": "train"}, FILES)
    say("done")


def check_done(place, said):
    store = Store(place / "home")
    is_there = store.has("train", KEY)
    assert is_there or "done" not in said, "it was reported as done and is gone"
    if is_there:
        assert {name: (store.path("train", KEY) / name).read_bytes() for name in FILES} == FILES, "wrong content"


def check_done_and_go_on(place, said):
    check_done(place, said)
    store = Store(place / "home")
    store.prepare()
    store.publish("train", KEY, {"stage": "train"}, FILES)                       # whatever the next run finds
    assert all(store.read("train", KEY, name) == data for name, data in FILES.items()), "it cannot be built again"


def test_an_artefact_is_whole_or_absent_and_done_means_there(recorded, tmp_path):
    count, found = violations(recorded(publish), check_done_and_go_on, tmp_path / "states")
    assert not found and count > 100


def publish_by_path(root, say):
    """The weights lie in the folder of an attempt, and nobody has waited until they are on the disk."""
    store = Store(root / "home")
    store.prepare()
    written = store.root / "attempts" / "weights.safetensors"
    with disk.disk.create(written) as file:
        disk.disk.write(file, FILES["weights.safetensors"])
    store.publish("train", KEY, {"stage": "train"}, FILES | {"weights.safetensors": written})
    say("done")


def test_an_artefact_whose_file_was_moved_is_whole_or_absent_and_its_flush_is_needed(recorded, tmp_path):
    log = recorded(publish_by_path)
    count, found = violations(log, check_done_and_go_on, tmp_path / "states")
    assert not found and count > 100
    weights = next(o[2] for o in log if o[0] == "create" and o[1][-1] == "weights.safetensors")
    forgetful = [operation for operation in log if operation != ("flush", weights)]
    assert violations(forgetful, check_done, tmp_path / "forgetful", most=1)[1]


def test_every_flush_of_publishing_is_needed(recorded, tmp_path):
    """Each file, and each folder with a new name in it: the home's own, the home, store/, the stage, the first letters of the key, the artefact."""
    log = recorded(publish)
    files = {o[2]: o[1][-1] for o in log if o[0] == "create"}
    aside = next(o[1] for o in log if o[0] == "rename")
    assert {files.get(what, what) for what in needed_flushes(log, check_done, tmp_path)} == {
        "task.json", *FILES, manifest.MANIFEST, (), ("home",), ("home", "store"), ("home", "store", "train"), ("home", "store", "train", KEY[:2]), aside}


def replace_twice(root, say):
    write_atomically(root / "row.json", OLD)
    say("old")
    write_atomically(root / "row.json", NEW)
    say("new")


def check_replaced(place, said):
    found = (place / "row.json").read_bytes() if (place / "row.json").exists() else None
    allowed = {NEW} if "new" in said else {OLD, NEW} if "old" in said else {None, OLD}
    assert found in allowed, f"{found} after {set(said)}"


def test_a_file_is_the_old_one_or_the_new_one(recorded, tmp_path):
    log = recorded(replace_twice)
    count, found = violations(log, check_replaced, tmp_path / "states")
    assert not found and count > 5
    assert needed_flushes(log, check_replaced, tmp_path) == {0, 1, ()}


@pytest.mark.parametrize("protocol", ["in place", "renamed, nothing flushed", "file flushed, folder not"])
def test_naive_protocols_are_found_out(recorded, tmp_path, protocol):
    def write(path, data):
        if protocol == "in place":
            path.unlink(missing_ok=True)
        target = path if protocol == "in place" else path.with_name("new")
        with disk.disk.create(target) as file:
            disk.disk.write(file, data)
            if protocol == "file flushed, folder not":
                disk.disk.flush(file)
        if protocol != "in place":
            disk.disk.rename(target, path)

    def work(root, say):
        write(root / "row.json", OLD)
        say("old")
        write(root / "row.json", NEW)
        say("new")
    found = violations(recorded(work), check_replaced, tmp_path / "states")[1]
    assert found
    has_torn = any("\\x00" in text or "b''" in text for text in found)
    assert has_torn == (protocol != "file flushed, folder not"), "with the file flushed it is old, new or gone, never torn"


def test_a_checkpoint_that_was_reported_is_never_lost_to_the_next_one(recorded, tmp_path):
    """As a training keeps them: a folder per checkpoint, published whole, the one before it dropped afterwards."""
    contents = {n: {"state.safetensors": bytes([n]) * 50} for n in (1, 2)}

    def work(root, say):
        for n, files in contents.items():
            aside = root / f"aside-{n}"
            disk.disk.mkdir(aside)
            for name, data in {**files, manifest.MANIFEST: manifest.manifest_of("train", str(n), files)}.items():
                write_flushed(aside / name, data)
            disk.publish_folder(aside, root / "partial" / f"step-{n}", top=root)
            say(str(n))
            if n > 1:
                disk.disk.rmtree(root / "partial" / f"step-{n - 1}")

    def newest(place):
        for n in (2, 1):
            try:
                manifest.verify(place / "partial" / f"step-{n}", "train", str(n))
            except Damaged:
                continue
            return n
        return 0

    def check(place, said):
        assert newest(place) >= max(map(int, said), default=0), f"found {newest(place)} after {set(said)}"
    log = recorded(work)
    assert not violations(log, check, tmp_path / "states")[1]
    assert needed_flushes(log, check, tmp_path) == {0, 1, 2, 3, (), ("partial",), ("aside-1",), ("aside-2",)}


def test_an_artefact_set_aside_is_in_one_place_or_the_other(recorded, tmp_path):
    def work(root, say):
        publish(root, say)
        Store(root / "home").set_aside("train", KEY)
        say("aside")

    def check(place, said):
        store = Store(place / "home")
        kept = [p for p in (place / "home" / "damaged").glob("*") if (p / "weights.safetensors").read_bytes() == FILES["weights.safetensors"]]
        if "done" in said:
            assert bool(kept) != store.path("train", KEY).exists(), "lost, or twice"
        if "aside" in said:
            assert kept, "reported as set aside and not there"
    assert not violations(recorded(work), check, tmp_path / "states")[1]


class TestTheModelItself:
    """What is enumerated, against what can be counted by hand."""

    def states(self, log):
        return [tree for tree, _ in after_power_cuts(log)]

    def test_nothing_flushed_may_be_anything(self):
        log = [("create", ("a",), 0), ("write", 0, b"xy")]
        assert sorted(map(repr, self.states(log))) == sorted(map(repr, [{}, {"a": b""}, {"a": b"xy"}, {"a": b"x"}, {"a": b"\0\0"}]))

    def test_what_is_flushed_stays(self):
        log = [("create", ("a",), 0), ("write", 0, b"xy"), ("flush", 0), ("flush_folder", ()), ("said", "now")]
        assert [tree for tree, said in after_power_cuts(log) if said] == [{"a": b"xy"}]

    def test_a_file_in_a_folder_whose_own_name_is_not_flushed_is_gone(self):
        log = [("mkdir", ("d",)), ("create", ("d", "a"), 0), ("flush", 0), ("flush_folder", ("d",)), ("said", "now")]
        assert [tree for tree, said in after_power_cuts(log) if said] == [{}, {"d": {"a": b""}}]

    def test_changes_survive_in_any_order(self):
        log = [("mkdir", (name,)) for name in "abc"] + [("said", "now")]
        subsets = [dict.fromkeys(some, {}) for n in range(4) for some in itertools.combinations("abc", n)]
        assert sorted(map(repr, (t for t, said in after_power_cuts(log) if said))) == sorted(map(repr, subsets))

    def test_a_recorded_run_ends_in_the_tree_that_is_on_the_disk(self, recorded, tmp_path):
        log = recorded(publish)
        model = Model()
        for operation in log:
            if operation[0] != "said":
                model.apply(*operation)

        def on_disk(path):
            return path.read_bytes() if path.is_file() else {below.name: on_disk(below) for below in path.iterdir()}
        everything_survived = list(model.states())[-1]
        assert everything_survived == on_disk(tmp_path / "disk")
