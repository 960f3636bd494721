"""The contract of data sets: images, their condition and their three splits."""

from __future__ import annotations

from abc import abstractmethod

from diffbench.contracts.component import Component
from diffbench.contracts.values import Split


class Dataset(Component):
    """Images and their condition, in three disjoint splits.

    `train` teaches the denoiser and the classifiers, `reference` is what distances are measured to, `held_out` gives
    the
    floor: what the same metrics say of real images nobody has seen.
    """

    kind = "dataset"

    @property
    @abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *space) of one item as it is noised; that of its images where nothing else is said."""
        return self.image_shape

    @property
    def classes(self) -> int | None:
        """Number of labels, or None where there are none."""
        return None

    @property
    def class_names(self) -> tuple[str, ...]:
        """A name for each label, for people; their numbers where nothing else is known. Empty where there are no
        labels.
        """
        return tuple(map(str, range(self.classes or 0)))

    @property
    def condition_shape(self) -> tuple[int, int, int] | None:
        """(C, h, w) of the image that is the condition, or None where the condition is the label."""
        return None

    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the content; raises DataError, with what to do, where the data are missing or damaged."""

    def remark(self) -> str:
        """Note for readers on how files became images, such as how many were left out, in half a sentence, or "".
        """
        return ""

    @abstractmethod
    def load(self) -> dict[str, Split]:
        """The splits "train", "reference" and "held_out".
        Images that no memory holds are read by their numbers, see `Images`.
        """
