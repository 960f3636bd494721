"""The conformance suite, and that nothing is lost."""

import torch
from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_what_is_encoded_and_decoded_is_what_it_was():
    x = torch.arange(2 * 3 * 8 * 8).float().view(2, 3, 8, 8)
    module = Newcomer().module((3, 8, 8))
    z = module.encode(x).mean
    assert z.shape[1:] == Newcomer().latent_shape((3, 8, 8)) == (12, 4, 4) and torch.equal(module.decode(z), x)


def test_squares_of_one_pixel_are_the_image():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert torch.equal(Newcomer(side=1).module((1, 4, 4)).encode(x).mean, x)
