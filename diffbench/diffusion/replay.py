"""Work on a GPU that is recorded once and replayed: a CUDA graph in place of hundreds of kernel launches, where these
decide the time.

What is recorded must do the same to tensors of the same shapes in every call, wait for nothing on the host, and read
nothing there that changes. Its inputs are copied to the places that it was recorded with; its output lies where the
next replay overwrites it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

# calls that run as they are before one is recorded: libraries choose their kernels in them
WARM = 3
MOST = 4                              # recordings at a time: of the shapes of whole and of last batches


class Replayed:
    """A function of tensors that gives a tensor:
    as it is in its first calls with inputs of new shapes, recorded after them.
    """

    def __init__(self, work: Callable[..., Tensor], device: torch.device):
        """work: takes tensors, None, and tuples and dataclasses of these."""
        self.work, self.device = work, device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.calls: dict[Any, int] = {}
        # form of the inputs -> (inputs, replay, output)
        self.recorded: dict[Any, tuple[Any, Callable[[], None], Tensor]] = {}

    def __call__(self, *inputs: Any) -> Tensor:
        form = tuple(None if leaf is None else (leaf.shape, leaf.dtype) for leaf in _leaves(inputs))
        if form not in self.recorded:
            self.calls[form] = self.calls.get(form, 0) + 1
            if self.calls[form] <= WARM or len(self.recorded) == MOST:
                return self._as_it_is(inputs)
            own = _copied(inputs)
            self.recorded[form] = (own, *recorded(lambda: self.work(*own)))
        own, replay, output = self.recorded[form]
        for to, of in zip(_leaves(own), _leaves(inputs), strict=True):
            if to is not None:
                to.copy_(of)
        replay()
        return output

    def _as_it_is(self, inputs: Any) -> Tensor:
        if self.stream is None:
            return self.work(*inputs)
        # off the default stream, as what is recorded will be
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            output = self.work(*inputs)
        here = torch.cuda.current_stream(self.device)
        here.wait_stream(self.stream)
        output.record_stream(here)                        # its memory is not given away while it is read there
        return output


def recorded(work: Callable[[], Tensor]) -> tuple[Callable[[], None], Tensor]:
    """(replay, where it leaves its output) of a CUDA graph of the work, which is not done meanwhile."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = work()
    return graph.replay, output


def _leaves(value: Any) -> Iterator[Tensor | None]:
    """The tensors, and None, in tuples and dataclasses, in order."""
    if value is None or isinstance(value, Tensor):
        yield value
    else:
        for each in value if isinstance(value, tuple) else (getattr(value, field.name) for field in fields(value)):
            yield from _leaves(each)


def _copied(value: Any) -> Any:
    """The same with tensors of its own."""
    if isinstance(value, Tensor):
        return value.clone()
    if value is None:
        return None
    if isinstance(value, tuple):
        inner = [_copied(each) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else tuple(inner)
    return type(value)(**{field.name: _copied(getattr(value, field.name)) for field in fields(value)})
