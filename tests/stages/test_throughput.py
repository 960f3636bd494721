"""The stage that measures speed, against components whose cost is known."""
import json
import multiprocessing
import os
import threading
import time
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import diffbench
from diffbench.errors import OptionError
from diffbench.machine import anchor
from diffbench.machine import laps as timing
from diffbench.matrix import loading
from diffbench.matrix.settings import Throughput
from diffbench.planning import stage_graph
from diffbench.report import tables
from diffbench.results import frame as frames
from diffbench.results import speed_columns
from diffbench.stages import throughput, training_loop
from diffbench.stages.context import Context
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
TINY = {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}


@diffbench.register
@dataclass(frozen=True, kw_only=True)
class Sleeping(diffbench.Backbone):
    """A network that sleeps."""

    seconds: float = 0.0
    fits: int = 1000                  # images at a time; for more there is no memory

    @property
    def signal_width(self):
        return 1

    def build(self, io):
        return Sleeper(self.seconds, self.fits)


class Sleeper(nn.Module):
    def __init__(self, seconds, fits):
        super().__init__()
        self.seconds, self.fits, self.weight = seconds, fits, nn.Parameter(torch.ones(1))

    def forward(self, x, c_noise, signals):
        if len(x) > self.fits:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        time.sleep(self.seconds)
        return self.weight * x


KNOWN = diffbench.load_registry()


def planned(scheduler="ddim", backbone=TINY, registry=KNOWN, **changes):
    """(plan, cell's stages by role) of a matrix of one cell."""
    content = {"diffbench": 1, "name": "speed", "dataset": "digits", "train": {"batch_size": 4}, "metrics": [],
               "axes": {"scheduler": scheduler, "backbone": backbone}, "throughput": {"repeats": 3, "batch_size": 2}} | changes
    plan = stage_graph.make_plan(loading.load(content, registry), registry, "cpu")
    return plan, {role: plan.stages[key] for role, key in plan.cells[0].stages.items()}


def facts_of(role, registry=KNOWN, **changes):
    """facts.json of one timing, done here and now."""
    stage = planned(registry=registry, **changes)[1][f"throughput:{role}"]
    context = Context(store=None, registry=registry, stage="throughput", device=CPU, threads=1, key=stage.key, task=json.loads(json.dumps(stage.task)),
                      parents={}, progress=lambda *a, **k: None, partial=None, files=None, execution={"is_deterministic": False})
    return json.loads(throughput.throughput(context)["facts.json"])


class Clock:
    """A clock that only sleeping moves, and a microsecond each reading: what others do on the machine is not on it.

    Threads that other tests left in this process sleep as ever.
    """

    def __init__(self):
        self.now, self.thread, self.other_threads_sleep = 0.0, threading.get_ident(), time.sleep

    def read(self):
        self.now += 1e-6
        return self.now

    def sleep(self, seconds):
        if threading.get_ident() != self.thread:
            return self.other_threads_sleep(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", made.read)
    monkeypatch.setattr(time, "sleep", made.sleep)
    monkeypatch.setattr(anchor, "make", lambda device: lambda: made.sleep(0.004))
    return made


def test_a_network_that_sleeps_a_known_time_is_reported_as_that(clock):
    facts = facts_of("sampling", scheduler={"ddim": {"steps": 1}}, backbone={"sleeping": {"seconds": 0.5}})
    assert facts["nfe"] == 1 and facts["network_seconds_per_nfe"] == pytest.approx(0.5, rel=1e-4)
    assert facts["seconds_per_nfe"] == pytest.approx(0.5, rel=1e-4)
    assert facts["anchor_seconds"] == pytest.approx([0.004] * 4, rel=1e-3) and facts["in_anchors"] == pytest.approx([125.0] * 3, rel=1e-3)
    row = speed_columns.columns("throughput:sampling", facts)
    assert row["sample_images_per_second"] == pytest.approx(2 / 0.5, rel=1e-4) and row["sample_images_per_anchor"] == pytest.approx(2 / 125, rel=1e-3)
    assert row["sample_lap_spread"] < 1e-3 and not any("laps" in reason for reason in row["sample_laps"]["noise"])


def test_by_the_clock_of_the_machine_no_run_is_shorter_than_what_it_sleeps():
    facts = facts_of("sampling", scheduler={"ddim": {"steps": 2}}, backbone={"sleeping": {"seconds": 0.02}})
    assert min(facts["network_seconds"]) >= 2 * 0.02 and facts["seconds_per_nfe"] >= facts["network_seconds_per_nfe"] >= 0.02


def schedulers():
    """Every scheduler with as few steps as it takes."""
    for ref in REGISTRY.refs("scheduler"):
        for steps in (2, 4):
            try:
                REGISTRY.create("scheduler", ref.full_name, steps=steps)
            except OptionError:
                continue
            yield pytest.param({ref.full_name: {"steps": steps}}, id=ref.full_name)
            break


@pytest.mark.parametrize("scheduler", list(schedulers()))
def test_the_parts_of_a_run_add_up_to_the_whole(scheduler, monkeypatch):
    monkeypatch.setattr(timing, "LAP_SECONDS", 0.0)
    facts = facts_of("sampling", scheduler=scheduler, backbone="sleeping")
    parts = facts["network_seconds_per_nfe"] * facts["nfe"] + facts["scheduler_seconds_per_step"] * facts["steps"]
    assert parts == pytest.approx(facts["seconds_per_nfe"] * facts["nfe"], rel=1e-12) == pytest.approx(facts["median_seconds"], rel=1e-12)
    assert facts["network_seconds_per_nfe"] > 0 and facts["scheduler_seconds_per_step"] > 0
    assert all(0 < inside < whole for inside, whole in zip(facts["network_seconds"], facts["seconds"], strict=True))
    laps = len(facts["seconds"])
    assert 3 <= laps <= 3 * timing.MOST_LAPS and len(facts["anchor_seconds"]) == laps + 1 and len(facts["in_anchors"]) == laps


def test_guidance_counts_as_network_and_a_doubled_batch_as_two_evaluations():
    facts = facts_of("sampling", scheduler={"ddim": {"steps": 2}}, axes={"scheduler": {"ddim": {"steps": 2}}, "backbone": TINY, "conditioning": {"cfg": {"inner": "film"}}})
    assert facts["nfe"] == 4 and facts["steps"] == 2
    assert facts["network_seconds_per_nfe"] * 4 + facts["scheduler_seconds_per_step"] * 2 == pytest.approx(facts["median_seconds"], rel=1e-12)


def test_a_training_is_timed_by_its_own_clock_and_what_it_takes_to_set_up_stands_apart(clock, monkeypatch):
    build = training_loop.build
    monkeypatch.setattr(training_loop, "build", lambda *arguments: (clock.sleep(7.0), build(*arguments))[1])
    facts = facts_of("training", backbone={"sleeping": {"seconds": 0.01}})
    assert facts["images"] == 4 * throughput.TIMED_TRAIN_STEPS and facts["seconds"] == pytest.approx([0.01 * throughput.TIMED_TRAIN_STEPS] * 3, rel=1e-2)
    assert facts["set_up_seconds"] == pytest.approx([7.0] * 3, rel=1e-3)
    row = speed_columns.columns("throughput:training", facts)
    assert row["train_laps"]["seconds"] == facts["seconds"] and row["train_images_per_second"] == facts["images"] / facts["median_seconds"]


def test_of_several_batch_sizes_the_first_that_fits_makes_the_row_and_each_is_told():
    facts = facts_of("sampling", scheduler={"ddim": {"steps": 2}}, backbone={"sleeping": {"fits": 6}}, throughput={"repeats": 3, "batch_size": [8, 4, 2]})
    assert [size["batch_size"] for size in facts["by_batch_size"]] == [8, 4, 2] and facts["batch_size"] == facts["images"] == 4
    row = speed_columns.columns("throughput:sampling", facts) | speed_columns.columns("throughput:training", facts_of("training", backbone={"sleeping": {"seconds": 0.001}}))
    first, second, third = row["throughput_by_batch"]
    assert first == {"batch_size": 8, "reason": "out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"}
    assert second["images_per_second"] == row["sample_images_per_second"] and len(third["laps"]) >= 3
    assert "batches of 8 were not timed: out of memory" in speed_columns.judged(row)["speed_remark"]
    with pytest.raises(MemoryError, match="out of memory"):
        facts_of("sampling", scheduler={"ddim": {"steps": 2}}, backbone={"sleeping": {"fits": 1}}, throughput={"repeats": 3, "batch_size": [8, 2]})


def test_one_batch_size_is_a_list_of_one_and_the_sizes_of_sampling_do_not_touch_the_training():
    assert Throughput(batch_size=250) == Throughput(batch_size=(250,)) == Throughput()
    for wrong in ((), [4, 0], "4", [4, 4], 2.5):
        with pytest.raises(OptionError, match="batch_size must"):
            Throughput(batch_size=wrong)
    one, other = (planned(throughput={"repeats": 3, "batch_size": sizes})[1] for sizes in (2, [2, 4]))
    assert one["throughput:training"].key == other["throughput:training"].key and one["throughput:sampling"].key != other["throughput:sampling"].key
    assert planned(throughput={"repeats": 3, "batch_size": [2]})[1]["throughput:sampling"].key == one["throughput:sampling"].key


def spin():
    while True:
        pass


@pytest.mark.skipif(not os.path.exists("/proc/stat"), reason="the load of others is read from /proc/stat")
def test_a_noisy_neighbour_is_flagged():
    neighbours = [multiprocessing.get_context("fork").Process(target=spin, daemon=True) for _ in range(4)]
    for process in neighbours:
        process.start()
    try:
        facts = facts_of("sampling", scheduler={"ddim": {"steps": 2}}, backbone={"sleeping": {"seconds": 0.02}})
    finally:
        for process in neighbours:
            process.kill()
            process.join()
    row = speed_columns.columns("throughput:sampling", facts)
    assert row["sample_noisy"] and any("others kept" in reason for reason in row["sample_laps"]["noise"])
    assert facts["load"]["average_before"] and facts["load"]["average_after"]


def rows(*noises):
    """Rows of two schedulers as the results have them; the timings of some are noisy."""
    for scheduler, noise, speed_ in zip(("ddim", "heun"), noises, (100.0, 50.0), strict=True):
        laps = {"noise": noise, "load": {"unlocked": ""}}
        row = {"cell_id": scheduler, "status": "ok", "reason": "", "dataset": "digits", "backbone": "unet", "noise_schedule": "linear", "parameterization": "v",
               "objective": "mse", "conditioning": "none", "spacing": "uniform", "scheduler": scheduler, "steps": 4, "seed": 0, "sample_images_per_second": speed_,
               "sample_images_per_second_low": 49.0, "sample_images_per_second_high": 101.0, "sample_images_per_anchor": speed_ / 10, "throughput_batch_size": 8,
               "parameters": 10, "gmac_per_nfe": 0.1, "seconds_per_nfe": 0.004, "network_seconds_per_nfe": 0.003, "scheduler_seconds_per_step": 0.001,
               "peak_memory_bytes": 5e6, "energy_joules": None, "train_noisy": False, "sample_noisy": bool(noise), "train_laps": {"noise": [], "load": {"unlocked": ""}},
               "sample_laps": laps, "throughput_by_batch": [{"batch_size": 8}]}
        yield row | speed_columns.judged(row)


def test_noisy_figures_are_marked_in_the_table_and_remarked_upon_in_the_results(tmp_path):
    made = list(rows([], ["others kept 3.2 of 4 cores busy"]))
    assert made[1]["speed_remark"] == "sampling is noisy: others kept 3.2 of 4 cores busy" and made[0]["speed_remark"] == ""
    frame = frames.frame(made)
    assert "noisy" not in frame and list(frame["sample_noisy"]) == [False, True] and not set(speed_columns.RAW) & set(frame.columns)
    tables.write(tmp_path, frame, ("backbone",), ("scheduler",), tables.Facts(name="t", real=tables.RealImages(), machine={"cpu": "some"}, columns={}))
    text = (tmp_path / "throughput.md").read_text()
    assert "**100 (49 to 101)**" in text and "50 (49 to 101) †" in text and "**1 of 2 timings of sampling are noisy**, marked †" in text
    assert "| **1.00** | 0.50 † |" in " ".join(text.split()) and "of them in the network" in text and "J per image" not in text
    assert speed_columns.NOISY_SPREAD == 0.1 and "more than 10 % of the median" in text
