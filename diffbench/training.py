"""The training loop: one denoiser, trained once for all cells that share its training half."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.checkpoints import Checkpoints, Piece
from diffbench.compiling import Compiling
from diffbench.denoiser import Denoiser, as_condition, condition_of, from_pixels
from diffbench.errors import DiffbenchError, Diverged
from diffbench.parallel import ALONE, Ranks
from diffbench.values import Level, Noised, Progress, Split, silent

if TYPE_CHECKING:
    from diffbench.matrix import Cell

CHUNK = 50                            # steps whose times are prepared at once on the host, and between looks at the loss on a GPU


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training."""

    weights: dict[str, Tensor]        # the moving average, which is what samples are drawn from
    losses: list[float]               # mean loss of each chunk of steps, the last chunk last
    seconds: float                    # wall time of the loop, over all tries
    resumed_at: list[int]             # steps at which a try went on from a checkpoint


def build(cell: Cell, device: torch.device) -> Denoiser:
    """The denoiser of a cell, freshly initialised from its seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(cell.seed)
        return Denoiser(cell).to(device)


def train(cell: Cell, split: Split, device: torch.device, progress: Progress = silent, *, checkpoints: Checkpoints | None = None,
          ranks: Ranks = ALONE, compiling: Compiling | None = None) -> Trained:
    """Trains the denoiser of a cell on one split; raises Diverged at the first loss that is not finite.

    The learning rate rises linearly over `warmup` steps; the moving average ignores its start by a ramped decay,
    min(ema, (1 + n)/(10 + n)); gradients are clipped to norm `clip`; on CUDA the network runs in bfloat16 unless told otherwise.
    checkpoints: where to go on from and what to leave to the next try; a training that was killed ends with the bits of one that
    was not (on CUDA: in deterministic mode). ranks: the processes that share each batch, see `diffbench.parallel`. compiling: decides whether
    the network is compiled; left as it is where None.
    """
    settings = cell.train
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16(cell, device))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = _State(cell, split, device, ranks)
        if checkpoints is not None:
            state.restore(checkpoints.newest())
        model, parameters, optimizer = state.model, state.parameters, state.optimizer
        if compiling is not None:
            compiling.begin(model)
        first, since, before = state.step, time.perf_counter(), state.seconds
        while state.step < settings.steps:
            total = torch.zeros((), device=device)
            steps = range(state.step, min(state.step + CHUNK, settings.steps))
            for step, (noised, cond, drop, c_noise) in zip(steps, state.batches.draw(len(steps)), strict=True):
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate(cell, step)
                with autocast:
                    out = model(noised.x_t, noised.level, c_noise, cond, drop)
                loss = cell.objective.loss(out.float(), noised, cell.noise_schedule, cell.parameterization).mean() * ranks.share(settings.batch_size)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                ranks.sum_gradients(parameters)
                torch.nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
                optimizer.step()
                torch._foreach_lerp_(state.average, [p.detach() for p in parameters], 1 - min(settings.ema, (1 + step) / (10 + step)))
                total += loss.detach()
            state.end_chunk(steps.stop, float(ranks.sum(total)) / len(steps))    # the one synchronisation of a chunk
            if not math.isfinite(state.losses[-1]):
                last = f"{state.losses[-2]:.4g}" if len(state.losses) > 1 else "none"
                raise Diverged(f"the training loss became {state.losses[-1]} between steps {steps.start} and {steps.stop}; the last finite mean was {last}")
            here, behind = time.perf_counter() - since, state.seconds
            state.seconds = before + here
            if compiling is not None:
                compiling.look(model, state.seconds - behind, (settings.steps - state.step) / len(steps))
            progress(state.step, settings.steps, loss=state.losses[-1], images_per_second=(state.step - first) * settings.batch_size / here)
            if checkpoints is not None and ranks.rank == 0 and state.step < settings.steps and checkpoints.is_due():
                checkpoints.write(state.step, state.saved())
    weights = dict(model.state_dict())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    weights.update(zip(names, state.average, strict=True))                       # buffers are kept, parameters averaged
    return Trained(weights={k: v.detach().cpu().contiguous() for k, v in weights.items()}, losses=state.losses, seconds=state.seconds,
                   resumed_at=state.resumed_at)


def learning_rate(cell: Cell, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    settings = cell.train
    rise = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.lr_decay == "constant" or step < settings.warmup:
        return settings.lr * rise
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def uses_bfloat16(cell: Cell, device: torch.device) -> bool:
    """Whether the network runs in bfloat16 on this device."""
    return cell.train.dtype_on(device.type) == "bfloat16"


@dataclass
class _State:
    """All that the steps to come depend on, and what came of those behind. Between chunks nothing is drawn ahead.

    The generators of `batches` are the same on every rank; the global one, which dropout inside networks draws from, is each rank's own.
    """

    cell: Cell
    split: Split
    device: torch.device
    ranks: Ranks
    step: int = 0                     # steps done
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.cell.train
        self.model = build(self.cell, self.device).train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
        self.batches = _Batches(self.cell, self.split, self.device, self.ranks.rows(settings.batch_size))
        torch.manual_seed(self.cell.seed + (self.ranks.rank << 32))
        self.dropouts = self._gathered()

    def end_chunk(self, step: int, loss: float) -> None:
        """Notes where the training stands."""
        self.step = step
        self.losses.append(loss)
        self.ranks.follow_first(self.model.buffers())
        self.dropouts = self._gathered()

    def saved(self) -> Piece:
        """The state as a checkpoint."""
        moments = self.optimizer.state_dict()["state"]
        parts = {"weights": self.model.state_dict(),
                 "average": {str(i): value for i, value in enumerate(self.average)},
                 "optimizer": {f"{i}.{name}": value for i, values in moments.items() for name, value in values.items()},
                 "batches": self.batches.state(),
                 "global": self.dropouts}
        return Piece(tensors={f"{part}.{name}": value.detach().cpu().contiguous() for part, values in parts.items() for name, value in values.items()},
                     facts={"step": self.step, "losses": self.losses, "seconds": self.seconds, "resumed_at": self.resumed_at})

    def restore(self, piece: Piece | None) -> None:
        """Becomes the state that was saved; stays at the start where there is none."""
        if piece is not None:
            parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("weights", "average", "optimizer", "batches", "global")}
            for name, value in piece.tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = value
            self.model.load_state_dict(parts["weights"])
            for i, average in enumerate(self.average):
                average.copy_(parts["average"][str(i)])
            moments: dict[int, dict[str, Tensor]] = {}
            for name, value in parts["optimizer"].items():
                i, _, rest = name.partition(".")
                moments.setdefault(int(i), {})[rest] = value
            self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
            self.batches.restore(parts["batches"])
            torch.set_rng_state(parts["global"][f"cpu.{self.ranks.rank}"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(parts["global"][f"cuda.{self.ranks.rank}"], self.device)
            self.step, self.losses, self.seconds = (piece.facts[name] for name in ("step", "losses", "seconds"))
            self.resumed_at = [*piece.facts["resumed_at"], self.step]
        stand = [int(step) for step in self.ranks.gather(torch.tensor(self.step), self.device)]
        if len(set(stand)) > 1:                           # one of them could not read what the others could
            raise DiffbenchError(f"the ranks of this training read different checkpoints: steps {stand}; another try reads them anew")

    def _gathered(self) -> dict[str, Tensor]:
        """The global generators of every rank, by device and rank."""
        states = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else {})
        return {f"{kind}.{rank}": each for kind, state in states.items() for rank, each in enumerate(self.ranks.gather(state, self.device))}


class _Batches:
    """Training batches: the data set resident on the device, epochs shuffled, times and drops prepared a chunk ahead.

    Three generators, all from the seed of the cell: the order of the data and the times on the host, the noise on the device.
    Every random number of a batch is drawn, whichever of its rows are wanted.
    """

    def __init__(self, cell: Cell, split: Split, device: torch.device, rows: slice):
        self.cell, self.device, self.rows = cell, device, rows
        self.images = split.images.to(device)
        stored = condition_of(split)
        self.conditions = None if stored is None else stored.to(device)
        self.order = torch.Generator().manual_seed(cell.seed + 1)
        self.times = torch.Generator().manual_seed(cell.seed + 2)
        self.noise = torch.Generator(device).manual_seed(cell.seed + 3)
        self.left = torch.empty(0, dtype=torch.int64)

    def state(self) -> dict[str, Tensor]:
        """What is still to come: the generators and the rest of this epoch's order."""
        return {name: getattr(self, name).get_state() for name in ("order", "times", "noise")} | {"left": self.left}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Goes on where `state` was taken."""
        for name in ("order", "times", "noise"):
            getattr(self, name).set_state(state[name])
        self.left = state["left"]

    def draw(self, steps: int):
        cell, schedule, size, rows = self.cell, self.cell.noise_schedule, self.cell.train.batch_size, self.rows
        u = torch.rand(steps, size, dtype=torch.float64, generator=self.times)
        t = cell.objective.times(u, schedule)                                    # [steps, B] float64
        levels = schedule.level(t[:, rows])                                      # [steps, b] each; b of the B rows are ours
        c_noise = torch.as_tensor(cell.parameterization.c_noise(levels)).float().to(self.device)
        moved = self._moved(levels)
        # A bound needs the level that a step goes to; t - 1/T is rounded back onto the grid.
        previous = self._moved(schedule.level(((t[:, rows] * schedule.grid).round() - 1) / schedule.grid)) if cell.objective.learns_variance else None
        drop = (torch.rand(steps, size, generator=self.times) < cell.conditioning.drop_rate)[:, rows].to(self.device)
        flip = (torch.rand(steps, size, generator=self.times) < 0.5)[:, rows].to(self.device) if cell.train.flip else None
        for i, index in enumerate(self._indices(steps * size).view(steps, size)[:, rows].to(self.device)):
            x_0 = from_pixels(self.images[index])                                # [b, C, H, W]
            if flip is not None:
                x_0 = torch.where(flip[i][:, None, None, None], x_0.flip(-1), x_0)
            eps = torch.randn((size, *x_0.shape[1:]), generator=self.noise, device=self.device)[rows]
            level = _of_step(moved, i)                                           # [b, 1, 1, 1] each
            x_t = level.alpha * x_0 + level.sigma * eps                          # [b, C, H, W]
            noised = Noised(x_0, eps, x_t, level, previous and _of_step(previous, i))
            cond = None if self.conditions is None else as_condition(self.conditions[index])
            if flip is not None and cond is not None and cond.ndim == 4:         # an image and its condition are mirrored together
                cond = torch.where(flip[i][:, None, None, None], cond.flip(-1), cond)
            yield noised, cond, drop[i], c_noise[i]

    def _moved(self, levels: Level) -> Level:
        return Level(*(part.float().to(self.device) for part in levels))         # one transfer each per chunk

    def _indices(self, count: int) -> Tensor:
        while len(self.left) < count:
            self.left = torch.cat([self.left, torch.randperm(len(self.images), generator=self.order)])
        taken, self.left = self.left[:count], self.left[count:]
        return taken


def _of_step(levels: Level, step: int) -> Level:
    return Level(*(part[step][:, None, None, None] for part in levels))
