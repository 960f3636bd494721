"""The search for a batch size, on work whose speed is known, and on a cell."""
import json

import pytest
import torch

import diffbench
from diffbench.contracts.settings import Sample
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.stages import batch_size as batching
from diffbench.stages import drawing, sample, training_loop
from diffbench.stages.context import Context
from diffbench.store.artefacts import Store
from tests.conftest import REGISTRY
from tests.helpers.runs import EXECUTION

CPU = torch.device("cpu")


@pytest.fixture
def clock(monkeypatch):
    """A device whose seconds are made up: work(size) takes seconds[0] of a function of size."""
    def of(seconds):
        tried = []
        monkeypatch.setattr(batching, "_seconds", lambda work, size, device: (tried.append(size), work(size), seconds(size))[2])
        return tried
    return of


def test_where_calls_cost_the_same_whatever_their_size_the_largest_wins(clock):
    tried = clock(lambda size: 1.0)
    assert batching.fastest(lambda size: None, 100, CPU)[0] == 100 and sorted(set(tried)) == [16, 32, 64, 100]


def test_where_images_cost_the_same_in_any_company_the_smallest_wins(clock):
    clock(lambda size: 0.01 * size)
    size, rates = batching.fastest(lambda size: None, 100, CPU)
    assert size == 16 and rates == pytest.approx(dict.fromkeys((16, 32, 64, 100), 100.0))


def test_beyond_the_cache_the_search_ends(clock):
    tried = clock(lambda size: 1.0 + 0.01 * size if size <= 64 else 0.1 * size)
    assert batching.fastest(lambda size: None, 10_000, CPU)[0] == 64 and max(tried) == 128


def test_memory_ends_it_too_but_not_at_the_smallest_size(clock):
    clock(lambda size: 1.0)

    def fits(most):
        def work(size):
            if size > most:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes")
        return work
    assert batching.fastest(fits(40), 1000, CPU)[0] == 32
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        batching.fastest(fits(4), 1000, CPU)


def planned(batch_size):
    content = {"diffbench": 1, "name": "b", "dataset": "digits", "metrics": [], "train": {"steps": 0}, "sample": {"count": 20, "batch_size": batch_size}, "axes": {
        "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": {"ddim": {"steps": 2}}, "conditioning": {"cfg": {"inner": "film"}}}}
    plan = stage_graph.make_plan(loading.load(content, REGISTRY), REGISTRY, "cpu")
    return plan.stages[plan.cells[0].stages["sample"]], plan.cells[0].cell


def test_a_stage_searches_once_and_draws_the_same_images(tmp_path, monkeypatch):
    fixed, cell = planned(20)
    searched, _ = planned("auto")
    assert fixed.key == searched.key and searched.batch is None and fixed.batch == 20
    model = training_loop.build(cell, CPU).eval()
    monkeypatch.setattr(Context, "tensors", lambda self, role, name: model.state_dict())
    looked = []
    real = batching.fastest
    monkeypatch.setattr(batching, "fastest", lambda *given: looked.append(given[1]) or real(*given))
    images = {}
    for name, stage in (("fixed", fixed), ("searched", searched), ("again", searched)):
        store = Store(tmp_path / ("fixed" if name == "fixed" else "searched"))
        store.prepare()
        context = Context(store=store, registry=REGISTRY, stage="sample", device=CPU, threads=1, key=stage.key, task=json.loads(json.dumps(stage.task)),
                          parents={"train": "0" * 64}, progress=diffbench.silent, files=tmp_path / name,
                          partial=store.partial("sample", stage.key), execution=EXECUTION)
        files = sample.sample(context)
        facts, images[name] = json.loads(files["facts.json"]), files["images.safetensors"].read_bytes()
        assert facts["batch_size"] == facts["batch_size_asked"] in (16, 20) and facts["nfe"] == 4, "the search counts as no evaluation"
        assert facts["compiled"] is False and facts["compile_reason"] == "not on its own on cpu"
    assert looked == [20], "a second try goes by what the first found"
    assert images["searched"] == images["again"]


def test_what_is_timed_is_one_guided_evaluation():
    _, cell = planned("auto")
    model = training_loop.build(cell, CPU).eval()
    answer = drawing.one_evaluation(cell, model, drawing.helpers_for(cell, CPU), CPU)(5)
    assert answer.x0.shape == (5, 1, 8, 8) and model.evaluations == 0
    for wrong in (0, "fast", True, 2.5):
        with pytest.raises(diffbench.OptionError, match="batch_size must be an integer >= 1 or auto"):
            Sample(batch_size=wrong)
