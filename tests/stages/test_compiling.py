"""When a network is compiled: the estimate's arithmetic, and a compiled network beside the one it was made of."""

import json
import shutil
from dataclasses import dataclass, field

import pytest
import torch

import diffbench
from diffbench.machine.gpu_figures import FIGURES, Measured, nearest, of_sharing, of_ways
from diffbench.matrix import loading
from diffbench.stages import drawing, training_loop
from diffbench.stages.compiling import MARGIN, Compiling
from tests.conftest import REGISTRY

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile on a CPU needs a C++ compiler")


MEASURED = tuple(Measured(kind=kind, way=way, parameters=parameters, gain=gain, seconds=seconds) for kind in ("train", "sample") for way, parameters, gain, seconds in (
    ("graphs", 200_000, 4.0, 2.0), ("graphs", 30_000_000, 1.1, 2.0), ("on", 200_000, 1.5, 60.0), ("on", 30_000_000, 1.5, 60.0)))


class Network(torch.nn.Linear):
    """Of a size; notes how it is compiled."""

    def __init__(self, parameters=200_000):
        super().__init__(parameters, 1, bias=False, device="meta")
        self.modes = []

    def compile(self, mode):
        self.modes.append(mode)


@dataclass
class Model:
    network: Network = field(default_factory=Network)
    is_reused: bool = False
    replays: int = 0

    def replay(self, device):
        self.replays += 1


def asked(**given):
    return Compiling(**{"kind": "train", "asked": "auto", "device": CUDA, "measured": MEASURED} | given)


@pytest.mark.parametrize("kind", ["train", "sample"])
@pytest.mark.parametrize(("parameters", "way", "gain", "seconds"), [(100_000, "graphs", 4.0, 2.0), (50_000_000, "on", 1.5, 60.0)])
def test_the_way_that_was_measured_to_pay_is_taken_where_it_saves_more_than_it_costs(kind, parameters, way, gain, seconds):
    """Saved: left (1 - 1/gain); the bound is where that is the margin times the cost, on either side of it by one percent."""
    bound = MARGIN * seconds / (1 - 1 / gain)
    for left, expected in ((1.01 * bound, way), (0.99 * bound, None)):
        model, compiling = Model(Network(parameters)), asked(kind=kind)
        compiling.begin(model)
        compiling.look(model, seconds=1e6, share=5)       # the first piece has warmed up and counts for nothing
        assert not compiling.reason and compiling.way is None
        compiling.look(model, seconds=left / 4, share=4)
        compiling.look(model, seconds=1e6, share=1e6)     # once decided it stays
        assert compiling.way == expected and f"{left:.0f} s were left" in compiling.reason
        assert len(model.network.modes) == (expected == "on") and model.replays == (expected == "graphs" and kind == "sample")


def test_a_device_that_was_not_measured_decides_nothing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Imaginary 1")
    compiling = asked(measured=None)
    compiling.look(Model(), seconds=1e9, share=1e9)
    assert compiling.way is None and "has not been measured on this device" in compiling.reason
    compiling = asked(kind="sample", measured=tuple(m for m in MEASURED if m.kind == "train"))
    for _ in range(3):
        compiling.look(Model(), seconds=1e9, share=1e9)
    assert compiling.way is None and "for no network was it measured" in compiling.reason


def test_the_figures_that_ship_can_be_read():
    """What the days on GPUs measured; every gain is of a network that was there."""
    for device in json.loads(FIGURES.read_text()):
        assert all(m.gain > 0 and m.seconds >= 0 and m.parameters > 0 for m in of_ways(device))
        assert all(m.gain > 0 and m.workers >= 1 and m.parameters > 0 for m in of_sharing(device))
    assert nearest(MEASURED, 2_000_000).parameters == 200_000 and nearest(MEASURED, 3_000_000).parameters == 30_000_000 and nearest((), 1) is None


def test_graphs_of_the_compiler_are_for_sampling_on_cuda_alone_and_their_output_is_not_kept():
    for kind, device, mode in (("sample", CUDA, "reduce-overhead"), ("train", CUDA, "default"), ("sample", CPU, "default")):
        model, compiling = Model(), asked(kind=kind, asked="on", device=device)
        compiling.begin(model)
        assert model.network.modes == [mode] and model.is_reused == (mode == "reduce-overhead")
        assert compiling.facts() == {"compiled": True, "compile_way": "on", "compile_reason": "run.compile is on"}


@pytest.mark.parametrize(("kind", "given", "replayed", "why"), [
    ("train", {}, True, "run.compile is graphs"), ("sample", {}, True, "run.compile is graphs"), ("train", {"device": CPU}, False, "there are no CUDA graphs on cpu"),
    ("train", {"processes": 2}, False, "2 processes share the work")])
def test_graphs_are_recorded_where_there_are_any(kind, given, replayed, why):
    model, compiling = Model(), asked(kind=kind, asked="graphs", **given)
    compiling.begin(model)
    assert compiling.facts() == {"compiled": replayed, "compile_way": "graphs" * replayed, "compile_reason": why}
    assert compiling.is_replayed is replayed and model.replays == (replayed and kind == "sample"), "a training records its whole step itself"


@pytest.mark.parametrize(("wanted", "given", "why"), [
    ("off", {}, "run.compile is off"), ("auto", {"device": CPU}, "not on its own on cpu"),
    ("auto", {"is_deterministic": True}, "run.deterministic asks for the same bits"), ("auto", {"processes": 2}, "2 processes share the work")])
def test_where_it_is_not_for_the_clock_to_say_it_never_is(wanted, given, why):
    model, compiling = Model(), asked(asked=wanted, **given)
    compiling.begin(model)
    for _ in range(5):
        compiling.look(model, seconds=1e9, share=1e9)
    assert model.network.modes == [] and compiling.facts() == {"compiled": False, "compile_way": "", "compile_reason": compiling.reason} and why in compiling.reason


def test_work_that_is_over_is_not_decided_upon():
    compiling = asked(kind="sample")
    compiling.look(Model(), seconds=1e9, share=0)
    assert compiling.facts()["compile_reason"] == "the work was over before its length was known"


@pytest.mark.slow
@needs_compiler
def test_a_compiled_network_is_the_same_network():
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "sample": {"count": 6}, "train": {"steps": 4, "batch_size": 8}, "axes": {
        "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": {"pndm": {"steps": 5}}, "conditioning": "film"}}
    cell, split = loading.load(content, REGISTRY).cells[0], REGISTRY.create("dataset", "digits").load()["train"]
    plain = training_loop.train(cell, split, CPU)
    compiled = training_loop.train(cell, split, CPU, compiling=asked(asked="on", device=CPU))
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4) and list(compiled.weights) == list(plain.weights)
    assert all(torch.allclose(compiled.weights[name], plain.weights[name], atol=1e-4) for name in plain.weights)

    model, helpers = training_loop.build(cell, CPU).eval(), drawing.helpers_for(cell, CPU)
    model.load_state_dict(plain.weights)
    cond, _ = drawing.asked_for(cell)
    expected = drawing.draw(cell, model, cond, helpers, CPU, range(6))
    asked(kind="sample", asked="on", device=CPU).begin(model)
    assert model.network._compiled_call_impl is not None, "torch keeps the compiled call there"
    assert torch.allclose(drawing.draw(cell, model, cond, helpers, CPU, range(6)), expected, atol=1e-4)


def test_the_matrix_says_what_is_asked():
    content = {"diffbench": 1, "dataset": "digits", "axes": {"backbone": "unet", "scheduler": "ddim"}}
    assert loading.load(content, REGISTRY).run.compile == "auto" and loading.load(content | {"run": {"compile": "off"}}, REGISTRY).run.compile == "off"
    with pytest.raises(diffbench.MatrixError, match="compile"):
        loading.load(content | {"run": {"compile": "maybe"}}, REGISTRY)


@pytest.mark.parametrize("is_reused", [False, True])
def test_output_that_will_be_overwritten_is_copied(is_reused):
    content = {"diffbench": 1, "dataset": "digits", "metrics": [], "axes": {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": "ddim"}}
    model, outputs = training_loop.build(loading.load(content, REGISTRY).cells[0], CPU), []
    model.network.register_forward_hook(lambda module, given, out: outputs.append(out))
    model.is_reused = is_reused
    with torch.no_grad():
        eps = model.denoise(torch.ones(1, 1, 8, 8), 0.5, None, torch.zeros(1, dtype=torch.bool)).eps
    assert (eps.data_ptr() != outputs[0].data_ptr()) is is_reused and torch.equal(eps, outputs[0])
