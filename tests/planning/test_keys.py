"""What is part of a stage's key, and what is not."""
import json
from dataclasses import dataclass

import pytest
import torch

import diffbench
from diffbench.matrix import loading
from diffbench.planning import stage_graph
from diffbench.registry import code_identity, entry_points
from diffbench.store.stage_kinds import AROUND, STAGE_KINDS
from tests.conftest import REGISTRY

SMALL = {
    "diffbench": 1, "name": "small", "dataset": "digits",
    "axes": {"backbone": [{"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}], "conditioning": ["film"], "scheduler": [{"ddim": {"steps": 2}}]},
    "train": {"steps": 3, "batch_size": 8}, "sample": {"count": 12}, "metrics": ["fid"],
}


def stages(device="cpu", registry=REGISTRY, **changes):
    """The stages of the one cell of a small matrix, by role."""
    plan = stage_graph.make_plan(loading.load(SMALL | changes, registry), registry, device)
    return {role: plan.stages[key] for role, key in plan.cells[0].stages.items()}


@pytest.fixture
def with_a_gpu(monkeypatch):
    """The keys a machine with a GPU would give."""
    monkeypatch.setattr(stage_graph, "fingerprint", lambda device: {"device": device.partition(":")[0]})


def precision(value):
    return {"train": SMALL["train"] | {"precision": value}}


def test_a_training_is_keyed_by_the_dtype_it_has_and_not_by_the_word_auto(with_a_gpu):
    key = {(device, value): stages(device, **precision(value))["train"].key
           for device in ("cpu", "cuda:0") for value in ("auto", "float32", "bfloat16")}
    assert key["cpu", "auto"] == key["cpu", "float32"] == key["cuda:0", "float32"], "the device itself is not in the key"
    assert key["cuda:0", "auto"] == key["cuda:0", "bfloat16"] == key["cpu", "bfloat16"] != key["cpu", "float32"]
    for device in ("cpu", "cuda:0"):
        dtype = stages(device)["train"].identity["train"]["precision"]
        cell = loading.load(SMALL, REGISTRY).cells[0]
        from diffbench.stages import training_loop
        assert training_loop.uses_bfloat16(cell, torch.device(device)) == (dtype == "bfloat16"), "the key says what the training does"


def test_trainings_of_one_key_have_one_task():
    """What an artefact says of itself does not depend on which of the cells that share it asked first."""
    cfg = [{"cfg": {"inner": "film", "scale": scale}} for scale in (1.5, 4.0)]
    others = [SMALL["axes"] | change for change in ({"scheduler": [{"heun": {"steps": 3}}], "spacing": ["trailing"]}, {"conditioning": [cfg[0]]}, {"conditioning": [cfg[1]]})]
    plain, sampled, *guided = (stages(axes=axes)["train"] for axes in (SMALL["axes"], *others))
    assert plain.key == sampled.key and plain.task == sampled.task
    assert guided[0].key == guided[1].key != plain.key and guided[0].task == guided[1].task
    assert set(plain.task) == {"recipe", "work"} and "scheduler" not in plain.task["recipe"]


def test_timings_of_training_have_a_dtype_and_those_of_sampling_are_always_in_float32(with_a_gpu):
    auto, exact = stages("cuda:0"), stages("cuda:0", **precision("float32"))
    assert auto["throughput:training"].key != exact["throughput:training"].key
    assert auto["throughput:sampling"].key == exact["throughput:sampling"].key


def test_a_learned_variance_is_timed_apart():
    """Its network has twice the outputs, and the row says how many parameters were timed."""
    keys = {name: stages(axes=SMALL["axes"] | {"objective": name})["throughput:sampling"].key for name in ("mse", "l1", "hybrid")}
    assert keys["mse"] == keys["l1"] != keys["hybrid"]


def test_a_sampling_option_of_any_kind_parts_the_samples_and_shares_the_training():
    @diffbench.register
    @dataclass(frozen=True, kw_only=True)
    class Leaning(diffbench.NoiseSchedule):
        """A rectified flow with an option that only sampling reads."""

        lean: float = diffbench.sampling_option(0.0)

        def alpha(self, t):
            return 1 - t

        def sigma(self, t):
            return t

        def t_of_nsr(self, nsr):
            return nsr / (1 + nsr)
    registry = diffbench.load_registry()
    one, other = (stages(registry=registry, axes=SMALL["axes"] | {"noise_schedule": {"leaning": {"lean": lean}}, "parameterization": "v"}) for lean in (0.0, 1.0))
    assert one["train"].key == other["train"].key and one["sample"].key != other["sample"].key


def test_where_work_is_cut_up_or_how_often_it_is_tried_is_no_part_of_a_key():
    one, other = stages(), stages(sample={"count": 12, "batch_size": 5}, run={"retries": 3})
    assert {role: s.key for role, s in one.items()} == {role: s.key for role, s in other.items()}


def test_a_harness_under_development_counts_by_its_source_and_a_released_one_by_its_versions(monkeypatch):
    monkeypatch.setattr(entry_points, "is_editable", lambda distribution: True)
    developed = stages()
    assert {STAGE_KINDS[s.name].does: s.identity["harness"] for s in developed.values()} == {
        target: code_identity.of_harness(target, *AROUND)["harness"] for target in {STAGE_KINDS[s.name].does for s in developed.values()}}
    assert "harness" in developed["sample"].identity["scheduler"], "a scheduler's step is the harness's where it is inherited"
    monkeypatch.setattr(entry_points, "is_editable", lambda distribution: False)
    assert '"harness"' not in json.dumps([s.identity for s in stages().values()])
