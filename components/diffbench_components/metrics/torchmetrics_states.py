"""Values of a metric of torchmetrics from the states of blocks of samples. Used by `torchmetrics`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor | list[Tensor]]


class CannotBeMerged(Exception):
    """A state of a metric whose parts do not tell the whole; its text is the reason."""


def state_after(metric: Any, update: Callable[[], None]) -> State:
    """The state of a metric that has seen nothing but what this update gives it."""
    metric.reset()
    update()
    return {
        name: list(state) if isinstance(state, list) else state.clone() for name, state in metric.metric_state.items()
    }


def merged(metric: Any, parts: Sequence[State]) -> State:
    """The state of a metric that has seen what each of the parts has; raises CannotBeMerged."""
    whole: State = {}
    # Private, and the only place where a metric says how its states of several processes become one.
    for name, reduce in metric._reductions.items():
        states = [part[name] for part in parts]
        if isinstance(states[0], list):
            whole[name] = [tensor for state in states for tensor in state]
        elif reduce is _sum():
            whole[name] = torch.stack(states).sum(0)
        elif all(torch.equal(states[0], state) for state in states):  # a constant, such as the range of the data
            whole[name] = states[0]
        else:
            raise CannotBeMerged(
                f"the state {name} of {type(metric).__name__} cannot be put together from blocks of samples"
            )
    return whole


def value_of(metric: Any, state: State) -> Tensor:
    """Value that a metric in this state computes."""
    metric.reset()
    for name, value in state.items():
        setattr(metric, name, list(value) if isinstance(value, list) else value.clone())
    return metric.compute()


def _sum() -> Any:
    from torchmetrics.utilities.data import dim_zero_sum

    return dim_zero_sum
