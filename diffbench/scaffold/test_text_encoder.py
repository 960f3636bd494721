"""The conformance suite, and that padding says nothing."""

import torch
from newcomer import Newcomer

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_tokens_are_bytes_and_padding_is_not_seen():
    ids, visible = Newcomer().tokenize(["ab", "abc"])
    assert ids.tolist() == [[97, 98, 0], [97, 98, 99]] and visible.tolist() == [[True, True, False], [True, True, True]]


def test_a_text_is_pooled_the_same_beside_a_longer_one():
    module = Newcomer().module()
    alone, beside = (module(*Newcomer().tokenize(texts))[1][0] for texts in (["ab"], ["ab", "abcd"]))
    torch.testing.assert_close(alone, beside)
