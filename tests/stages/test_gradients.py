"""A training that several processes share: the same steps as alone, and an end for all when one of them ends."""
import json
import signal
import subprocess
import time

import pytest
import safetensors.torch
import torch

import diffbench
from diffbench.errors import FailedElsewhere
from diffbench.stages import ranks, training_loop
from diffbench.stages.batches import Batches
from diffbench.stages.gradients import Ranks
from tests.running.test_interrupts import alive
from tests.running.test_resume import CPU, Bench, planned

pytestmark = pytest.mark.slow
STEPS = {"steps": 120, "gpus": 2}                         # two chunks and a part of one


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), planned(**STEPS))
    assert bench.do("train", threads=2) == 0, bench.log
    return bench


def test_two_processes_take_the_steps_of_one(tmp_path):
    """15 images between two processes: 7 and 8. Without dropout, whose masks are each process's own."""
    bench = Bench(tmp_path, planned(backbone={"fragile": {"dropout": 0.0}}, steps=25, gpus=2))
    assert bench.do("train", threads=2) == 0, bench.log
    together = safetensors.torch.load(bench.bytes("train", "weights.safetensors"))
    cell = bench.plan.cells[0].cell
    alone = training_loop.train(cell, cell.dataset.load()["train"], CPU)
    for name, weight in alone.weights.items():
        assert (together[name] - weight).norm() <= 1e-5 * weight.norm(), name
    facts = bench.facts("train")
    assert facts["gpus"] == 2 and facts["threads"] == 1 and facts["losses"] == pytest.approx(alone.losses, rel=1e-5)


def test_a_shared_training_whose_worker_is_killed_leaves_no_process_and_ends_with_the_same_bits(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_TEST_MARK", str(tmp_path))
    bench = Bench(tmp_path, planned(**STEPS))
    assert bench.do("train", threads=2, end="0:70:kill the worker") == -signal.SIGKILL
    deadline = time.monotonic() + 300
    while alive(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not alive(tmp_path)
    assert [p.name for p in bench.partial("train").iterdir()] == ["00000050"]
    assert bench.do("train", threads=2) == 0, bench.log
    assert bench.facts("train")["resumed_at"] == [50] and bench.facts("train")["losses"] == undisturbed.facts("train")["losses"]
    assert bench.bytes("train", "weights.safetensors") == undisturbed.bytes("train", "weights.safetensors")


@pytest.mark.parametrize(("how", "reason"), [("kill", "rank 1 of 2: it was ended by signal 9"), ("raise", "rank 1 of 2: ArithmeticError: no more (fragile.py:")])
def test_a_rank_that_ends_ends_the_stage_with_its_reason(tmp_path, monkeypatch, how, reason):
    monkeypatch.setenv("DIFFBENCH_TEST_MARK", str(tmp_path))
    bench = Bench(tmp_path, planned(**STEPS))
    since = time.monotonic()                              # without its end the other ranks would wait for half an hour
    assert bench.do("train", threads=2, end=f"1:5:{how}") == 1
    assert time.monotonic() - since < 600 and reason in bench.error["reason"] and bench.error["kind"] == "code"
    assert not alive(tmp_path)


def test_a_rank_that_only_misses_another_is_believed_when_nobody_says_more(monkeypatch):
    said = json.dumps({"failed": {"status": "failed", "kind": "peer", "reason": "another rank did not answer: timed out"}})
    processes = [subprocess.Popen(["sh", "-c", f"{words}sleep 60"], stdout=subprocess.PIPE) for words in (f"echo '{said}'; exec ", "exec ")]
    monkeypatch.setattr(ranks, "PEER_SECONDS", 0.2)
    try:
        with pytest.raises(FailedElsewhere, match="rank 0 of 2: another rank did not answer: timed out"):
            ranks._listen(processes, diffbench.silent)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_rows_are_each_taken_once_and_weigh_one():
    for size, count in ((15, 2), (8, 8), (128, 3)):
        shares = [Ranks(rank=rank, count=count) for rank in range(count)]
        assert [i for each in shares for i in range(size)[each.rows(size)]] == list(range(size))
        assert sum(each.share(size) for each in shares) == pytest.approx(1.0) and all(each.share(size) > 0 for each in shares)


def test_the_shares_of_a_batch_are_its_rows():
    """Also the generators end where they end for one process: what is drawn does not depend on how it is shared."""
    cell = planned().cells[0].cell
    split = cell.dataset.load()["train"]
    batches = [Batches(cell, split, CPU, rows) for rows in (slice(0, 15), slice(0, 7), slice(7, 15))]
    for whole, first, second in zip(*(made.draw(3) for made in batches), strict=True):
        for field in ("x_0", "eps", "x_t"):
            assert torch.equal(getattr(whole[0], field), torch.cat([getattr(first[0], field), getattr(second[0], field)]))
        assert torch.equal(whole[3], torch.cat([first[3], second[3]])) and torch.equal(whole[2], torch.cat([first[2], second[2]]))
    assert all(torch.equal(batches[0].noise.get_state(), other.noise.get_state()) for other in batches[1:])


def test_gpus_change_no_key_and_a_batch_too_small_for_them_is_a_mistake():
    one, two = planned(), planned(gpus=2)
    assert one.cells[0].stages == two.cells[0].stages
    stage = two.stages[two.cells[0].stages["train"]]
    assert stage.gpus == 2 and two.stages[two.cells[0].stages["sample"]].gpus == 1
    with pytest.raises(diffbench.MatrixError, match="gpus must be at most batch_size, 15: each takes its share of every batch; got 16"):
        planned(gpus=16)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 1, reason="needs a CUDA device")
def test_more_gpus_than_there_are_is_said(tmp_path):
    bench = Bench(tmp_path, planned(steps=5, gpus=torch.cuda.device_count() + 1, batch_size=128))
    assert bench.do("train", device="cuda") == 1 and "train.gpus is" in bench.error["reason"]

