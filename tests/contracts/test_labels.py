"""Labels of samples: in the shares of the training data, in every prefix, and what a plan says of them."""
import random
from fractions import Fraction

import numpy
import pytest
import torch
from PIL import Image

import diffbench
from diffbench.contracts import labels
from diffbench.contracts.settings import Sample
from diffbench.errors import DataError
from diffbench.stages import drawing
from diffbench.stats import label_shares
from diffbench.testing.stand_ins import StandInImages, cell_with
from tests.conftest import REGISTRY


def random_shares(count: int):
    """Sets of shares of 2 to 12 classes, some of them 0, some a thousand times others."""
    draw = random.Random(0)
    for _ in range(count):
        shares = [draw.choice([0, 1, 1, 2, 3, 5, 50, draw.randint(1, 1000)]) for _ in range(draw.randint(2, 12))]
        if sum(share > 0 for share in shares) > 1:
            yield shares


def test_equal_shares_go_round():
    for classes in (1, 2, 3, 10):
        assert label_shares.label_sequence([7] * classes, 45).tolist() == [i % classes for i in range(45)]


def test_every_prefix_is_within_tijdemans_bound_of_its_shares():
    """|count - n p| <= 1 - 1/(2K - 2), exactly, which is below 1; and the bound is met, so that no rule does better for
    all shares.
    """
    worst = Fraction(0)
    for shares in random_shares(400):
        bound = 1 - Fraction(1, 2 * sum(share > 0 for share in shares) - 2)
        given = [0] * len(shares)
        for n, label in enumerate(label_shares.label_sequence(shares, 200).tolist(), start=1):
            given[label] += 1
            worst = max(
                worst,
                max(abs(g - Fraction(n * share, sum(shares))) / bound for g, share in zip(given, shares, strict=True)),
            )
    assert worst == 1


def test_the_label_of_an_index_depends_on_the_shares_alone():
    for shares in random_shares(50):
        whole = label_shares.label_sequence(shares, 300)
        assert all(torch.equal(label_shares.label_sequence(shares, n), whole[:n]) for n in (1, 7, 120))
        assert torch.equal(label_shares.label_sequence([share * 10**12 for share in shares], 300), whole)


def test_shares_are_read_as_the_decimals_they_are_written_as():
    assert label_shares.whole_numbers((0.1, 0.2, 0.7)) == (1, 2, 7) and label_shares.whole_numbers((3.0, 0.0, 1.5)) == (6, 0, 3)
    assert label_shares.label_sequence((0, 5, 0), 4).tolist() == [1, 1, 1, 1]


def test_labels_in_their_shares_are_told_from_labels_that_were_drawn():
    generator = torch.Generator().manual_seed(0)
    for shares in random_shares(50):
        assert label_shares.have_fixed_shares(label_shares.label_sequence(shares, 200))
        drawn = torch.multinomial(torch.tensor([5.0, 3.0, 2.0]), 400, replacement=True, generator=generator)
        assert not label_shares.have_fixed_shares(drawn)


@pytest.mark.parametrize("shares", [(1, 1), (9, 1), (50, 30, 20)])
def test_blocks_of_samples_have_each_class_alike(shares):
    """Each of the 20 blocks holds a class as often as every other block does, to within one."""
    asked = label_shares.label_sequence(shares, 200)
    evidence = diffbench.Evidence(
        images=torch.zeros(200, 1, 1, 1, dtype=torch.uint8),
        labels=asked,
        features=torch.zeros(200, 1, dtype=torch.float64),
        predicted=None,
    )
    counts = torch.stack(
        [torch.bincount(asked[diffbench.blocks_of(evidence) == j], minlength=len(shares)) for j in range(20)]
    )
    assert int((counts.amax(0) - counts.amin(0)).max()) <= 1


class Uneven(StandInImages):
    """300 dark images and 100 bright ones."""

    def _split(self, seed):
        split = super()._split(seed)
        kept = torch.cat([torch.nonzero(split.labels == 0)[:, 0], torch.nonzero(split.labels == 1)[:33, 0]])
        return diffbench.Split(images=split.images[kept], labels=split.labels[kept])


def test_samples_have_the_shares_of_the_training_data_unless_asked_otherwise():
    def asked_for(**sample):
        return drawing.asked_for(cell_with(REGISTRY, dataset=Uneven(), sample=Sample(**sample)))

    condition, shown = asked_for(count=133)
    assert torch.equal(condition.label, shown) and torch.bincount(shown).tolist() == [100, 33]
    assert torch.equal(asked_for(count=20, batch_size=3)[1], shown[:20])
    assert asked_for(count=20, labels="even")[1].tolist() == [0, 1] * 10
    assert torch.equal(asked_for(count=20, labels=(1, 3))[1], asked_for(count=20, labels=(0.25, 0.75))[1])
    assert torch.bincount(asked_for(count=20, labels=(1, 3))[1]).tolist() == [5, 15]


@pytest.mark.parametrize(
    "value",
    ["round", [], [0, 0], [1, -1], [1, float("nan")], [1, float("inf")], ["a"], [True, False], 3, None, {"a": 1}],
)
def test_what_are_no_shares_is_a_mistake_in_the_file(value):
    with pytest.raises(
        diffbench.OptionError, match="labels must be data, even, or a list with a share or a count >= 0 for each class"
    ):
        Sample(labels=value)


def folder_of(root, **counts):
    """A folder with so many images of each class."""
    generator = numpy.random.default_rng(0)
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(generator.integers(0, 256, (8, 8), dtype=numpy.uint8)).save(root / name / f"{i}.png")
    return {"image_folder": {"path": str(root), "size": 8, "channels": 1, "labels": True}}


def matrix(dataset, **sample):
    return {
        "diffbench": 1,
        "dataset": dataset,
        "extractor": "pixels",
        "metrics": ["fid"],
        "sample": {"count": 40} | sample,
        "axes": {
            "backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}},
            "conditioning": "film",
            "scheduler": {"ddim": {"steps": 2}},
        },
    }


def test_the_plan_names_classes_and_says_where_samples_have_other_shares(tmp_path):
    from diffbench.cli.plan import plan_lines

    dataset = folder_of(tmp_path / "pets", cat=60, dog=20)
    plan = diffbench.plan(matrix(dataset), device="cpu")
    (shown,) = plan.classes.values()
    assert shown == "2 classes: cat 60, dog 20" and plan.summary()["classes"] == plan.classes
    assert not [note for note in plan.notes if "sample.labels" in note]
    assert any(line.endswith(": 2 classes: cat 60, dog 20") for line in plan_lines(plan, (), None))
    even = diffbench.plan(matrix(dataset, labels="even"), device="cpu")
    assert (
        "sample.labels: even gives samples other shares of classes than the training data have (25.0% of them would have to change class)"
        in "\n".join(even.notes)
    )
    same = diffbench.plan(matrix(dataset, labels=[3, 1]), device="cpu")
    assert not [note for note in same.notes if "sample.labels" in note]
    assert (
        "sample.labels: [0.5, 0.5] gives" in "\n".join(
            diffbench.plan(matrix(dataset, labels=[0.5, 0.5]), device="cpu").notes
        )
    )
    assert {plan.cells[0].cell_id, even.cells[0].cell_id} == {p.cells[0].cell_id for p in (plan, even)} and plan.cells[
        0
    ].stages["sample"] != even.cells[0].stages["sample"]
    assert plan.cells[0].stages["train"] == even.cells[0].stages["train"]


def test_shares_for_another_number_of_classes_skip_the_cell_with_the_reason():
    plan = diffbench.plan(matrix("digits", labels=[1, 2, 3]), device="cpu")
    assert plan.cells[0].skipped == "sample.labels gives the shares of 3 classes, and digits has 10"
    around = matrix({"super_resolution": {"inner": "digits"}}, labels=[1] * 10)
    around["axes"]["conditioning"] = "concat"
    assert (
        "sample.labels gives shares of classes, and super_resolution draws its samples under images"
        in diffbench.plan(around, device="cpu").cells[0].skipped
    )


def test_many_classes_are_counted_and_not_named():
    assert (
        labels.classes_in_words(
            [f"c{k}" for k in range(1000)], {"train": [700 + k % 300 for k in range(1000)], "reference": [50] * 1000}
        )
        == "1,000 classes, 750 to 1,049 images each"
    )
    assert labels.classes_in_words(["0", "1"], {"train": [6, 6], "reference": [2, 2]}) == "2 classes, 8 images each"


def test_a_reference_split_of_other_shares_is_remarked_upon():
    assert (
        labels.remark({"train": (300, 100), "reference": (75, 25)})
        == ""
        == labels.remark({"train": (300, 100), "reference": (74, 26)})
    )
    assert (
        "the shares of classes in the reference split are not those of the training split (25.0% of the images would have to change class)"
        in labels.remark({"train": (300, 100), "reference": (50, 50)})
    )


def test_a_data_set_without_labels_asks_for_none():
    class Unlabelled(StandInImages):
        classes = None

        def load(self):
            raise DataError("the data are not here")

    assert drawing.asked_for(cell_with(REGISTRY, dataset=Unlabelled(), sample=Sample(count=4))) == (None, None)
