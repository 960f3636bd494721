"""What a plan says of its data sets: their classes, what was left out of them, and how samples differ from them.
Used by `stage_graph`.
"""

from __future__ import annotations

from diffbench.contracts import labels
from diffbench.contracts.cell import Cell
from diffbench.planning.plan import Plan


class Remarks:
    """Adds remarks to a plan, each once."""

    def __init__(self, plan: Plan):
        self.plan = plan
        # data sets and settings of samples, which live as long as the matrix
        self._described: set[tuple[int, int]] = set()
        labels.counts_of.cache_clear()                    # a folder of images may hold others by now

    def describe_classes(self, cell: Cell) -> None:
        """The classes of a cell's data set, and a note where samples have other shares than the training data."""
        dataset, known = cell.dataset, (id(cell.dataset), id(cell.sample))
        if dataset.classes is None or known in self._described:
            return
        self._described.add(known)
        label, counts = self.plan.names.label(dataset), labels.counts_of(dataset)
        self.plan.classes[label] = labels.classes_in_words(dataset.class_names, counts)
        if dataset.condition_shape is None:               # else samples are drawn under images of the reference split
            self.add(label, labels.remark(counts))
            self._note(label, labels.note(cell.sample.labels, counts))

    def add(self, shown: str, text: str) -> None:
        """Something that the plan and every row of a data set say."""
        known = self.plan.remarks.get(shown, "")
        if text and text not in known:
            self.plan.remarks[shown] = f"{known}; {text}" if known else text
            self._note(shown, text)

    def _note(self, shown: str, text: str) -> None:
        if text and f"{shown}: {text}" not in self.plan.notes:
            self.plan.notes.append(f"{shown}: {text}")
