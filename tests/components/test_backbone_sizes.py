"""The backbones against the sizes their papers state: parameters, and multiply-accumulates as torch counts them, FLOPs halved."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from diffbench import Signals
from tests.components.test_backbones import io_of
from tests.conftest import REGISTRY


def size(name, shape, sockets, **options):
    """(number of parameters, 1e9 multiply-accumulates for one image), without making them."""
    backbone = REGISTRY.create("backbone", name, **options)
    with torch.device("meta"):
        network = backbone.build(io_of(backbone, shape, **sockets))
        signals = Signals(vector=torch.empty(1, backbone.signal_width) if "ports" in sockets else None)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, *shape), torch.empty(1), signals)
    return sum(parameter.numel() for parameter in network.parameters()), counter.get_total_flops() / 2e9


LATENT, LABELLED = (4, 32, 32), {"ports": frozenset({"vector"}), "learned_variance": True}


@pytest.mark.parametrize(("preset", "patch", "millions", "gmac"), [
    ("S", 2, 33.0, 6.06), ("S", 4, None, 1.41), ("S", 8, None, 0.36),
    ("B", 2, 130.5, 23.01), ("B", 4, None, 5.57), ("B", 8, None, 1.42),
    ("L", 2, 458.1, 80.70), ("L", 4, None, 19.70), ("L", 8, None, 5.01),
    ("XL", 2, 675.1, 118.62), ("XL", 4, None, 29.04), ("XL", 8, None, 7.39),
])
def test_dit_has_the_published_size(preset, patch, millions, gmac):
    """Peebles & Xie 2023, their released network on 32x32x4 latents with a label and a learned variance: equal to the last digit given.
    It also has 1000 + 1 labels (in our conditioning) and counts the fixed positions (our buffer)."""
    width = REGISTRY.create("backbone", "dit", preset=preset).width
    ours, macs = size("dit", LATENT, LABELLED, preset=preset, patch=patch)
    labels, positions = 1001 * width, (32 // patch) ** 2 * width
    assert millions is None or round((ours + labels + positions) / 1e6, 1) == millions
    assert round(macs, 2) == gmac


@pytest.mark.parametrize(("block", "millions", "gmac"), [
    ("in_context", 449, 119.4), ("cross_attention", 598, 137.6), ("adaln", 600, 118.6), ("adaln_zero", 675, 118.6),
])
def test_the_blocks_of_dit_have_the_published_sizes(block, millions, gmac):
    """Peebles & Xie 2023 at XL/2. They cut parameters to whole millions (ours are 449.5, 598.3, 600.7, 675.1); multiply-accumulates
    agree within 0.06e9: in_context and adaln are 119.354 and 118.547 here."""
    ours, macs = size("dit", LATENT, LABELLED, preset="XL", block=block)
    assert int((ours + (1001 + 256) * 1152) / 1e6) == millions
    assert macs == pytest.approx(gmac, abs=0.06)


def test_the_default_dit_is_s_2():
    assert REGISTRY.create("backbone", "dit") == REGISTRY.create("backbone", "dit", preset="S", patch=2)


@pytest.mark.parametrize(("preset", "learned_variance", "millions", "gmac"), [
    ("ddpm_cifar10", False, 35.746307, 6.2), ("iddpm_cifar10", True, 52.5, 8.4),
])
def test_unet_has_the_published_size(preset, learned_variance, millions, gmac):
    """Ho et al. 2020 and Nichol & Dhariwal 2021 on CIFAR-10 without condition: to the last digit given."""
    ours, macs = size("unet", (3, 32, 32), {"learned_variance": learned_variance}, preset=preset)
    assert round(ours / 1e6, len(str(millions).partition(".")[2])) == millions
    assert round(macs, 1) == gmac
