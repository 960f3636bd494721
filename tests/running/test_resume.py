"""Stages that were killed and go on: the bits are those of a stage that nothing happened to."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.matrix.describing import rebuild_recipe
from diffbench.stages import training_loop
from diffbench.stages.checkpoints import Checkpoints, Piece, Pieces
from diffbench.stages.gradients import ALONE
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from tests.conftest import REGISTRY  # noqa: F401  threads are set there
from tests.helpers.forking import Forked
from tests.helpers.runs import attempted, work

PLUGIN = str(Path(__file__).parents[1] / "helpers" / "fragile.py")
CPU = torch.device("cpu")
EXECUTION = {"checkpoint_seconds": 0.0, "plugins": [PLUGIN]}


def planned(scheduler="ddpm", backbone="fragile", **train):
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "axes": {
        "backbone": backbone, "conditioning": "none", "scheduler": {scheduler: {"steps": 2}}},
        "train": {"steps": 40, "batch_size": 15, "weight_decay": 0.1, "warmup": 5, **train}, "sample": {"count": 12, "batch_size": 5}}
    return diffbench.plan(content, device="cpu", plugins=[PLUGIN])


class Bench:
    """One store, and tries of the stages of one plan in processes of their own."""

    def __init__(self, root, plan=None):
        self.store = Store(root)
        self.store.prepare()
        self.plan = plan or planned()
        self.stages = {role: self.plan.stages[key] for role, key in self.plan.cells[0].stages.items()}
        self.claims = Claims()

    def start(self, role, *, end="0:0:", **execution):
        self.attempt = attempted(self.store, self.claims, self.stages[role], EXECUTION | execution)
        return Forked(work, self.store.root, self.attempt, end, training_loop.CHUNK).go()

    def do(self, role, **options):
        """The exit code of a try, negative where a signal ended it."""
        return self.start(role, **options).wait()

    def spawn(self, role, *, end="0:0:", **execution):
        """As `do`, in a process that inherits nothing."""
        self.attempt = attempted(self.store, self.claims, self.stages[role], EXECUTION | execution)
        command = [sys.executable, "-m", "diffbench.stages.worker", str(self.store.root), str(self.attempt)]
        return subprocess.run(command, env=os.environ | {"DIFFBENCH_TEST_END": end}, timeout=300).returncode

    @property
    def log(self):
        return (self.attempt / "log.txt").read_text()

    @property
    def error(self):
        return json.loads((self.attempt / "error.json").read_bytes())

    def partial(self, role):
        return self.store.partial(role, self.stages[role].key)

    def bytes(self, role, name):
        return (self.store.path(role, self.stages[role].key) / name).read_bytes()

    def facts(self, role):
        return json.loads(self.bytes(role, "facts.json"))


@pytest.fixture(scope="module", autouse=True)
def short_chunks():
    """Checkpoints lie between chunks; worker processes are told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training_loop, "CHUNK", 10)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("undisturbed"))
    assert bench.do("train") == 0 and bench.do("sample") == 0
    return bench


@pytest.fixture(scope="module")
def killed_at_27(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("killed"))
    assert bench.do("train", end="0:27:kill") == -signal.SIGKILL
    assert sorted(p.name for p in bench.partial("train").iterdir()) == ["00000010", "00000020"]
    return bench


@pytest.fixture
def killed(killed_at_27, tmp_path):
    """A store of one's own in which a training was killed in its 27th step."""
    shutil.copytree(killed_at_27.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("claims"))
    return Bench(tmp_path / "store", killed_at_27.plan)


def test_a_training_killed_at_step_17_of_40_ends_with_the_same_bits(undisturbed, tmp_path):
    bench = Bench(tmp_path)
    assert bench.do("train", end="0:17:kill") == -signal.SIGKILL and not bench.store.has("train", bench.stages["train"].key)
    assert bench.do("train") == 0
    assert bench.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors")
    once, twice = undisturbed.facts("train"), bench.facts("train")
    assert once["resumed_at"] == [] and twice["resumed_at"] == [10] and once["losses"] == twice["losses"] and len(once["losses"]) == 4
    assert not bench.partial("train").exists(), "what is published needs no checkpoint"


def test_a_training_killed_twice_says_so_and_ends_with_the_same_bits(undisturbed, killed):
    assert killed.do("train", end="0:18:kill") == -signal.SIGKILL and killed.do("train") == 0         # the 18th of its own is step 38
    assert killed.facts("train")["resumed_at"] == [20, 30] and killed.facts("train")["losses"] == undisturbed.facts("train")["losses"]
    assert killed.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors")


def test_progress_tells_loss_and_speed(killed):
    assert killed.do("train", end="0:18:kill") == -signal.SIGKILL
    said = json.loads((killed.attempt / "progress.json").read_bytes())
    assert said["done"] == 30 and said["of"] == 40 and said["figures"]["loss"] > 0 and said["figures"]["images_per_second"] > 0


@pytest.mark.parametrize("dropped", [None, "weights", "average", "optimizer", "batches", "global"])
def test_every_state_of_a_checkpoint_is_needed(undisturbed, killed, dropped):
    """With one of the five put back to where a training begins, the end differs; with none, it does not."""
    folder = killed.partial("train")
    pieces = Pieces(folder=folder, aside=killed.store.root / "staging", belongs=json.loads((folder / "00000020/facts.json").read_bytes())["belongs"])
    saved, cell = pieces.read(20), rebuild_recipe(killed.stages["train"].task["recipe"], killed.plan.registry)
    with torch.random.fork_rng():
        fresh = training_loop._State(cell, cell.dataset.load()["train"], CPU, ALONE).saved().tensors
    kept = {name: value for name, value in saved.tensors.items() if name.partition(".")[0] != dropped}
    assert len(kept) < len(saved.tensors) or dropped is None
    pieces.write(20, Piece(tensors={name: value for name, value in fresh.items() if name.partition(".")[0] == dropped} | kept, facts=saved.facts))
    assert killed.do("train") == 0 and killed.facts("train")["resumed_at"] == [20]
    is_same = killed.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors")
    assert is_same == (dropped is None)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("damage", "resumed_at"), [
    (lambda folder: flip(folder / "00000020/state.safetensors"), [10]),
    (lambda folder: (folder / "00000020/manifest.json").unlink(), [10]),
    (lambda folder: [flip(path) for path in folder.glob("*/state.safetensors")], []),
], ids=["a flipped bit in the newest", "the newest half there", "a flipped bit in both"])
def test_a_damaged_checkpoint_is_passed_over(undisturbed, killed, damage, resumed_at):
    damage(killed.partial("train"))
    assert killed.do("train") == 0 and killed.facts("train")["resumed_at"] == resumed_at
    assert f"{killed.partial('train') / '00000020'} is passed over: " in killed.log
    assert killed.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors")


def test_a_checkpoint_of_another_number_of_threads_is_passed_over(killed):
    assert killed.do("train", threads=2) == 0 and killed.facts("train")["resumed_at"] == []
    assert "00000020 is passed over: made with threads 1, now 2" in killed.log


def test_checkpoints_take_their_time(tmp_path, monkeypatch):
    """At most one in so many seconds, and no more than a twentieth of the time where one takes long; two are kept."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    made = Checkpoints(pieces=Pieces(folder=tmp_path / "partial", aside=tmp_path, belongs={}), seconds=30.0, since=0.0)
    slow = Piece(tensors={}, facts={})
    monkeypatch.setattr(Pieces, "write", lambda self, number, piece: (self._path(number).mkdir(parents=True), now.__setitem__(0, now[0] + 3.0)))
    due = []
    for _ in range(200):
        now[0] += 1.0
        if made.is_due():
            due.append(now[0])
            made.write(len(due), slow)
    assert due == [30.0, 93.0, 156.0] and made.pieces.numbers() == [2, 3]


def test_a_sampling_killed_in_its_third_block_goes_on_from_there(undisturbed, tmp_path):
    shutil.copytree(undisturbed.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("claims"))
    bench = Bench(tmp_path / "store")
    shutil.rmtree(bench.store.path("sample", bench.stages["sample"].key))
    assert bench.do("sample", end="0:5:kill") == -signal.SIGKILL                  # two calls a block
    assert sorted(p.name for p in bench.partial("sample").iterdir()) == ["00000000", "00000005"]
    flip(bench.partial("sample") / "00000000/state.safetensors")
    assert bench.do("sample", end="0:5:raise") == 0, "four calls: the damaged block and the one that was not there"
    for name in ("images.safetensors", "facts.json"):
        assert bench.bytes("sample", name) == undisturbed.bytes("sample", name)
    assert bench.facts("sample")["nfe"] == 2.0 and "00000000 is passed over" in bench.log


def test_a_smaller_batch_takes_no_block_of_a_larger_one_and_is_said(undisturbed, tmp_path):
    shutil.copytree(undisturbed.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("claims"))
    bench = Bench(tmp_path / "store")
    shutil.rmtree(bench.store.path("sample", bench.stages["sample"].key))
    assert bench.do("sample", end="0:5:kill") == -signal.SIGKILL
    assert bench.do("sample", batch_size=4) == 0 and "made with batch_size 5, now 4" in bench.log
    facts = bench.facts("sample")
    assert facts["batch_size"] == 4 and facts["batch_size_asked"] == 5 and facts["nfe"] == 2.0
    images = [safetensors.torch.load(b.bytes("sample", "images.safetensors"))["images"].int() for b in (bench, undisturbed)]
    assert images[0].shape == images[1].shape and (images[0] - images[1]).abs().max() <= 1


@pytest.mark.parametrize(("scheduler", "kind", "reason"), [
    ("staining", "diverged", "2 of 12 samples are not finite; the first is sample 2"),
    ("cropping", "request", "cropping: a step must give x_s as float32 [5, 1, 8, 8], got float32 [5, 1, 7, 8] from the step at t = 1"),
    ("widening", "request", "widening: a step must give x_s as float32 [5, 1, 8, 8], got float64 [5, 1, 8, 8] from the step at t = 1"),
    ("forgetting", "request", "forgetting: a step must give x_s as float32 [5, 1, 8, 8], got NoneType from the step at t = 1"),
])
def test_samples_that_are_none_fail_with_what_was_found_and_are_not_kept(undisturbed, tmp_path, scheduler, kind, reason):
    shutil.copytree(undisturbed.store.root, tmp_path / "store", ignore=shutil.ignore_patterns("claims"))
    bench = Bench(tmp_path / "store", planned(scheduler))
    assert bench.do("sample") == 1 and bench.error["kind"] == kind and bench.error["reason"] == reason
    assert not bench.partial("sample").exists()


def test_deterministic_mode_is_recorded_and_a_kernel_that_refuses_is_named(undisturbed, tmp_path):
    bench = Bench(tmp_path)
    assert bench.do("train", is_deterministic=True, end="0:3:refuse") == 1
    assert bench.error["kind"] == "code" and "put_ does not have a deterministic implementation" in bench.error["reason"]
    assert bench.do("train", is_deterministic=True) == 0 and bench.facts("train")["is_deterministic"] is True
    assert undisturbed.facts("train")["is_deterministic"] is False
    assert bench.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors"), "it costs nothing on a CPU"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_in_deterministic_mode_a_gpu_goes_on_with_the_same_bits(tmp_path):
    """Spawned, as CUDA wants it; so chunks are long."""
    weights = []
    for name, ends in (("once", ["0:0:"]), ("twice", ["0:70:kill", "0:0:"])):
        bench = Bench(tmp_path / name, planned(steps=120))
        codes = [bench.spawn("train", end=end, device="cuda", is_deterministic=True) for end in ends]
        assert codes == [-signal.SIGKILL, 0][-len(ends):]
        weights.append(bench.bytes("train", "weights.safetensors"))
    assert bench.facts("train")["resumed_at"] == [50] and weights[0] == weights[1]
