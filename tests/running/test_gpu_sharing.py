"""How many workers share a GPU: by what was measured on a device of its name, and one where nothing was."""
import pytest
import torch

from diffbench.launchers import Capacity
from diffbench.launchers.local import LocalLauncher
from diffbench.machine import gpu_figures
from diffbench.machine.gpu_figures import Sharing
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.running import gpu_sharing
from tests.conftest import REGISTRY

DIT = {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}
SMALL = {"diffbench": 1, "dataset": "digits", "metrics": [], "throughput": "off", "axes": {"backbone": DIT, "scheduler": "ddim", "seed": list(range(8))}}


@pytest.fixture
def plan(monkeypatch):
    made = stage_graph.make_plan(loading.load(SMALL, REGISTRY), REGISTRY, "cpu")
    made.device = "cuda"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Imaginary 1")
    return made


def measured(monkeypatch, parameters, workers=4):
    monkeypatch.setattr(gpu_figures, "of_sharing", lambda device: (Sharing(parameters=parameters, workers=workers, gain=3.0),) * (device == "NVIDIA Imaginary 1"))


def test_the_largest_network_is_counted_without_weights(plan):
    from diffbench.stages import training_loop

    assert gpu_sharing.largest_network(plan) == sum(p.numel() for p in training_loop.build(plan.cells[0].cell, torch.device("cpu")).parameters())


def test_a_network_that_was_measured_gets_the_workers_that_were_fastest(plan, monkeypatch):
    size = gpu_sharing.largest_network(plan)
    assert gpu_sharing.capacity(LocalLauncher(["0", "1"]), plan, 8, None).slots == 2, "nothing was measured on this device"
    measured(monkeypatch, 3 * size)
    shared = gpu_sharing.capacity(LocalLauncher(["0", "1"]), plan, 8, None)
    assert (shared.slots, shared.gpus) == (8, 0.25)
    assert gpu_sharing.capacity(LocalLauncher(["0", "1"]), plan, 3, None).slots == 3, "no more than stages that could run"
    assert gpu_sharing.capacity(LocalLauncher(["0", "1"]), plan, 8, 2).slots == 2, "what the user asked for stands"
    measured(monkeypatch, 5 * size)
    assert gpu_sharing.capacity(LocalLauncher(["0", "1"]), plan, 8, None).slots == 2, "a network of another size says nothing"


def test_a_launcher_whose_workers_share_no_gpu_is_asked_once(plan, monkeypatch):
    measured(monkeypatch, gpu_sharing.largest_network(plan))

    class Queue:
        shares_gpus = False

        def capacity(self, device, widest, jobs):
            assert jobs is None
            return Capacity(slots=1, threads=1, machines=1, gpus=1.0)
    assert gpu_sharing.capacity(Queue(), plan, 8, None).slots == 1


def test_on_a_cpu_nothing_is_asked(plan, monkeypatch):
    measured(monkeypatch, gpu_sharing.largest_network(plan))
    plan.device = "cpu"
    assert gpu_sharing.capacity(LocalLauncher(), plan, 8, 3).slots == 3


def test_a_network_that_needs_real_numbers_leaves_a_gpu_to_one_worker(plan, monkeypatch):
    def fails(recipe):
        raise RuntimeError("Cannot copy out of meta tensor; no data!")
    measured(monkeypatch, 1000)
    monkeypatch.setattr(gpu_sharing, "Denoiser", fails)
    assert gpu_sharing.capacity(LocalLauncher(["0"]), plan, 8, None).slots == 1
