"""The metric `torchmetrics`: the library's values, intervals that hold the truth, local networks, what it refuses."""

from dataclasses import replace

import pytest
import torch
from torchmetrics.image import (
    FrechetInceptionDistance,
    KernelInceptionDistance,
    MemorizationInformedFrechetInceptionDistance,
    StructuralSimilarityIndexMeasure,
    TotalVariation,
)

import diffbench
from diffbench import DataError, Diverged, Evidence, NoInterval, OptionError, Real
from diffbench.contracts.settings import Sample
from diffbench.testing.stand_ins import cell_with
from tests.conftest import REGISTRY
from tests.helpers.torchmetrics_evidence import D64, GENERATED, REAL, REFERENCE, SMALL, evidence, metric

PIXELS = REGISTRY.create("extractor", "pixels")


class Passed(torch.nn.Module):
    """In place of a network: what is given are the features."""

    num_features = 5

    def forward(self, features):
        return features


def library(made, x, y) -> torch.Tensor:
    made = made.set_dtype(D64)
    made.update(y, real=True)
    made.update(x, real=False)
    return made.compute()


def test_its_frechet_distance_is_ours_with_our_interval():
    theirs, ours = (
        metric("fid").measure(GENERATED, REAL)[""],
        REGISTRY.create("metric", "fid").measure(GENERATED, REAL)[""],
    )
    assert theirs.value == pytest.approx(ours.value, rel=1e-6)
    assert theirs.value == pytest.approx(
        float(library(FrechetInceptionDistance(feature=Passed()), GENERATED.features, REFERENCE.features)), rel=1e-12
    )
    assert (theirs.debiased, theirs.low, theirs.high) == pytest.approx((ours.debiased, ours.low, ours.high), rel=1e-4)


def test_it_has_no_interval_where_a_frechet_distance_of_ours_has_none():
    some = Evidence(**{name: None if value is None else value[:45] for name, value in vars(GENERATED).items()})
    theirs, ours = metric("fid").measure(some, REAL)[""], REGISTRY.create("metric", "fid").measure(some, REAL)[""]
    assert isinstance(theirs, NoInterval) and theirs.reason == ours.reason


def test_a_kernel_distance_is_the_library_s_from_its_seed_alone():
    before = torch.get_rng_state()
    first, again, other = (
        metric("kid", options=("subset_size=50", "subsets=7"), seed=seed).measure(GENERATED, REAL)[""]
        for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    mean, _ = library(
        KernelInceptionDistance(feature=Passed(), subset_size=50, subsets=7), GENERATED.features, REFERENCE.features
    )
    assert first == again and first.value == float(mean) != other.value
    assert isinstance(first, NoInterval) and first.reason.startswith("it draws random numbers")


@pytest.mark.parametrize("real", ["reference", "train"])
def test_mifid_is_the_library_s_and_sees_copies_of_training_images(real):
    x, train = GENERATED.features.clone(), evidence(seed=5)
    known = {"reference": REFERENCE, "train": train}[real]
    made = MemorizationInformedFrechetInceptionDistance(feature=Passed(), cosine_distance_eps=0.5)
    measured = metric("mifid", real=real, options=("cosine_distance_eps=0.5",)).measure(
        GENERATED, Real(reference=REFERENCE, held_out=REFERENCE, train=train)
    )
    assert measured[""].value == pytest.approx(float(library(made, x, known.features)), rel=1e-9)
    assert metric("mifid", real=real).needs_training == (real == "train")


def test_an_inception_score_in_one_part_is_ours_and_has_an_interval():
    theirs, ours = (
        metric("inception_score", options=("splits=1",)).measure(GENERATED, REAL)[""],
        REGISTRY.create("metric", "inception_score").measure(GENERATED, REAL)[""],
    )
    assert theirs.value == pytest.approx(ours.value, rel=1e-9)
    assert (theirs.low, theirs.high) == pytest.approx((ours.low, ours.high), rel=1e-6)
    assert isinstance(metric("inception_score").measure(GENERATED, REAL)[""], NoInterval)


def test_diversity_is_the_mean_over_disjoint_pairs_of_one_class():
    measured = metric("ssim", pairs="diversity").measure(GENERATED, REAL)[""]
    images, first = GENERATED.images.double() / 255, [i for k in range(3) for i in range(k, 240, 6)]
    made = StructuralSimilarityIndexMeasure(data_range=1.0).set_dtype(D64)
    made.update(images[first], images[[i + 3 for i in first]])
    assert measured.value == pytest.approx(float(made.compute()), rel=1e-9)
    assert measured.low < measured.value == measured.debiased < measured.high
    assert metric("ssim").higher_is_better and not metric("ssim", pairs="diversity").higher_is_better
    assert metric("ssim", pairs="diversity").has_floor and not metric("ssim").has_floor


def test_pairs_are_sample_and_reference_image_in_turn():
    noisy = Evidence(
        images=REFERENCE.images[torch.arange(400) % 300],
        labels=None,
        features=torch.zeros(400, 1, dtype=D64),
        predicted=None,
    )
    assert metric("ssim").measure(noisy, REAL)[""].value == pytest.approx(1)
    shifted = Evidence(**{**vars(noisy), "images": (noisy.images // 2).roll(1, 0)})
    truth = REFERENCE.images.double()[torch.arange(400) % 300] / 255
    mse = (shifted.images.double() / 255 - truth).square().mean()
    assert metric("psnr").measure(shifted, REAL)[""].value == pytest.approx(float(-10 * mse.log10()), rel=1e-6)


def test_a_metric_of_single_images_is_the_library_s_mean():
    made = TotalVariation(reduction="mean").set_dtype(D64)
    made.update(GENERATED.images.double() / 255)
    assert metric("tv").measure(GENERATED, REAL)[""].value == pytest.approx(float(made.compute()), rel=1e-6)


def without(*names) -> Evidence:
    return replace(GENERATED, **dict.fromkeys(names))


@pytest.mark.parametrize(
    ("options", "generated", "message"),
    [
        ({"name": "inception_score"}, without("logits"), "torchmetrics' inception_score needs logits, and got none"),
        ({"name": "mifid", "real": "train"}, GENERATED, "torchmetrics' mifid needs training images, and got none"),
        (
            {"name": "clip_score", "weights": "/none"},
            without("labels"),
            "clip_score needs labels, whose names are the texts, and got none",
        ),
        (
            {"name": "kid"},
            GENERATED,
            "KernelInceptionDistance: Argument `subset_size` should be smaller than the number of samples",
        ),
    ],
)
def test_what_the_samples_lack_is_said(options, generated, message):
    with pytest.raises(DataError) as refused:
        metric(**options).measure(generated, REAL)
    assert message in str(refused.value)


def test_a_value_that_is_not_finite_is_no_number():
    with pytest.raises(Diverged, match="torchmetrics' psnr of these samples is inf, which no table can hold"):
        metric("psnr").measure(Evidence(**{**vars(REFERENCE), "labels": None}), REAL)


def test_the_interval_of_diversity_holds_the_truth():
    """Images of one grey level, uniform in 0..255: the mean squared difference is known, PSNR is its logarithm."""
    truth, hits = -10 * torch.tensor((256**2 - 1) / 6 / 255**2, dtype=D64).log10(), 0
    for seed in range(40):
        grey = torch.randint(0, 256, (400, 1, 1, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
        some = Evidence(
            images=grey.expand(-1, 1, 2, 2).contiguous(),
            labels=None,
            features=torch.zeros(400, 1, dtype=D64),
            predicted=None,
        )
        measured = metric("psnr", pairs="diversity").measure(some, REAL)[""]
        hits += measured.low <= truth <= measured.high
    assert hits >= 33  # of 95 %: fewer have a chance of 2e-3 at 92 %, and none of these seeds is luck


def test_options_and_names_have_one_form():
    assert metric("KernelInceptionDistance", options=("degree=2", "subset_size = 50")) == metric(
        "kid", options=("subset_size=50", "degree=2")
    )
    assert (
        metric("kid").column(PIXELS) == "tm_kid_pixels"
        and metric("lpips", pairs="diversity").column(PIXELS) == "tm_lpips_diversity"
    )
    assert metric("ms_ssim", options=("normalize=relu", "betas=[0.5, 0.5]"))._chosen == {
        "normalize": "relu",
        "betas": (0.5, 0.5),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "kidd"}, "torchmetrics has no image metric named 'kidd'. Did you mean 'kid'?"),
        ({"name": "qnr"}, "QualityWithNoReference cannot be given samples: it takes a panchromatic image"),
        (
            {"name": "kid", "options": ("subsetsize=5",)},
            "'subsetsize=5' is no name=value with an option of KernelInceptionDistance. Did you mean 'subset_size'?",
        ),
        (
            {"name": "fid", "options": ("antialias=true",)},
            "'antialias=true' is no name=value with an option of FrechetInceptionDistance. Its options: none",
        ),
        ({"name": "kid", "options": ("degree=2", "degree=3")}, "options names one option twice"),
        ({"name": "ssim", "options": ("reduction=sum",)}, 'reduction="sum" gives no mean over images'),
        ({"name": "clip_score", "template": "a photo"}, "template must hold {class}"),
    ],
)
def test_wrong_options_are_refused_at_birth(options, message):
    with pytest.raises(OptionError) as refused:
        metric(**options)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "ssim"}, "ssim compares each sample with its true image"),
        ({"name": "clip_score"}, "clip_score needs a class that was asked for"),
        (
            {"name": "ms_ssim", "pairs": "diversity"},
            "images of [1, 8, 8] are refused: torchmetrics: MultiScaleStructuralSimilarityIndexMeasure",
        ),
        ({"name": "kid", "options": ("subset_size=2000",)}, "kid draws subsets of 2000 samples, and sample.count is"),
        ({"name": "ssim", "pairs": "diversity"}, None),
        ({"name": "fid"}, None),
    ],
)
def test_what_a_cell_does_not_have_is_said_beforehand(options, message):
    reason = metric(**options).why_not(
        cell_with(REGISTRY, sample=Sample(count=100), conditioning=REGISTRY.create("conditioning", "none"))
    )
    assert (reason or "").startswith(message or "") and (reason is None) == (message is None)


def test_an_option_that_the_library_refuses_is_an_error_of_the_plan():
    with pytest.raises(OptionError, match="KernelInceptionDistance: Argument `coef` expected to be float"):
        metric("kid", options=("coef=1", "subset_size=10")).why_not(cell_with(REGISTRY, sample=Sample(count=100)))


def measured(matrix, conditioning, folder):
    """(the row, fid.md) of a run. Each stage that measures imports the library, which takes seconds."""
    diffbench.run(matrix | {"axes": SMALL["axes"] | {"conditioning": conditioning}}, out=folder, device="cpu")
    return diffbench.load(folder).iloc[0], (folder / "fid.md").read_text()


def test_samples_of_images_are_compared_with_their_true_images_in_the_tables(tmp_path):
    row, table = measured(
        SMALL | {"dataset": {"super_resolution": {"inner": "digits"}}, "metrics": [{"torchmetrics": {"name": "psnr"}}]},
        "concat",
        tmp_path / "run",
    )
    assert row.status == "ok" and row.tm_psnr_low < row.tm_psnr < row.tm_psnr_high
    assert "`tm_psnr`, higher is better" in table and "Floor" not in table


@pytest.mark.slow
def test_its_columns_stand_beside_ours_with_their_floors(tmp_path):
    metrics = ["fid", {"torchmetrics": {"name": "fid"}}, {"torchmetrics": {"name": "ssim", "pairs": "diversity"}}]
    row, table = measured(SMALL | {"dataset": "digits", "metrics": metrics}, "film", tmp_path / "run")
    assert row.status == "ok" and row.tm_fid_pixels == pytest.approx(row.fd_pixels, rel=1e-6)
    assert row.tm_ssim_diversity_low < row.tm_ssim_diversity < row.tm_ssim_diversity_high
    section = table.partition("## `tm_ssim_diversity`, lower is better")[2].partition("##")[0]
    assert "**Floor**" in section and "tm_fid_pixels" in table


def test_real_images_are_measured_where_they_can_be_in_place_of_samples():
    chosen = [
        {"name": "fid"},
        {"name": "ssim", "pairs": "diversity"},
        {"name": "psnr"},
        {"name": "clip_score", "weights": "/none"},
    ]
    matrix = SMALL | {"dataset": "digits", "metrics": [{"torchmetrics": options} for options in chosen]}
    plan = diffbench.plan(matrix, device="cpu")
    columns = ({key.partition(":")[2] for key in some} for some in (plan.floors, plan.copies))
    assert list(columns) == [{"tm_fid_pixels", "tm_ssim_diversity", "near_copy_share"}, {"tm_fid_pixels"}]
    assert [note.partition(":")[0] for note in plan.notes if "is not measured" in note] == [
        "torchmetrics is not measured"
    ] * 2
    evaluated = next(
        stage for stage in plan.stages.values() if stage.task.get("metric", {}).get("options", {}).get("name") == "fid"
    )
    assert (
        evaluated.identity["outside"].startswith("torchmetrics 1.")
        and evaluated.identity["metric"]["options"]["name"] == "fid"
    )
