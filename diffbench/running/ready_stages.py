"""The stages of a plan that may start now, kept up to date in constant time per change. Used by the engine."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from diffbench.planning.stage import Stage
from diffbench.running.order import Place


class Frontier:
    """Stages that wait for their parents, may start, run or have ended."""

    def __init__(self, stages: dict[str, Stage], places: Mapping[str, Place]):
        self.stages, self._place = stages, places
        self._children: dict[str, list[str]] = {}
        self._missing = {key: set(stage.parents.values()) for key, stage in stages.items()}
        for key, stage in stages.items():
            for parent in set(stage.parents.values()):
                self._children.setdefault(parent, []).append(key)
        self._open = set(stages)                          # not taken, not ended
        self._heaps: dict[bool, list[tuple[Place, str]]] = {False: [], True: []}
        for key, missing in self._missing.items():
            if not missing:
                self._push(key)

    def take(self, exclusive: bool) -> Stage | None:
        """The first stage in order that may start, of those that need a device alone or of the others.

        None for none.
        """
        heap = self._heaps[exclusive]
        while heap:
            _, key = heapq.heappop(heap)
            if key in self._open and not self._missing[key]:          # else it ended meanwhile, or waits again
                self._open.discard(key)
                return self.stages[key]
        return None

    def put_back(self, key: str) -> None:
        """Lets a stage that was taken be run again."""
        self._open.add(key)
        if not self._missing[key]:
            self._push(key)

    def done(self, key: str) -> None:
        """Marks a stage as done: its children no longer wait for it."""
        self._open.discard(key)
        for child in self._children.get(key, ()):
            self._missing[child].discard(key)
            if not self._missing[child] and child in self._open:
                self._push(child)

    def lost(self, key: str) -> None:
        """Marks the artefact of a done stage as lost: it is run again, and its children wait for it."""
        for child in self._children.get(key, ()):
            self._missing[child].add(key)
        self.put_back(key)

    def depend_on(self, key: str) -> Iterator[str]:
        """All stages below this one that have neither ended nor been taken; they are closed as they are yielded."""
        waiting = [key]
        while waiting:
            for child in self._children.get(waiting.pop(), ()):
                if child in self._open:
                    self._open.discard(child)
                    yield child
                    waiting.append(child)

    def _push(self, key: str) -> None:
        heapq.heappush(self._heaps[self.stages[key].is_exclusive], (self._place[key], key))
