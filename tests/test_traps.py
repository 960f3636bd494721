"""What other tools fall into and this one must not; one test for each trap that no other file of tests holds."""

from dataclasses import dataclass

import pytest
import torch

import diffbench
from diffbench import Extractor, MatrixError
from diffbench.diffusion.pixels import to_pixels
from diffbench.testing.checks.data import extractor_checks
from diffbench.testing.stand_ins import StandInImages
from tests.conftest import REGISTRY, all_of


def test_pixels_are_clamped_and_rounded_never_cut_off_or_wrapped():
    """A byte cast gives 24 for 1.1, 254 for -0.01, and is half a level too dark on average."""
    values = torch.tensor([-7.0, -1.02, -1.0, 0.0, 1.0, 1.2, float("inf"), -float("inf")])
    assert to_pixels(values).tolist() == [0, 0, 0, 128, 255, 255, 255, 0]
    levels = torch.arange(256)
    assert torch.equal(to_pixels(levels / 127.5 - 1).long(), levels)
    assert abs(float((to_pixels(torch.linspace(-1, 1, 100_001)).double() - (torch.linspace(-1, 1, 100_001).double() + 1) * 127.5).mean())) < 1e-3


@dataclass(frozen=True, kw_only=True)
class InTrainingMode(Extractor):
    """A network with batch normalisation that its author forgot to put into evaluation mode."""

    def fit(self, train, seed, device, progress=diffbench.silent):
        return {"weight": torch.randn(8, 1, 3, 3, generator=torch.Generator().manual_seed(seed))}, {}

    def features(self, weights, images, device):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3, bias=False), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        net[0].weight.data = weights["weight"]
        return net(images[:, :1].float()).detach().double()


def test_an_extractor_in_training_mode_is_caught_by_the_checks():
    """The distance then depends on the batch: 0.33 and 0.38 instead of 0.154 were measured elsewhere."""
    checks = dict(extractor_checks(REGISTRY, InTrainingMode()))
    checks["is a function of its seed"]()
    with pytest.raises(AssertionError, match="features of an image alone and in a batch differ"):
        checks["gives features that do not depend on the batch"]()


NEED_A_FILE = ("inception", "dinov2")           # of weights: their own tests make one


@pytest.mark.parametrize("given", [given for given in all_of("extractor") if given.values[0].component_name() not in NEED_A_FILE])
def test_extractors_neither_draw_from_the_global_generator_nor_depend_on_it(given):
    images, extractor = StandInImages().load(), given
    seen = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        weights = extractor.fit(images["train"], 0, torch.device("cpu"))[0]
        seen.append(extractor.features(weights, images["reference"].images[:20], torch.device("cpu")))
        assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(*seen)


def test_other_data_under_the_same_name_are_other_artefacts(tmp_path):
    """A cache keyed by name gave the distance of the old files, 5.92 instead of 335.6."""
    from PIL import Image

    def keys():
        matrix = {"diffbench": 1, "dataset": {"image_folder": {"path": str(tmp_path), "size": 8}}, "extractor": "pixels",
                  "axes": {"backbone": "unet", "scheduler": "ddim", "conditioning": "none"}}
        return diffbench.plan(matrix, device="cpu").cells[0].stages
    for i in range(60):
        Image.fromarray(torch.randint(0, 256, (8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)).numpy()).save(tmp_path / f"{i}.png")
    before = keys()
    Image.fromarray(torch.zeros(8, 8, dtype=torch.uint8).numpy()).save(tmp_path / "0.png")
    after = keys()
    assert before.keys() == after.keys() and all(before[role] != after[role] for role in before if not role.startswith("throughput"))


@pytest.mark.parametrize("name", ["../outside", "/etc/here", "a/b", "a\\b", "."])
def test_a_name_is_never_a_path(name):
    with pytest.raises(MatrixError, match="a name has letters"):
        diffbench.plan({"diffbench": 1, "name": name, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim"}}, device="cpu")


def test_what_is_misspelt_is_never_ignored():
    """An unknown argument that is dropped gives the number of another path."""
    with pytest.raises(MatrixError, match=r"unknown option 'antialias'"):
        diffbench.plan({"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim"}, "extractor": {"inception": {"antialias": True}}}, device="cpu")
