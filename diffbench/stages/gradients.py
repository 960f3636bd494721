"""Training on several devices: each takes its share of every batch, and the gradients of all are added up.

Every process ("rank") holds the whole network and draws the same batches from the same generators; rank r of N sees
rows B r/N to B (r + 1)/N of a batch of B. With b the number of its rows, the gradient of the mean loss over the batch
is the sum over ranks of the gradients of (b/B) times the mean over its rows, whether N divides B or not. So N devices
take the steps of one, within float tolerance. What differs: dropout draws other masks on every rank, and a batch
statistic (BatchNorm) is that of the share.

The sum is explicit, once per step, instead of DistributedDataParallel: the model stays unwrapped and its weights keep
their names; a parameter that no rank used has no gradient, as on one device, and needs no search of the graph; shares
of unequal size are weighted. What that gives up is to send the first gradients while the last are computed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from diffbench.errors import DiffbenchError


class PeerLost(DiffbenchError):
    """Another rank did not answer; why is for that rank to say."""


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process among those that train one network; alone, every method gives back what it was given."""

    rank: int = 0
    count: int = 1

    def rows(self, size: int) -> slice:
        """The rows of a batch that are this rank's; every rank has at least one where size >= count."""
        return slice(size * self.rank // self.count, size * (self.rank + 1) // self.count)

    def share(self, size: int) -> float:
        """b/B."""
        rows = self.rows(size)
        return (rows.stop - rows.start) / size

    def sum_gradients(self, parameters: list[Tensor]) -> None:
        """Replaces each gradient by its sum over ranks; one that no rank has stays None."""
        if self.count == 1:
            return
        used = [p.grad is not None for p in parameters]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flags = torch.tensor(used, dtype=gradients[0].dtype, device=gradients[0].device)
        flat = torch.cat([gradient.flatten() for gradient in gradients] + [flags])
        with _exchange():
            dist.all_reduce(flat)
        *sums, flags = flat.split([p.numel() for p in parameters] + [len(parameters)])
        if not all(used):                                 # only then is the device waited for
            used = (flags > 0).tolist()
        for p, gradient, is_used in zip(parameters, sums, used, strict=True):
            if is_used:
                p.grad = gradient.view_as(p).to(p.dtype)

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks."""
        if self.count > 1:
            value = value.clone()
            with _exchange():
                dist.all_reduce(value)
        return value

    def gather(self, value: Tensor, device: torch.device) -> list[Tensor]:
        """The value of every rank, on the host; `device` is that of the training."""
        if self.count == 1:
            return [value]
        values = [torch.empty_like(value, device=device) for _ in range(self.count)]
        with _exchange():
            dist.all_gather(values, value.to(device))
        return [each.cpu() for each in values]

    def follow_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrites tensors with those of rank 0."""
        if self.count > 1:
            for tensor in tensors:
                with _exchange():
                    dist.broadcast(tensor, 0)


ALONE = Ranks()


@contextlib.contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError:                        # a RuntimeError too, and no peer's doing
        raise
    except RuntimeError as error:
        raise PeerLost(f"another rank did not answer: {' '.join(str(error).split())[:300]}") from error
