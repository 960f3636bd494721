"""Timings compare only on one machine: each stored figure carries the machine it was taken on."""

import torch

import diffbench
from diffbench.machine import fingerprint

torch.set_num_threads(1)


def pytest_benchmark_update_machine_info(config, machine_info):
    """Adds what pytest-benchmark does not ask: torch, the instruction set, the thread count."""
    machine_info["diffbench"] = fingerprint.fingerprint("cpu") | {"threads": torch.get_num_threads(),
                                                                  "diffbench": diffbench.__version__}
