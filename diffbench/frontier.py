"""The frontier of a plan: which stages may start now, kept up to date in time that does not grow with the plan."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from diffbench.planning import Stage

# Long stages, and those many others wait for, first; measuring speed comes last, alone.
ORDER = ("train", "noisy_classifier", "extractor", "classifier", "sample", "reference", "features", "evaluate", "throughput")


class Frontier:
    """Stages wait for their parents, are taken to be run, and end; an artefact that is lost makes its stage wait again."""

    def __init__(self, stages: dict[str, Stage]):
        self.stages = stages
        self._place = {key: (ORDER.index(stage.name) if stage.name in ORDER else len(ORDER), i) for i, (key, stage) in enumerate(stages.items())}
        self._children: dict[str, list[str]] = {}
        self._missing = {key: set(stage.parents.values()) for key, stage in stages.items()}
        for key, stage in stages.items():
            for parent in set(stage.parents.values()):
                self._children.setdefault(parent, []).append(key)
        self._open = set(stages)                          # not taken, not ended
        self._heaps: dict[bool, list[tuple[tuple[int, int], str]]] = {False: [], True: []}
        for key, missing in self._missing.items():
            if not missing:
                self._push(key)

    def take(self, exclusive: bool) -> Stage | None:
        """The most pressing stage that may start, of those that need their device to themselves or of the others."""
        heap = self._heaps[exclusive]
        while heap:
            _, key = heapq.heappop(heap)
            if key in self._open and not self._missing[key]:          # else it ended meanwhile, or waits again
                self._open.discard(key)
                return self.stages[key]
        return None

    def put_back(self, key: str) -> None:
        """A stage that was taken is to be run again."""
        self._open.add(key)
        if not self._missing[key]:
            self._push(key)

    def done(self, key: str) -> None:
        """A stage is done: its children need not wait for it."""
        self._open.discard(key)
        for child in self._children.get(key, ()):
            self._missing[child].discard(key)
            if not self._missing[child] and child in self._open:
                self._push(child)

    def lost(self, key: str) -> None:
        """The artefact of a stage that was done is gone: it is to be run again, and its children wait for it."""
        for child in self._children.get(key, ()):
            self._missing[child].add(key)
        self.put_back(key)

    def depend_on(self, key: str) -> Iterator[str]:
        """All stages that need this one, at any remove, that have neither ended nor been taken; they are closed by asking."""
        waiting = [key]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child in self._open:
                    self._open.discard(child)
                    yield child
                    waiting.append(child)

    def _push(self, key: str) -> None:
        heapq.heappush(self._heaps[self.stages[key].is_exclusive], (self._place[key], key))
