"""What the import of a plug-in may and may not do to everybody else, and which plug-ins a worker imports."""

import json
import random
import subprocess
import sys

import numpy
import pytest
import torch

import diffbench
from diffbench.errors import BrokenComponent, DiffbenchError
from diffbench.planning.stage import Stage
from diffbench.registry import describing, loading, loose_files
from diffbench.registry.global_state import GlobalState
from diffbench.registry.registry import Registry, load_registry
from diffbench.stages.stage_imports import StageImports
from tests.registry.test_admission import HOOKS, installed, said  # noqa: F401  a fixture
from tests.registry.test_registry import SCHEDULER

REGISTER = SCHEDULER.replace("@dataclass", "@diffbench.register\n@dataclass")


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch):
    monkeypatch.setattr(loading, "_changed", [])
    monkeypatch.setattr("diffbench.registry.registry._session", {})
    monkeypatch.setattr(loose_files, "_folders", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(loose_files.PREFIX) or name in ("neighbour", "helped"):
            del sys.modules[name]


def silu(input, inplace=False):
    return input


CHANGES = {
    "torch's default dtype from torch.float32 to torch.float64": (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
    "torch's default device from cpu to meta": (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
    "torch's gradient mode from True to False": (lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True)),
    "torch's number of threads from 1 to 2": (lambda: torch.set_num_threads(2), lambda: torch.set_num_threads(1)),
    "torch's deterministic algorithms": (lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False)),
    "torch's precision of float32 products": (lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest")),
    "torch's anomaly mode": (lambda: torch.autograd.set_detect_anomaly(True), lambda: torch.autograd.set_detect_anomaly(False)),
    "torch's autocast": (lambda: torch.set_autocast_enabled("cpu", True), lambda: torch.set_autocast_enabled("cpu", False)),
    "torch's flushing of denormal numbers": (lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False)),
    "the state of torch's global generator": (lambda: torch.rand(1), lambda: None),
    "torch.backends.cudnn.benchmark from False to True": (lambda: setattr(torch.backends.cudnn, "benchmark", True),
                                                          lambda: setattr(torch.backends.cudnn, "benchmark", False)),
    "numpy's handling of floating-point errors": (lambda: numpy.seterr(all="raise"), lambda: numpy.seterr(all="warn")),
    "torch's hooks of all modules": (lambda: HOOK.append(torch.nn.modules.module.register_module_forward_hook(print)), lambda: HOOK.pop().remove()),
}
HOOK = []


@pytest.mark.parametrize("words", CHANGES)
def test_every_switch_that_numbers_depend_on_is_compared(words):
    change, back = CHANGES[words]
    generator = torch.get_rng_state()
    state = GlobalState()
    assert state.changes() == []
    try:
        change()
        assert any(found.startswith(words) for found in state.changes()), state.changes()
    finally:
        back()
        torch.set_rng_state(generator)


@pytest.mark.parametrize(("holder", "name", "value", "words"), [
    (torch.nn.functional, "silu", silu, "the function torch.nn.functional.silu"), (torch, "randn", silu, "the function torch.randn"),
    (torch.nn.Module, "__call__", silu, "the function torch.nn.modules.module.Module.__call__"),
    (torch.nn.Conv2d, "forward", silu, "the function torch.nn.modules.conv.Conv2d.forward"),
    (torch.Tensor, "add", silu, "the function torch.Tensor.add"), (torch.optim.AdamW, "step", silu, "the function torch.optim.adamw.AdamW.step"),
    (torch.nn.functional.silu, "__code__", silu.__code__, "the code of torch.nn.functional.silu"),
    (torch.nn.functional, "sum", silu, "the function torch.nn.functional.sum"),
], ids=range(8))
def test_every_function_that_networks_call_is_compared(monkeypatch, holder, name, value, words):
    state = GlobalState()
    with monkeypatch.context() as patch:
        patch.setattr(holder, name, value, raising=False)
        assert words in state.changes()
    assert state.changes() == []


def test_generators_that_begin_at_random_are_not_compared():
    state = GlobalState()
    random.random()
    numpy.random.rand()
    assert state.changes() == []


def test_a_loose_file_that_changes_the_state_is_refused_and_nothing_is_planned_after_it(tmp_path):
    (tmp_path / "wide.py").write_text("import torch\ntorch.set_default_dtype(torch.float64)\n")
    try:
        with pytest.raises(BrokenComponent, match=r"--plugin .*wide\.py cannot be used: it changes what other components compute with: torch's default dtype from "
                                                  r"torch\.float32 to torch\.float64.*Set it inside the functions that need it, and put it back"):
            load_registry([str(tmp_path / "wide.py")])
    finally:
        torch.set_default_dtype(torch.float32)
    with pytest.raises(BrokenComponent, match=r"nothing is planned: --plugin .*wide\.py changes what other components compute with"):
        diffbench.plan({"diffbench": 1})


def test_hooks_that_change_the_state_are_named_and_nothing_is_planned(installed, monkeypatch):  # noqa: F811
    monkeypatch.delitem(sys.modules, "loud_hooks", raising=False)
    try:
        registry = installed("loud-pack", "[diffbench]\nhooks = loud_hooks\n", {"loud_hooks": "import torch\ntorch.manual_seed(7)\n"})()
    finally:
        torch.seed()
    assert "cannot be loaded: StateChanged: it changes what other components compute with: the state of torch's global generator" in said(registry, "loud-pack")
    with pytest.raises(BrokenComponent, match="nothing is planned: plug-in loud-pack:hooks"):
        loading.refuse_changes()


def test_a_component_that_changes_the_state_cannot_be_used(installed, monkeypatch):  # noqa: F811
    registry = installed("wide-pack", "[diffbench.scheduler]\ntwin = wide_mod:Twin\n", {
        "wide_mod": "import torch\ntorch.nn.functional.relu6_ = torch.nn.functional.relu6\ntorch.nn.functional.relu6 = abs\n" + SCHEDULER})()
    before = torch.nn.functional.relu6
    try:
        with pytest.raises(BrokenComponent, match=r"'wide-pack\.twin' of wide-pack 1\.0 cannot be used.*the function torch\.nn\.functional\.relu6"):
            registry.create("scheduler", "wide-pack.twin")
    finally:
        torch.nn.functional.relu6 = before


def test_what_is_loaded_together_is_checked_once_more():
    state = GlobalState()
    torch.set_default_dtype(torch.float64)
    try:
        with pytest.raises(BrokenComponent, match=r"one of the plug-ins that were loaded \(a-pack 1\.0, b\.py\) changes what other components compute with"):
            loading.check(state, {"b.py", "a-pack 1.0"})
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("ending", ["import sys\nsys.exit(0)\n", "raise SystemExit\n", "raise GeneratorExit\n", "import pytest\npytest.skip('x', allow_module_level=True)\n",
                                    "class Bye(BaseException):\n    pass\nraise Bye\n"], ids=range(5))
def test_an_import_cannot_end_the_process(tmp_path, installed, monkeypatch, ending):  # noqa: F811
    (tmp_path / "ends.py").write_text(ending)
    with pytest.raises(BrokenComponent, match=r"--plugin .*ends\.py failed with ImportError: it ends the process that imports it \(\w+: .*\); put what it does as a "):
        load_registry([str(tmp_path / "ends.py")])
    for module in ("end_hooks", "end_mod"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    registry = installed("end-pack", "[diffbench]\nhooks = end_hooks\n[diffbench.scheduler]\nend = end_mod:End\n", {"end_hooks": ending, "end_mod": ending})()
    assert "plug-in end-pack:hooks (end_hooks) cannot be loaded: ImportError: it ends the process that imports it" in said(registry, "end-pack")
    with pytest.raises(BrokenComponent, match="'end-pack.end' of end-pack 1.0 cannot be used"):
        registry.create("scheduler", "end-pack.end")
    assert registry.create("scheduler", "ddim").steps == 50


def test_what_an_import_prints_goes_to_standard_error_without_control_characters(tmp_path):
    (tmp_path / "noisy.py").write_text("import os, sys\nprint('\\x1b]0;title\\x07 hello')\nprint('\\x1b[2Jerror', file=sys.stderr)\nos.write(1, b'raw')\n"
                                       "sys.stdout.buffer.write(b'bytes\\n')\nprint('\\u202eleft')\n")
    done = subprocess.run([sys.executable, "-m", "diffbench", "list", "scheduler", "--json", "--plugin", str(tmp_path / "noisy.py")],
                          capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["components"]
    assert all(word in done.stderr for word in ("title", "hello", "error", "raw", "bytes", "left")) and not set("\x1b\x07\u202e") & set(done.stderr)


def test_a_run_that_a_plug_in_starts_while_it_is_imported_is_refused(tmp_path):
    with pytest.raises(DiffbenchError, match=r"a run is called while --plugin script\.py is imported; put the call under `if __name__"), \
            loading.importing("--plugin script.py"):
        loading.refuse_while_importing("a run")
    loading.refuse_while_importing("a run")


def write(folder, **modules):
    folder.mkdir(exist_ok=True)
    for name, text in modules.items():
        (folder / f"{name}.py").write_text(text)
    return str(folder / "mine.py")


def test_a_loose_file_imports_the_file_beside_it_which_counts_as_its_code(tmp_path):
    path = write(tmp_path / "a", mine="from neighbour import FACTOR\n" + REGISTER.replace("return x_t", "return FACTOR * x_t"), neighbour="FACTOR = 2\n",
                 json="raise RuntimeError('no module of the standard library is hidden')\n")
    registry = load_registry([path])
    identity = describing.identity(registry.create("scheduler", "twin"), registry, ("sampling",))
    write(tmp_path / "a", neighbour="FACTOR = 3\n")
    assert describing.identity(registry.create("scheduler", "twin"), registry, ("sampling",))["code"] != identity["code"]
    other = write(tmp_path / "b", mine="def f():\n    import neighbour\n", neighbour="FACTOR = 5\n")
    with pytest.raises(BrokenComponent, match=r"--plugin .*b/mine\.py imports neighbour, and .*a/neighbour\.py of another plug-in has that name too, which is not "):
        load_registry([other])
    alone = write(tmp_path / "c", mine="VALUE = 1\n", neighbour="FACTOR = 7\n")
    load_registry([alone])
    assert {getattr(m, "VALUE", 0) for n, m in sys.modules.items() if n.startswith("diffbench_plugin_mine")} == {0, 1}, "two files of one name are two modules"


def test_two_loose_files_that_register_one_name_are_refused(tmp_path):
    with pytest.raises(BrokenComponent, match=r"--plugin .*b/mine\.py failed with BrokenComponent: the scheduler 'twin' is registered already, by .*a/mine\.py: "):
        load_registry([write(tmp_path / "a", mine=REGISTER), write(tmp_path / "b", mine=REGISTER)])


def test_a_worker_imports_what_the_components_of_its_stage_need(tmp_path, installed):  # noqa: F811
    used, unused = write(tmp_path / "a", mine=REGISTER), write(tmp_path / "b", mine="VALUE = 1\n")
    make = installed("many-hooks", "[diffbench]\nrows = row_hooks\nwrap = wrap_hooks\noffer = offer_hooks\n", {
        "row_hooks": HOOKS + "@hookimpl\ndef diffbench_row_added(row): pass\n",
        "wrap_hooks": HOOKS + "@hookimpl(wrapper=True)\ndef diffbench_run_stage():\n    return (yield)\n",
        "offer_hooks": HOOKS + "from diffbench import Ref\n@hookimpl\ndef diffbench_components(kinds):\n"
                               "    return [Ref(kind='spacing', name='odd', target='m:Odd', distribution='many-hooks')]\n"})
    load_registry([used, unused])
    imports = StageImports(make())

    def of(task):
        return imports.of(Stage("sample", "0" * 64, {}, task, {}, ""))
    ddim, twin = {"component": "ddim", "options": {}}, {"component": "twin", "options": {}}
    assert of({"cell": {"scheduler": ddim}}) == {"plugins": [], "hooks": ["many-hooks:wrap"]}
    assert of({"cell": {"scheduler": twin}}) == {"plugins": [used], "hooks": ["many-hooks:wrap"]}
    assert of({"scheduler": {"component": "ddim", "options": {"inner": [twin]}}})["plugins"] == [used]
    assert of({"cell": {"spacing": {"component": "many-hooks.odd", "options": {}}}})["hooks"] == ["many-hooks:offer", "many-hooks:wrap"]
    in_worker = Registry(["many-hooks:wrap"])
    assert {in_worker.hooks.get_name(p) for p in in_worker.plugins()} >= {"many-hooks:wrap"} and "many-hooks:rows" not in map(in_worker.hooks.get_name, in_worker.plugins())


MAIN = "import diffbench\n" + REGISTER


@pytest.mark.parametrize(("text", "line"), [
    (MAIN, None), (MAIN + "if __name__ == '__main__':\n    diffbench.run('m.yaml')\n", None), (MAIN + "STEPS = int('3')\nimport sys\nsys.path.append('x')\n", None),
    ("try:\n    import a\nexcept ImportError:\n    a = None\n", None), ("import diffbench\ndiffbench.run('m.yaml')\n", 2), ("import diffbench\nr = diffbench.run('m.yaml')\n", 2),
    ("for x in range(3):\n    print(x)\n", 1), ("if True:\n    print(1)\n", 2), ("x = 1\nwith open('f') as f:\n    pass\n", 2),
], ids=range(9))
def test_a_script_that_does_work_when_it_is_imported_is_told_from_one_that_does_not(text, line):
    assert loose_files.working_line(text.encode()) == line


@pytest.mark.parametrize(("text", "words"), [
    (MAIN + "diffbench.plan(M)\n", "scheduler twin is registered in the script "),
    (None, "Twin is defined in __main__, whose source cannot be read: write the class into a file of its own"),
])
def test_a_component_of_a_script_or_of_standard_input_is_refused_with_what_to_do(tmp_path, text, words):
    matrix = {"diffbench": 1, "name": "m", "dataset": {"gaussian_mixture": {}}, "extractor": "pixels", "axes": {
        "backbone": {"unet": {"channels": 8, "multipliers": [1], "blocks": 1}}, "scheduler": "twin"}, "metrics": ["sliced_wasserstein"]}
    (tmp_path / "script.py").write_text((text or MAIN + "diffbench.plan(M)\n").replace("M)", f"{matrix!r}, device='cpu')"))
    with open(tmp_path / "script.py") as file:
        done = subprocess.run([sys.executable, *([str(tmp_path / "script.py")] if text else ["-"])], stdin=file, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and words in done.stderr.splitlines()[-1]
    (tmp_path / "script.py").write_text(MAIN + f"if __name__ == '__main__':\n    print(len(diffbench.plan({matrix!r}, device='cpu').cells))\n")
    done = subprocess.run([sys.executable, str(tmp_path / "script.py")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and done.stdout == "1\n", done.stderr


def test_classes_that_no_worker_can_know_are_named():
    with pytest.raises(BrokenComponent, match=r"scheduler x is registered in a notebook, a console or standard input, and workers cannot import it: write its class"):
        loose_files.file_for_workers(type("X", (), {"__module__": "nowhere_at_all"}), "scheduler x")
    with pytest.raises(BrokenComponent, match=r"scheduler x is registered in tests\.registry\.test_loading, a module of a package, and workers do not import it"):
        loose_files.file_for_workers(type("X", (), {"__module__": __name__}), "scheduler x")
