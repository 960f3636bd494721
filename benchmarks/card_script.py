"""Estimate of the time that the straightforward script of diffusers would take for the card matrix.

    python benchmarks/card_script.py [--ours SECONDS]

The script trains a network for each of the 80 cells and samples it, on all cores. It has no conditioning but the DiT's
labels, and nothing of guidance and of measuring distances is counted, so that what is printed is less than it would
take. --ours: seconds of `diffbench run benchmarks/matrices/card.yaml`.
"""

from __future__ import annotations

import argparse
import time

import diffusers
import torch

from benchmarks.peers import networks
from benchmarks.peers.matrix import SIZE, sampled, trained
from diffbench.machine.fingerprint import cores

SCHEDULERS = {"ddpm": (diffusers.DDPMScheduler, 100), "ddim": (diffusers.DDIMScheduler, 50),
              "pndm": (diffusers.PNDMScheduler, 50),
              "euler_sde": (diffusers.EulerAncestralDiscreteScheduler, 100)}
STEPS, BATCH, COUNT, AT_ONCE, CONDITIONINGS, SCHEDULES = 2000, 64, 400, 200, 5, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", type=float)
    arguments = parser.parse_args()
    torch.set_num_threads(cores())
    x = networks.REGISTRY.create("dataset", "digits").load()["train"].images.float() / 127.5 - 1
    total_seconds = 0.0
    for name, make, labels in (("unet", networks.unets, False), ("dit", networks.dits, True)):
        conds = [{"class_labels": torch.arange(count) % networks.CLASSES} if labels else {}
                 for count in (BATCH, AT_ONCE)]
        since = time.perf_counter()
        network = trained(make(SIZE)[1], x, {}, STEPS, **conds[0])
        training = time.perf_counter() - since
        print(f"{name}: training {training:.1f} s", flush=True)
        for scheduler, (cls, steps) in SCHEDULERS.items():
            since = time.perf_counter()
            for _ in range(COUNT // AT_ONCE):
                sampled(network, cls(), steps, AT_ONCE, **conds[1])
            sampling = time.perf_counter() - since
            print(f"{name}, {scheduler}: sampling {sampling:.1f} s", flush=True)
            total_seconds += CONDITIONINGS * SCHEDULES * (training + sampling)
    print(f"80 cells: {total_seconds:.0f} s" + (f", {total_seconds / arguments.ours:.2f} times ours" if arguments.ours
                                                else ""))


if __name__ == "__main__":
    main()
