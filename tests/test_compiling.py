"""When a network is compiled: the estimate's arithmetic, and a compiled network beside the one it was made of."""

import shutil
from dataclasses import dataclass, field

import pytest
import torch

import diffbench
from diffbench import drawing, matrix, training
from diffbench.compiling import COST_SECONDS, GAIN, MARGIN, Compiling
from tests.conftest import REGISTRY

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile on a CPU needs a C++ compiler")


@dataclass
class Network:
    """Notes how it is compiled."""

    modes: list = field(default_factory=list)

    def compile(self, mode):
        self.modes.append(mode)


@dataclass
class Model:
    network: Network = field(default_factory=Network)
    is_reused: bool = False


@pytest.mark.parametrize("kind", sorted(COST_SECONDS))
def test_it_compiles_where_what_is_left_saves_more_than_it_costs(kind):
    """Saved: left (1 - 1/gain); the bound is where that is the margin times the cost, on either side of it by one percent."""
    bound = MARGIN * COST_SECONDS[kind] / (1 - 1 / GAIN)
    for left, expected in ((1.01 * bound, True), (0.99 * bound, False)):
        model, compiling = Model(), Compiling(kind=kind, asked="auto", device=CUDA)
        compiling.begin(model)
        compiling.look(model, seconds=1e6, share=5)       # the first piece has warmed up and counts for nothing
        assert not compiling.reason and model.network.modes == []
        compiling.look(model, seconds=left / 4, share=4)
        compiling.look(model, seconds=1e6, share=1e6)     # once decided it stays
        assert compiling.is_compiled is expected and len(model.network.modes) == expected and f"{left:.0f} s were left" in compiling.reason
    assert model.is_reused is False


def test_graphs_are_for_sampling_on_cuda_alone_and_their_output_is_not_kept():
    for kind, device, mode in (("sample", CUDA, "reduce-overhead"), ("train", CUDA, "default"), ("sample", CPU, "default")):
        model, compiling = Model(), Compiling(kind=kind, asked="on", device=device)
        compiling.begin(model)
        assert model.network.modes == [mode] and model.is_reused == (mode == "reduce-overhead")
        assert compiling.facts() == {"compiled": True, "compile_reason": "run.compile is on"}


@pytest.mark.parametrize(("asked", "given", "why"), [
    ("off", {}, "run.compile is off"), ("auto", {"device": CPU}, "not on its own on cpu"),
    ("auto", {"is_deterministic": True}, "run.deterministic asks for the same bits"), ("auto", {"processes": 2}, "2 processes share the work")])
def test_where_it_is_not_for_the_clock_to_say_it_never_is(asked, given, why):
    model, compiling = Model(), Compiling(**{"kind": "train", "asked": asked, "device": CUDA} | given)
    compiling.begin(model)
    for _ in range(5):
        compiling.look(model, seconds=1e9, share=1e9)
    assert model.network.modes == [] and compiling.facts() == {"compiled": False, "compile_reason": compiling.reason} and why in compiling.reason


def test_work_that_is_over_is_not_decided_upon():
    compiling = Compiling(kind="sample", asked="auto", device=CUDA)
    compiling.look(Model(), seconds=1e9, share=0)
    assert compiling.facts()["compile_reason"] == "the work was over before its length was known"


@pytest.mark.slow
@needs_compiler
def test_a_compiled_network_is_the_same_network():
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "sample": {"count": 6}, "train": {"steps": 4, "batch_size": 8}, "axes": {
        "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": {"pndm": {"steps": 5}}, "conditioning": "film"}}
    cell, split = matrix.load(content, REGISTRY).cells[0], REGISTRY.create("dataset", "digits").load()["train"]
    plain = training.train(cell, split, CPU)
    compiled = training.train(cell, split, CPU, compiling=Compiling(kind="train", asked="on", device=CPU))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4) and list(compiled.weights) == list(plain.weights)
    assert all(torch.allclose(compiled.weights[name], plain.weights[name], atol=1e-4) for name in plain.weights)

    model, helpers = training.build(cell, CPU).eval(), drawing.helpers_for(cell, CPU)
    model.load_state_dict(plain.weights)
    cond, _ = drawing.asked_for(cell)
    expected = drawing.draw(cell, model, cond, helpers, CPU, range(6))
    Compiling(kind="sample", asked="on", device=CPU).begin(model)
    assert model.network._compiled_call_impl is not None, "torch keeps the compiled call there"
    assert torch.allclose(drawing.draw(cell, model, cond, helpers, CPU, range(6)), expected, atol=1e-4)


def test_the_matrix_says_what_is_asked():
    content = {"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim"}}
    assert matrix.load(content, REGISTRY).run.compile == "auto" and matrix.load(content | {"run": {"compile": "off"}}, REGISTRY).run.compile == "off"
    with pytest.raises(diffbench.MatrixError, match="compile"):
        matrix.load(content | {"run": {"compile": "maybe"}}, REGISTRY)


@pytest.mark.parametrize("is_reused", [False, True])
def test_output_that_will_be_overwritten_is_copied(is_reused):
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "axes": {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": "ddim"}}
    model, outputs = training.build(matrix.load(content, REGISTRY).cells[0], CPU), []
    model.network.register_forward_hook(lambda module, given, out: outputs.append(out))
    model.is_reused = is_reused
    with torch.no_grad():
        eps = model.denoise(torch.ones(1, 1, 8, 8), 0.5, None, torch.zeros(1, dtype=torch.bool)).eps
    assert (eps.data_ptr() != outputs[0].data_ptr()) is is_reused and torch.equal(eps, outputs[0])
