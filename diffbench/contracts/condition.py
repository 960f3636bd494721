"""A condition: what a network may be told about each sample of a batch.
Made by the harness of a data set, read by conditionings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffbench.contracts.values import form, per_sample
from diffbench.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class Condition:
    """What is told about the samples of a batch. Every field is optional, and all that are given are of one batch.

    `condition[rows]` takes rows: a slice, indices int64 [n], or a mask bool [B] that is True for the rows that stay.
    Raises DataError where no field is given, or where two are of different batches.
    """

    label: Tensor | None = None       # int64 [B]
    image: Tensor | None = None       # [B, C, *space] in [-1, 1]
    mask: Tensor | None = None        # [B, 1, *space], 1 where the image is known, 0 where it is to be filled in
    tokens: Tensor | None = None      # int64 [B, L], of a tokenizer
    states: Tensor | None = None      # [B, L, D], what an encoder makes of the tokens
    visible: Tensor | None = None     # bool [B, L], True for tokens that are real, False for padding
    pooled: Tensor | None = None      # [B, D], what an encoder makes of all tokens together
    numbers: Tensor | None = None     # float32 [B, M], such as sizes or a distilled guidance scale

    def __post_init__(self) -> None:
        given = {name: value for name, value in vars(self).items() if value is not None}
        if not given:
            raise DataError(f"a condition must have one of {', '.join(vars(self))}; where nothing is told it is None")
        if len(set(map(len, given.values()))) > 1:
            raise DataError(f"the fields of a condition must be of one batch, got {_forms(given)}")

    def __len__(self) -> int:
        return next(len(value) for value in vars(self).values() if value is not None)

    def __getitem__(self, rows: slice | Tensor) -> Condition:
        return self._each(lambda value: value[rows])

    def to(self, device: torch.device | str) -> Condition:
        """The same on a device."""
        return self._each(lambda value: value.to(device))

    def mirrored(self, which: Tensor) -> Condition:
        """Image and mask mirrored along their last axis in the rows where `which`, bool [B], is True."""
        turned = {name: torch.where(per_sample(which, value), value.flip(-1), value)
                  for name in ("image", "mask") if (value := getattr(self, name)) is not None}
        return Condition(**vars(self) | turned)

    @staticmethod
    def cat(parts: Sequence[Condition]) -> Condition:
        """Conditions of the same fields one after the other, as `torch.cat` does it;
        DataError where their fields differ.
        """
        fields = [tuple(name for name, value in vars(part).items() if value is not None) for part in parts]
        if len(set(fields)) > 1:
            raise DataError("conditions that are put together must have the same fields, got "
                            f"{' and '.join(map(', '.join, fields))}")
        return Condition(**{name: torch.cat([getattr(part, name) for part in parts]) for name in fields[0]})

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return Condition(**{name: None if value is None else change(value) for name, value in vars(self).items()})


def _forms(given: dict[str, Tensor]) -> str:
    return ", ".join(f"{name} {form(value)}" for name, value in given.items())
