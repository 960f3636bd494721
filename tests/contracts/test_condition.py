"""Conditions: rows of every field at once, on their way to a device and mirrored with the images; refused where they are of no one batch."""

from types import SimpleNamespace

import pytest
import torch

from diffbench import Condition, DataError, Split
from diffbench.diffusion import replay
from diffbench.diffusion.pixels import as_condition, condition_of

FIELDS = {
    "label": torch.arange(4), "image": torch.arange(48.0).view(4, 1, 3, 4), "mask": torch.arange(48).view(4, 1, 3, 4) % 2,
    "tokens": torch.arange(20).view(4, 5), "states": torch.arange(40.0).view(4, 5, 2), "visible": torch.arange(20).view(4, 5) > 7,
    "pooled": torch.arange(8.0).view(4, 2), "numbers": torch.arange(12.0).view(4, 3),
}


def whole():
    return Condition(**FIELDS)


@pytest.mark.parametrize("rows", [slice(1, 3), torch.tensor([3, 0, 3]), torch.tensor([True, False, False, True])])
def test_rows_are_rows_of_every_field(rows):
    some = whole()[rows]
    assert all(torch.equal(getattr(some, name), value[rows]) for name, value in FIELDS.items())
    assert len(some) == len(torch.arange(4)[rows])


def test_a_condition_that_moves_moves_whole_and_what_is_absent_stays_absent():
    assert {value.device.type for value in vars(whole().to("meta")).values()} == {"meta"}
    moved = Condition(numbers=torch.zeros(2, 1)).to("meta")
    assert moved.numbers.device.type == "meta" and moved.label is None and len(moved) == 2


def test_image_and_mask_are_mirrored_in_the_rows_that_are():
    turned = whole().mirrored(torch.tensor([True, False, False, True]))
    for name, value in FIELDS.items():
        mirrored = value.flip(-1) if name in ("image", "mask") else value
        assert torch.equal(getattr(turned, name)[[0, 3]], mirrored[[0, 3]]) and torch.equal(getattr(turned, name)[[1, 2]], value[[1, 2]])


def test_conditions_are_put_together_as_their_rows_were():
    parts = Condition.cat([whole()[:1], whole()[1:]])
    assert all(torch.equal(getattr(parts, name), value) for name, value in FIELDS.items())
    with pytest.raises(DataError, match="conditions that are put together must have the same fields, got label and label, image"):
        Condition.cat([Condition(label=FIELDS["label"]), Condition(label=FIELDS["label"], image=FIELDS["image"])])


def test_what_is_no_batch_is_refused():
    with pytest.raises(DataError, match="a condition must have one of label, image, mask, .*; where nothing is told it is None"):
        Condition()
    with pytest.raises(DataError, match=r"the fields of a condition must be of one batch, got label int64 \[4\], numbers float32 \[2, 1\]"):
        Condition(label=FIELDS["label"], numbers=torch.zeros(2, 1))


def test_a_data_set_tells_its_image_where_it_has_one_else_its_label_else_nothing():
    images, labels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.arange(3)
    small, rows, cpu = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1), torch.tensor([2, 1]), torch.device("cpu")
    told = as_condition(condition_of(Split(images=images, labels=labels, conditions=small), rows), cpu)
    assert told.label is None and torch.equal(told.image.flatten(), small[rows].flatten().float() / 127.5 - 1)
    told = as_condition(condition_of(Split(images=images, labels=labels), rows), cpu)
    assert told.image is None and told.label.tolist() == [2, 1]
    assert as_condition(condition_of(Split(images=images), rows), cpu) is None


def test_a_recording_reads_the_condition_of_each_call(monkeypatch):
    """With a double of CUDA graphs, whose replay works on the tensors it was recorded with."""
    def recorded(work):
        place = SimpleNamespace(output=work().clone())
        return lambda: place.output.copy_(work()), place.output
    monkeypatch.setattr(replay, "recorded", recorded)
    replayed = replay.Replayed(lambda cond: cond.label + cond.numbers[:, 0].long(), torch.device("cpu"))
    for call in range(replay.WARM + 3):
        cond = Condition(label=torch.full((2,), call), numbers=torch.full((2, 1), 10.0 * call))
        assert replayed(cond).tolist() == [11 * call, 11 * call]
    assert len(replayed.recorded) == 1
