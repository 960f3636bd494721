"""What a try that was killed leaves to the next: pieces of unfinished work, each whole or not there, as plain as an
artefact.

partial/train/<key>/00000150/      a checkpoint: all that the steps after the 150th depend on
partial/sample/<key>/00000500/     a block: images 500 and on, drawn
"""

from __future__ import annotations

import errno
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from diffbench.errors import Damaged
from diffbench.store import disk, manifest

KEPT = 2                              # checkpoints at a time: the newest, and one to go back to should that be damaged
MOST_OF_TIME = 0.05                   # share of a training's time that may go into checkpoints
STATE, FACTS = "state.safetensors", "facts.json"


def to_log(words: str) -> None:
    """One line to the log of the attempt."""
    print(words, flush=True)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Tensors by name, and facts as JSON."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pieces:
    """The pieces of one stage."""

    folder: Path
    aside: Path                 # where a piece is written before it is renamed into `folder`; on the same file system
    belongs: Mapping[str, Any]  # what a piece must have been made with to be used, such as key and threads
    tell: Callable[[str], None] = to_log

    def write(self, number: int, piece: Piece) -> None:
        """Publishes a piece by rename, in the place of one that could not be used; raises OSError where that fails."""
        self.drop(number)
        facts = json.dumps({"belongs": self.belongs, **piece.facts}, indent=1, sort_keys=True, allow_nan=False).encode()
        aside = self.aside / f"piece-{secrets.token_hex(8)}"
        disk.disk.mkdir(aside)
        try:
            manifest.write_folder(aside, *self._named(number),
                                  {STATE: safetensors.torch.save(piece.tensors), FACTS: facts})
            disk.publish_folder(aside, self._path(number), top=self.aside.parent)
        except OSError as error:
            # else another try of the same work was as fast; its copy stays
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        finally:
            disk.disk.rmtree(aside)

    def read(self, number: int) -> Piece | None:
        """A piece, or None where it is not there, damaged, or not made for this work; the log says why."""
        path = self._path(number)
        if not path.exists():
            return None
        try:
            facts = json.loads(manifest.read(path, *self._named(number), FACTS))
            origin = facts.pop("belongs")
            other = [f"{name} {origin.get(name)!r}, now {now!r}" for name, now in self.belongs.items()
                     if origin.get(name) != now]
            if not other:
                return Piece(tensors=safetensors.torch.load(manifest.read(path, *self._named(number), STATE)),
                             facts=facts)
            self.tell(f"{path} is passed over: made with {', '.join(other)}")
        except (Damaged, OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
            self.tell(f"{path} is passed over: {error}")
        return None

    def numbers(self) -> list[int]:
        """The pieces that are there, usable or not, in order."""
        return sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())

    def drop(self, number: int) -> None:
        """Removes a piece."""
        disk.disk.rmtree(self._path(number))

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}"

    def _named(self, number: int) -> tuple[str, str]:
        """Names in the manifest of a piece: the kind of thing, and which one."""
        return "piece", f"{self.folder.name} {number}"


@dataclass(kw_only=True)
class Checkpoints:
    """Checkpoints of one training, at most one in so many seconds."""

    pieces: Pieces
    seconds: float                    # between two; 0: whenever there may be one
    since: float = field(default_factory=time.monotonic)
    cost: float = 0.0                 # seconds the last one took

    def newest(self) -> Piece | None:
        """The newest one that is whole and belongs to this training."""
        return next((piece for number in reversed(self.pieces.numbers())
                     if (piece := self.pieces.read(number)) is not None), None)

    def is_due(self) -> bool:
        """Whether it is time for the next; on a slow disk they are rarer."""
        pause = self.seconds and max(self.seconds, self.cost / MOST_OF_TIME)
        return time.monotonic() - self.since >= pause

    def write(self, step: int, piece: Piece) -> None:
        """Publishes a checkpoint, then removes the ones it makes needless: older ones, and any of other settings."""
        began = time.monotonic()
        self.pieces.write(step, piece)
        there = self.pieces.numbers()
        for number in set(there) - set([n for n in there if n <= step][-KEPT:]):
            self.pieces.drop(number)
        self.since = time.monotonic()
        self.cost = self.since - began
