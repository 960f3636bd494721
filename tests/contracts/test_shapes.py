"""Shapes (C, *space): numbers of samples on any number of axes, and the shape that a network sees."""

from dataclasses import dataclass

import pytest
import torch

from diffbench import per_sample
from diffbench.diffusion.denoiser import io_of
from diffbench.testing.stand_ins import StandInImages, cell_with
from tests.conftest import REGISTRY


@dataclass(frozen=True, kw_only=True)
class Wide(StandInImages):
    """Grey 8x8 images that are noised as something else."""

    @property
    def shape(self):
        return (3, 4, 16)


@pytest.mark.parametrize("space", [(), (7,), (4, 5), (2, 3, 4)])
def test_numbers_of_samples_multiply_each_its_own(space):
    values, x = torch.tensor([2.0, 3.0]), torch.ones(2, 1, *space)
    assert per_sample(values, x).shape == (2, 1, *(1 for _ in space))
    assert torch.equal(per_sample(values, x) * x, torch.stack([2 * x[0], 3 * x[1]]))


def test_a_network_sees_the_images_where_a_data_set_says_nothing_else():
    cell = cell_with(REGISTRY, dataset=StandInImages())
    assert cell.data_shape == cell.dataset.image_shape == io_of(cell).shape


def test_a_network_is_built_for_the_shape_of_the_data_not_of_the_images():
    io = io_of(cell_with(REGISTRY, dataset=Wide()))
    assert (io.shape, io.channels, io.height, io.width, io.out_channels) == ((3, 4, 16), 3, 4, 16, 3)
