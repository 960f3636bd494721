"""Several networks of one architecture as one, their weights stacked: torch.func. Used by `small_networks`."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.gpu.variants import Batch
from diffbench import Cell, Condition, Denoise, Prediction
from diffbench.diffusion.denoiser import Denoiser, clipped


class StackedStep:
    """A training step of N networks at once; each has its batch, its gradient's norm and its average.

    AdamW works number by number, so that one over stacks [N, ...] is N of them. The network runs in bfloat16.
    """

    def __init__(self, cell: Cell, models: Sequence[Denoiser], batches: Sequence[Batch], *, is_captured: bool):
        self.cell, self.model = cell, copy.deepcopy(models[0]).train().to("meta")
        stacks, self.buffers = stack_module_state(list(models))
        self.stacks = {name: stack.detach().requires_grad_() for name, stack in stacks.items()}       # [N, ...] each
        self.average = [stack.detach().clone() for stack in self.stacks.values()]
        tensors = [batch.tensors() for batch in batches]
        self.batches = [torch.stack(parts) for parts in zip(*tensors, strict=True)]                   # [N, B, ...]
        self.device = self.batches[0].device
        self.optimizer = torch.optim.AdamW(
            list(self.stacks.values()),
            lr=cell.train.lr,
            weight_decay=cell.train.weight_decay,
            fused=True,
            capturable=is_captured,
        )

    def __call__(self) -> None:
        settings, stacks = self.cell.train, list(self.stacks.values())
        # Fused attention refuses the strides that vmap gives its backward pass.
        with torch.autocast(self.device.type, torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            out = vmap(self._out)(self.stacks, self.buffers, *self.batches)
        # No gradient of a sum reaches another network's weights.
        loss = vmap(self._loss)(out.float(), *self.batches).sum()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        gradients = [stack.grad for stack in stacks]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()          # [N]
        scale = (settings.clip / (norms + 1e-6)).clamp(max=1)
        torch._foreach_mul_(gradients, [scale.view(-1, *[1] * (g.ndim - 1)) for g in gradients])
        self.optimizer.step()
        torch._foreach_lerp_(self.average, [stack.detach() for stack in stacks], 1 - settings.ema)

    def _out(self, weights: dict[str, Tensor], buffers: dict[str, Tensor], *tensors: Tensor) -> Tensor:
        batch = Batch.of(tensors)
        inputs = (batch.noised.x_t, batch.noised.level, batch.c_noise, batch.cond, batch.drop)
        return functional_call(self.model, (weights, buffers), inputs)           # [B, C, H, W]

    def _loss(self, out: Tensor, *tensors: Tensor) -> Tensor:
        cell = self.cell
        return cell.objective.loss(out, Batch.of(tensors).noised, cell.noise_schedule, cell.parameterization).mean()


def stacked_denoise(cell: Cell, models: Sequence[Denoiser]) -> Denoise:
    """denoise(x_t [N B, C, H, W], t) of N networks, the first B images for the first; clipped, under labels in turn."""
    model = copy.deepcopy(models[0]).eval().to("meta")
    weights, buffers = stack_module_state([network.eval() for network in models])

    def denoise(x_t: Tensor, t: float) -> Prediction:
        level = cell.noise_schedule.at(t)
        x = x_t.unflatten(0, (len(models), -1))                                  # [N, B, C, H, W]
        c_noise = x.new_full(x.shape[1:2], cell.parameterization.c_noise(level))
        label = torch.arange(x.shape[1], device=x.device) % cell.dataset.classes
        cond, drop = Condition(label=label), torch.zeros_like(label, dtype=torch.bool)

        def evaluate(own: dict[str, Tensor], own_buffers: dict[str, Tensor], own_x: Tensor) -> Tensor:
            return functional_call(model, (own, own_buffers), (own_x, level, c_noise, cond, drop))
        out = vmap(evaluate)(weights, buffers, x).flatten(0, 1)
        return cell.parameterization.decode(out, x_t, level)
    return clipped(denoise, cell.noise_schedule, cell.process)
