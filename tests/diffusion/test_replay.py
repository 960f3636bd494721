"""Work that is recorded and replayed, with a double of CUDA graphs: a recording that does nothing, and replays that do the work once more."""

from types import SimpleNamespace

import pytest
import torch

from diffbench.diffusion import replay
from diffbench.matrix import loading
from diffbench.stages import drawing, training_loop
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
CELL = {"diffbench": 1, "dataset": "digits", "metrics": [], "sample": {"count": 6}, "train": {"steps": 60, "batch_size": 8, "warmup": 5, "lr_decay": "cosine"}, "axes": {
    "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": {"pndm": {"steps": 8}}, "conditioning": {"cfg": {"inner": "film", "scale": 2.0}}}}


@pytest.fixture
def recordings(monkeypatch):
    """The shapes of outputs that were recorded. As with a graph, output lies in one place, and recording does not do the work."""
    made = []

    def recorded(work):
        place = SimpleNamespace(output=None)

        def again():
            done = work()
            place.output.copy_(done)
        with torch.random.fork_rng():
            before = {name: value.clone() for name, value in kept().items()}
            place.output = work().clone()                 # for its shape; what that changed is taken back
            for name, value in kept().items():
                value.copy_(before[name])
        made.append(tuple(place.output.shape))
        return again, place.output
    kept = dict
    monkeypatch.setattr(replay, "recorded", lambda work: recorded(work))

    def keep(tensors):
        nonlocal kept
        kept = tensors
    return SimpleNamespace(made=made, keep=keep)


def test_it_is_recorded_after_it_ran_and_once_for_each_shape(recordings):
    calls = []

    def double(pair, none):
        calls.append(len(pair[0]))
        return 2 * pair[0] + pair[1]
    replayed = replay.Replayed(double, CPU)
    for i in range(6):
        x = torch.full((3,), float(i))
        assert torch.equal(replayed((x, torch.ones(3)), None), 2 * x + 1)
    assert recordings.made == [(3,)]
    before = replayed((torch.ones(3), torch.ones(3)), None)
    assert replayed((torch.zeros(3), torch.ones(3)), None) is before and torch.equal(before, torch.ones(3)), "its output lies in one place"
    for size in range(4, 4 + replay.MOST + 2):
        for i in range(6):
            assert torch.equal(replayed((torch.full((size,), float(i)), torch.ones(size)), None), torch.full((size,), 2.0 * i + 1))
    assert recordings.made == [(size,) for size in range(3, 3 + replay.MOST)], "further shapes run as they are"


def test_a_training_that_is_replayed_is_the_training(recordings, monkeypatch):
    """Losses of the steps until the recording are equal to the bit; later ones to the rounding of the moving average and of the optimiser's tensors."""
    cell, split = loading.load(CELL, REGISTRY).cells[0], REGISTRY.create("dataset", "digits").load()["train"]
    plain, states = training_loop.train(cell, split, CPU), []
    real = training_loop._State.__post_init__

    def noted(state):
        real(state)
        states.append(state)
    monkeypatch.setattr(training_loop._State, "__post_init__", noted)

    def tensors():
        state = states[-1]
        moments = {f"{i}.{name}": value for i, each in enumerate(state.optimizer.state.values()) for name, value in each.items()}
        return dict(state.model.state_dict()) | {f"average.{i}": value for i, value in enumerate(state.average)} | moments
    recordings.keep(tensors)
    compiling = SimpleNamespace(is_replayed=True, begin=lambda model: None, look=lambda *_, **__: None)
    replayed = training_loop.train(cell, split, CPU, compiling=compiling)
    assert recordings.made == [()], "one recording, of a loss"
    assert replayed.losses == pytest.approx(plain.losses, rel=1e-5)
    assert all(torch.allclose(replayed.weights[name], plain.weights[name], rtol=1e-4, atol=1e-6) for name in plain.weights)


def test_samples_of_a_replayed_network_are_those_of_the_network(recordings):
    cell = loading.load(CELL, REGISTRY).cells[0]
    model, helpers = training_loop.build(cell, CPU).eval(), drawing.helpers_for(cell, CPU)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    cond, _ = drawing.asked_for(cell)
    expected = drawing.draw(cell, model, cond, helpers, CPU, range(6))
    evaluations = model.evaluations
    model.replay(CPU)
    assert torch.equal(drawing.draw(cell, model, cond, helpers, CPU, range(6)), expected)
    assert recordings.made and model.evaluations == 2 * evaluations, "evaluations are counted all the same"
