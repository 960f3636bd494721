"""The conformance suite, and what is known of these images alone."""

from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_every_rectangle_is_there_once_and_has_its_label():
    splits = Newcomer(size=4).load()
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 51, "reference": 25, "held_out": 24}
    for split in splits.values():
        height, width = (split.images[:, 0].amax(dim=axis).bool().sum(1) for axis in (2, 1))
        assert (split.labels == (width > height)).all()
