"""The conformance suite, and what is trained."""

from newcomer import Newcomer
from torch import nn

from diffbench.testing import conformance

test_conforms = conformance("new-comer", quick=True)


def test_the_average_takes_the_place_of_the_biases_alone():
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    trained = Newcomer().prepare(model)
    assert [len(bias) for bias in trained] == [3, 1]
    weights = Newcomer().finish(model, [bias + 1 for bias in trained])
    changed = [name for name, value in model.state_dict().items() if not value.equal(weights[name])]
    assert changed == ["0.bias", "1.bias"]
