"""A small matrix here and by the straightforward script: diffusers for each cell, then torch-fidelity. Used by `peers`.

Ours trains once for the cells that share a training, and does more besides: every distance has an interval,
memorisation is measured, all of it is stored so that it can be gone on from. It also times each cell (the throughput
stages), which the script does not: those seconds are taken off and told apart.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import diffbench
from benchmarks.peers import networks
from benchmarks.peers.pairs import Missing, Pair
from diffbench.machine.fingerprint import cores
from diffbench.store.artefacts import Store

SIZE = networks.SIZES[0]
SCHEDULES = {"linear": {"beta_schedule": "linear"}, "cosine": {"beta_schedule": "squaredcos_cap_v2"}}
SCHEDULERS = (("ddpm", 50), ("ddim", 20), ("ddim", 10), ("pndm", 20))
TRAIN_STEPS, BATCH, COUNT, SAMPLED_AT_ONCE = 150, 64, 200, 100
MATRIX = {
    "diffbench": 1, "name": "peers", "dataset": "digits", "extractor": "pixels", "metrics": ["fid"],
    "axes": {"backbone": {"unet": SIZE.unet}, "noise_schedule": list(SCHEDULES), "conditioning": "none",
             "spacing": {"uniform": {"start": 0.98}},
             "scheduler": [{name: {"steps": steps} | ({"warmup": "plms"} if name == "pndm" else {})}
                           for name, steps in SCHEDULERS]},
    "train": {"steps": TRAIN_STEPS, "batch_size": BATCH}, "sample": {"count": COUNT, "batch_size": SAMPLED_AT_ONCE},
    "throughput": {"repeats": 3, "batch_size": 20}}
CELLS = len(SCHEDULES) * len(SCHEDULERS)


def pairs() -> Iterator[Pair | Missing]:
    """One pair; a lap of it is a whole matrix.
    Each side as its user starts it: ours with its own choice of workers, the script on all cores.
    """
    try:
        import diffusers
        import torch_fidelity
    except ImportError as error:
        yield Missing(f"the matrix: {error}")
        return
    diffusers.utils.logging.set_verbosity_error()
    register_pixels(torch_fidelity)
    seconds_by_stage: list[Counter[str]] = []
    trainings = f"{len(SCHEDULES)} trainings ({TRAIN_STEPS} steps of {BATCH}, {COUNT} samples)"
    label = f"a matrix of {CELLS} cells from {trainings}"
    yield Pair(label=label, ours="diffbench run", peer="a script of diffusers and torch-fidelity",
               do_ours=lambda: _ours(seconds_by_stage), do_peer=_on_all_cores,
               unit="matrix", warms_up=False)
    last = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in seconds_by_stage[-1].most_common())
    yield Missing("throughput, which our runs measure and the script does not; seconds of the last run by stage, the "
                  f"engine and its workers' start what is left: {last}")


def _ours(seconds_by_stage: list[Counter[str]]) -> float:
    """Seconds of a run without its throughput stages; where all of them went joins `spent`."""
    since = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        # A store of its own: nothing is found done.
        result = diffbench.run(MATRIX, out=Path(folder) / "run", store=Store(Path(folder) / "store"), device="cpu")
        wall_seconds = time.perf_counter() - since
        if result.counts != {"ok": CELLS}:
            raise RuntimeError(f"{CELLS} cells were to be ok, and they are {result.counts}")
        stages = Counter()
        for outcome in (Path(folder) / "store" / "store").glob("*/*/*/outcome.json"):
            stages[outcome.parts[-4]] += json.loads(outcome.read_bytes())["seconds"]
    seconds_by_stage.append(stages + Counter({"what is left": wall_seconds - stages.total()}))
    return wall_seconds - stages["throughput"]


def register_pixels(torch_fidelity: Any) -> None:
    """Pixels as torch-fidelity's features."""
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Pixels(FeatureExtractorBase):
        def __init__(self, name: str, features_list: list[str], **rest: object):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list() -> tuple[str]:
            return ("pixels",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return "pixels"

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, images: Tensor) -> tuple[Tensor]:
            return (images.flatten(1).double() / 255,)
    torch_fidelity.register_feature_extractor("peer-pixels", Pixels)


class Images(torch.utils.data.Dataset):
    """A data set of tensors, as torch-fidelity reads it."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index]


def _on_all_cores() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(cores())
    try:
        _script()
    finally:
        torch.set_num_threads(before)


def _script() -> None:
    import diffusers
    import torch_fidelity

    splits = networks.REGISTRY.create("dataset", "digits").load()
    schedulers = {"ddpm": diffusers.DDPMScheduler, "ddim": diffusers.DDIMScheduler, "pndm": diffusers.PNDMScheduler}
    for schedule, (name, steps) in itertools.product(SCHEDULES.values(), SCHEDULERS):
        network = trained(networks.unets(SIZE)[1], splits["train"].images.float() / 127.5 - 1, schedule, TRAIN_STEPS)
        scheduler = schedulers[name](**schedule, **({"skip_prk_steps": True} if name == "pndm" else {}))
        images = torch.cat([sampled(network, scheduler, steps, SAMPLED_AT_ONCE)
                            for _ in range(COUNT // SAMPLED_AT_ONCE)])
        torch_fidelity.calculate_metrics(input1=Images(images), input2=Images(splits["reference"].images),
                                         feature_extractor="peer-pixels", fid=True,
                                         cuda=False, cache=False, save_cpu_ram=True, verbose=False)


def trained(network: nn.Module, x: Tensor, schedule: dict[str, Any], steps: int, **cond: Tensor) -> nn.Module:
    """The loop of diffusers' own example; cond: what else the network is given, for a batch."""
    import diffusers
    from diffusers.training_utils import EMAModel

    scheduler = diffusers.DDPMScheduler(**schedule)
    optimizer, average = (torch.optim.AdamW(network.parameters(), lr=2e-4),
                          EMAModel(network.parameters(), decay=0.999, use_ema_warmup=True))
    for _ in range(steps):
        x_0 = x[torch.randint(0, len(x), (BATCH,))]
        eps, t = torch.randn(x_0.shape), torch.randint(0, 1000, (BATCH,))
        loss = F.mse_loss(network(scheduler.add_noise(x_0, eps, t), t, **cond).sample, eps)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        average.step(network.parameters())
        loss.detach().item()
    average.copy_to(network.parameters())
    return network.eval()


@torch.no_grad()
def sampled(network: nn.Module, scheduler: Any, steps: int, count: int, **cond: Tensor) -> Tensor:
    """Images, uint8 [count, 1, H, W]."""
    scheduler.set_timesteps(steps)
    x = torch.randn(count, 1, SIZE.pixels, SIZE.pixels)
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, t.expand(count), **cond).sample, t, x).prev_sample
    return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


