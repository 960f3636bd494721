"""The training loop: one denoiser, trained once for all cells that share its training half."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffbench.contracts.method import Batch
from diffbench.contracts.values import Progress, Split, silent
from diffbench.diffusion.denoiser import Denoiser, not_finite
from diffbench.diffusion.replay import Replayed
from diffbench.errors import DiffbenchError, Diverged
from diffbench.stages.batches import Batches
from diffbench.stages.checkpoints import Checkpoints, Piece
from diffbench.stages.compiling import Compiling
from diffbench.stages.gradients import ALONE, Ranks

if TYPE_CHECKING:
    from diffbench.contracts.cell import Recipe

# steps whose times are prepared at once on the host, and between looks at the loss on a GPU
CHUNK = 50


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training."""

    weights: dict[str, Tensor]        # the moving average, which is what samples are drawn from
    losses: list[float]               # mean loss of each chunk of steps, the last chunk last
    seconds: float                    # wall time of the loop, over all tries
    resumed_at: list[int]             # steps at which a try went on from a checkpoint


def build(recipe: Recipe, device: torch.device) -> Denoiser:
    """The denoiser of a recipe, freshly initialised from its seed; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return Denoiser(recipe).to(device)


def train(recipe: Recipe, split: Split, device: torch.device, progress: Progress = silent, *,
          checkpoints: Checkpoints | None = None,
          ranks: Ranks = ALONE, compiling: Compiling | None = None) -> Trained:
    """Trains the denoiser of a cell on one split; raises Diverged at the first loss that is not finite.

    The learning rate rises linearly over `warmup` steps; the moving average ignores its start by a ramped decay,
    min(ema, (1 + n)/(10 + n)); gradients are clipped to norm `clip`; on CUDA the network runs in bfloat16 unless told
    otherwise.
    checkpoints: where to go on from and what to leave to the next try; a training that was killed ends with the bits of
    one that was not (on CUDA: in deterministic mode). ranks: the processes that share each batch, see
    `diffbench.stages.gradients`. compiling: decides whether the network is compiled; left as it is where None. The
    method of the recipe says which parameters are trained, by which loss and to what weights.
    """
    settings = recipe.train
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        state = _State(recipe, split, device, ranks)
        if checkpoints is not None:
            state.restore(checkpoints.newest())
        model, stepping = state.model, _Stepping(state)
        if compiling is not None:
            compiling.begin(model)
        first, since, before = state.step, time.perf_counter(), state.seconds
        while state.step < settings.steps:
            total = torch.zeros((), device=device)
            steps = range(state.step, min(state.step + CHUNK, settings.steps))
            if compiling is not None and compiling.is_replayed:
                stepping.replay()
            for step, batch in zip(steps, state.batches.draw(len(steps)), strict=True):
                total += stepping(step, batch)
            state.end_chunk(steps.stop, float(ranks.sum(total)) / len(steps))    # the one synchronisation of a chunk
            if not math.isfinite(state.losses[-1]):
                last = f"{state.losses[-2]:.4g}" if len(state.losses) > 1 else "none"
                cause = not_finite(
                    recipe, recipe.objective.times(torch.arange(1000, dtype=torch.float64) / 1000,
                                                   recipe.noise_schedule)
                )
                raise Diverged(
                    f"the training loss became {state.losses[-1]} between steps {steps.start} and {steps.stop}; "
                    f"the last finite mean was {last}{cause}"
                )
            here, behind = time.perf_counter() - since, state.seconds
            state.seconds = before + here
            if compiling is not None:
                compiling.look(model, state.seconds - behind, (settings.steps - state.step) / len(steps))
            progress(state.step, settings.steps, loss=state.losses[-1],
                     images_per_second=(state.step - first) * settings.batch_size / here)
            if checkpoints is not None and ranks.rank == 0 and state.step < settings.steps and checkpoints.is_due():
                checkpoints.write(state.step, state.saved())
    weights = recipe.method.finish(model, state.average)
    return Trained(weights={k: v.detach().cpu().contiguous() for k, v in weights.items()}, losses=state.losses,
                   seconds=state.seconds,
                   resumed_at=state.resumed_at)


def learning_rate(recipe: Recipe, step: int) -> float:
    """The learning rate of a step, counted from 0."""
    settings = recipe.train
    rise = min(1.0, (step + 1) / (settings.warmup + 1))
    if settings.lr_decay == "constant" or step < settings.warmup:
        return settings.lr * rise
    done = (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * done))


def uses_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    """Whether the network runs in bfloat16 on this device."""
    return recipe.train.dtype_on(device.type) == "bfloat16"


@dataclass
class _State:
    """All that the steps to come depend on, and what came of those behind. Between chunks nothing is drawn ahead.

    The generators of `batches` are the same on every rank; the global one, which dropout inside networks draws from, is
    each rank's own.
    """

    recipe: Recipe
    split: Split
    device: torch.device
    ranks: Ranks
    step: int = 0                     # steps done
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = self.recipe.train
        self.model = build(self.recipe, self.device).train()
        self.parameters = self.recipe.method.prepare(self.model)
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=settings.lr, weight_decay=settings.weight_decay,
                                           fused=True)
        self.batches = Batches(self.recipe, self.split, self.device, self.ranks.rows(settings.batch_size))
        torch.manual_seed(self.recipe.seed + (self.ranks.rank << 32))
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
        return Piece(tensors={f"{part}.{name}": value.detach().cpu().contiguous() for part, values in parts.items()
                              for name, value in values.items()},
                     facts={"step": self.step, "losses": self.losses, "seconds": self.seconds,
                            "resumed_at": self.resumed_at})

    def restore(self, piece: Piece | None) -> None:
        """Becomes the state that was saved; stays at the start where there is none."""
        if piece is not None:
            parts: dict[str, dict[str, Tensor]] = {
                name: {} for name in ("weights", "average", "optimizer", "batches", "global")}
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
            raise DiffbenchError(f"the ranks of this training read different checkpoints: steps {stand}; another try "
                                 "reads them anew")

    def _gathered(self) -> dict[str, Tensor]:
        """The global generators of every rank, by device and rank."""
        states = {"cpu": torch.get_rng_state()} | ({"cuda": torch.cuda.get_rng_state(self.device)}
                                                   if self.device.type == "cuda" else {})
        return {f"{kind}.{rank}": each for kind, state in states.items()
                for rank, each in enumerate(self.ranks.gather(state, self.device))}


class _Stepping:
    """One optimiser step after another: as Python does them, or replayed as one CUDA graph."""

    def __init__(self, state: _State):
        self.state, self.device = state, state.device
        self.autocast = torch.autocast(self.device.type, torch.bfloat16,
                                       enabled=uses_bfloat16(state.recipe, self.device))
        self.replayed: Replayed | None = None

    def replay(self) -> None:
        """From now on: recorded, with the learning rate and the weight of the average in tensors."""
        if self.replayed is None:
            self.rate, self.weight = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
            for group in self.state.optimizer.param_groups:
                group["lr"], group["capturable"] = self.rate, self.device.type == "cuda"
            self.replayed = Replayed(lambda batch: self._step(batch, self.weight), self.device)

    def __call__(self, step: int, batch: Batch) -> Tensor:
        """The loss of a step, a tensor that the next step may overwrite."""
        recipe = self.state.recipe
        rate, weight = learning_rate(recipe, step), 1 - min(recipe.train.ema, (1 + step) / (10 + step))
        if self.replayed is not None:
            self.rate.fill_(rate)
            self.weight.fill_(weight)
            return self.replayed(batch)
        for group in self.state.optimizer.param_groups:
            group["lr"] = rate
        return self._step(batch, weight)

    def _network(self, batch: Batch) -> Tensor:
        with self.autocast:
            out = self.state.model(batch.noised.x_t, batch.noised.level, batch.c_noise, batch.cond, batch.drop)
        return out.float()

    def _step(self, batch: Batch, weight: float | Tensor) -> Tensor:
        """weight: of the new parameters in the moving average."""
        state, ranks, settings, parameters = (self.state, self.state.ranks, self.state.recipe.train,
                                              self.state.parameters)
        loss = state.recipe.method.loss(self._network, batch, state.recipe).mean() * ranks.share(settings.batch_size)
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        ranks.sum_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip, foreach=True)
        state.optimizer.step()
        now = [p.detach() for p in parameters]
        if isinstance(weight, float):
            torch._foreach_lerp_(state.average, now, weight)
        else:                                             # there is no such function of a weight in a tensor
            change = torch._foreach_sub(now, state.average)
            torch._foreach_mul_(change, weight)
            torch._foreach_add_(state.average, change)
        return loss.detach()
