"""Batches of a training: images, conditions, times and noise of each step. Used by `training_loop`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.contracts.method import Batch
from diffbench.contracts.values import Level, Split, per_sample
from diffbench.diffusion.latents import Latents
from diffbench.diffusion.pixels import as_condition, condition_of, from_pixels

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe


# of a GPU's free memory that a data set may take: the rest is for the network at work
SHARE = 0.25


class Batches:
    """Training batches: the data set on the device where it fits, epochs shuffled, times and drops prepared a chunk
    ahead.

    Three generators, all from the seed of the cell: the order of the data and the times on the host, the noise on the
    device. Every random number of a batch is drawn, whichever of its rows are wanted.
    """

    def __init__(self, recipe: Recipe, split: Split, device: torch.device, rows: slice):
        self.recipe, self.device, self.rows = recipe, device, rows
        self.is_resident = fits(split, device)
        self.split = (Split(**{name: None if value is None else value.to(device)
                               for name, value in vars(split).items()}) if self.is_resident else split)
        self.order = torch.Generator().manual_seed(recipe.seed + 1)
        self.times = torch.Generator().manual_seed(recipe.seed + 2)
        self.noise = torch.Generator(device).manual_seed(recipe.seed + 3)
        self.left = torch.empty(0, dtype=torch.int64)
        self.latents = Latents(recipe, device)

    def state(self) -> dict[str, Tensor]:
        """State that decides what is still to come: the generators and the rest of this epoch's order."""
        return {name: getattr(self, name).get_state() for name in ("order", "times", "noise")} | {"left": self.left}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken."""
        for name in ("order", "times", "noise"):
            getattr(self, name).set_state(state[name])
        self.left = state["left"]

    def draw(self, steps: int) -> Iterator[Batch]:
        recipe, schedule, size, rows = self.recipe, self.recipe.noise_schedule, self.recipe.train.batch_size, self.rows
        u = torch.rand(steps, size, dtype=torch.float64, generator=self.times)
        t = recipe.objective.times(u, schedule)                                    # [steps, B] float64
        # [steps, b] each; b of the B rows are ours
        levels = schedule.level(t[:, rows])
        c_noise = torch.as_tensor(recipe.parameterization.c_noise(levels)).float().to(self.device)
        moved = self._moved(levels)
        # A bound needs the level that a step goes to; t - 1/T is rounded back onto the grid.
        previous = (self._moved(schedule.level(((t[:, rows] * schedule.grid).round() - 1) / schedule.grid))
                    if recipe.objective.learns_variance else None)
        drop = (torch.rand(steps, size, generator=self.times) < recipe.conditioning.drop_rate)[:, rows].to(self.device)
        flip = (torch.rand(steps, size, generator=self.times) < 0.5)[:, rows].to(
            self.device) if recipe.train.flip else None
        order = self._indices(steps * size).view(steps, size)[:, rows]
        normal = functools.partial(self._normal, size)
        for i, index in enumerate(order.to(self.device) if self.is_resident else order):
            x = from_pixels(self.split.images[index].to(self.device))            # [b, C, H, W]
            if flip is not None:
                x = torch.where(per_sample(flip[i], x), x.flip(-1), x)
            x_0 = self.latents.encode(x, normal)                                  # of the latents, as all below
            noised = recipe.process.noised(x_0, of_step(moved, i, x_0), normal)    # levels: [b, 1, 1, 1] each
            if previous is not None:
                noised = noised._replace(previous=of_step(previous, i, x_0))
            cond = as_condition(condition_of(self.split, index), self.device)
            # an image and its condition are mirrored together
            if flip is not None and cond is not None:
                cond = cond.mirrored(flip[i])
            yield Batch(noised=noised, cond=cond, drop=drop[i], c_noise=c_noise[i])

    def _normal(self, size: int) -> Tensor:
        return torch.randn((size, *self.recipe.data_shape), generator=self.noise, device=self.device)[self.rows]

    def _moved(self, levels: Level) -> Level:
        return Level(*(part.float().to(self.device) for part in levels))         # one transfer each per chunk

    def _indices(self, count: int) -> Tensor:
        while len(self.left) < count:
            self.left = torch.cat([self.left, torch.randperm(len(self.split.images), generator=self.order)])
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def fits(split: Split, device: torch.device) -> bool:
    """Whether a split is in memory and takes little enough of a device to lie there for the whole training."""
    parts = [part for part in vars(split).values() if part is not None]
    if not all(isinstance(part, Tensor) for part in parts):
        return False
    return device.type != "cuda" or sum(part.nbytes for part in parts) <= SHARE * torch.cuda.mem_get_info(device)[0]


def of_step(levels: Level, step: int, x: Tensor) -> Level:
    """The levels of one step, in the shape that broadcasts with its images."""
    return Level(*(per_sample(part[step], x) for part in levels))
