"""A stage that a package brings, and components that need it before others: from the plan to the row."""

import json
import sys

import jsonschema
import pytest
import safetensors.torch
import torch
from click.testing import CliRunner

import diffbench
from diffbench.cli import cli
from diffbench.contracts.needs import Need, needs_of
from diffbench.matrix import loading
from diffbench.matrix.schema import matrix_schema
from diffbench.planning.stage_graph import make_plan
from diffbench.registry.describing import Names
from diffbench.registry.registry import Registry
from diffbench.stages.stage_imports import StageImports
from diffbench.store import contents, stage_kinds
from diffbench.store.artefacts import Store
from diffbench.store.garbage import needs_of_runs
from diffbench.store.stage_kinds import StageKind
from tests.registry.test_registry import distribution

HOOKS = """
from diffbench import StageKind, hookimpl
def a_picture(tensors, name):
    if tensors['average'].ndim != 3:
        raise ValueError(f'average in {name} is no picture')
@hookimpl
def diffbench_stage_kinds():
    return [StageKind(name='average', does='mean_stage:average', version=3, files={'average.safetensors': a_picture})]
"""
STAGE = """
import os, pathlib, signal
import safetensors.torch
def average(context):
    killing = pathlib.Path(os.environ.get('MEAN_KILLS', '/nowhere'))
    if killing.exists():
        killing.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    train = context.component('dataset').load()['train'].in_memory()
    picture = train.images.float().mean(0) * context.task['scale'] / 255
    return {'average.safetensors': safetensors.torch.save({'average': picture})}
"""
PARTS = """
from dataclasses import dataclass, replace
import torch
import diffbench
def need(recipe, scale):
    return diffbench.Need(stage='average', parts=(recipe.dataset,), settings={'scale': scale})
class Network(torch.nn.Module):
    def __init__(self, picture):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(()))
        self.register_buffer('picture', picture)
    def forward(self, x, c_noise, signals):
        return self.gain * (x - self.picture)
@dataclass(frozen=True, kw_only=True)
class Centred(diffbench.Backbone):
    '''The difference to the average picture.'''
    scale: float = 1.0  # of the picture
    picture: tuple[float, ...] = ()  # flat, of the stage
    signal_width = 4
    def needs(self, stage, recipe):
        return (need(recipe, self.scale),) if stage in ('train', 'sample', 'throughput') else ()
    def given(self, stage, read):
        if stage not in ('train', 'sample', 'throughput'):
            return self
        return replace(self, picture=tuple(read('average', 'average.safetensors')['average'].flatten().tolist()))
    def build(self, io):
        return Network(torch.tensor(self.picture or [0.0] * (io.channels * io.height * io.width)).view(io.shape))
@dataclass(frozen=True, kw_only=True)
class Brightness(diffbench.DenoiserMetric):
    '''The mean of the average picture.'''
    brightness: float = 0.0  # of the stage
    def needs(self, stage, recipe):
        return (need(recipe, 1.0),) if stage == 'evaluate' else ()
    def why_not(self, cell):
        return None
    def given(self, stage, read):
        return replace(self, brightness=float(read('average', 'average.safetensors')['average'].mean()))
    def measure(self, model, progress=diffbench.silent):
        return {'': self.brightness}
"""
POINTS = "[diffbench]\nhooks = mean_hooks\n[diffbench.backbone]\ncentred = mean_parts:Centred\n[diffbench.metric]\nbrightness = mean_parts:Brightness\n"
MODULES = {"mean_hooks": HOOKS, "mean_stage": STAGE, "mean_parts": PARTS}
MATRIX = {"diffbench": 1, "name": "means", "dataset": "digits", "extractor": "pixels", "metrics": ["fid", "brightness"],
          "axes": {"backbone": {"centred": {"scale": [1.0, 2.0]}}, "conditioning": "none", "scheduler": {"ddim": {"steps": 2}}, "seed": [0, 1]},
          "train": {"steps": 1, "batch_size": 8, "precision": "float32"}, "sample": {"count": 4}, "throughput": "off"}


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder with the package, under development."""
    folder = tmp_path / "site"
    distribution(folder, "mean-pack", POINTS, MODULES)
    (folder / "mean_pack-1.0.dist-info" / "direct_url.json").write_text('{"url": "file:///", "dir_info": {"editable": true}}')
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))         # of workers
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    before = dict(stage_kinds.STAGE_KINDS)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield folder
    stage_kinds.STAGE_KINDS.clear()
    stage_kinds.STAGE_KINDS.update(before)


def plan(**changes):
    registry = Registry()
    assert not registry.problems
    return make_plan(loading.load(MATRIX | changes, registry), registry, "cpu")


def named(made, name):
    return {key: stage for key, stage in made.needed().items() if stage.name == name}


def test_the_stage_is_made_once_for_all_that_need_the_same(site):
    made = plan()
    (one, plain), (two, doubled) = sorted(named(made, "average").items(), key=lambda item: item[1].task["scale"])
    assert (plain.task["scale"], doubled.task["scale"]) == (1.0, 2.0) and plain.identity["schema"] == 3 and len(plain.identity["code"]) == 64
    assert plain.label == "digits" and not plain.parents and plain.task["dataset"]["component"] == "digits"
    for planned in made.cells:
        key = one if planned.cell.backbone.scale == 1.0 else two
        train, sample = (made.stages[planned.stages[role]] for role in ("train", "sample"))
        assert train.parents == {"average": key} and train.identity["average"] == key
        assert sample.parents == {"train": train.key, "average": key}
        assert made.stages[planned.stages["evaluate:brightness"]].parents == {"train": train.key, "average": one}
    assert list(made.needed()).index(one) < list(made.needed()).index(made.cells[0].stages["train"])


def test_an_edit_of_its_code_makes_its_dependants_stale_and_no_other(site):
    before = plan()
    (site / "mean_stage.py").write_text(STAGE.replace("/ 255", "/ 256"))
    after = plan()
    same = {stage.name for key, stage in before.needed().items() if key in after.needed()}
    changed = {stage.name for key, stage in before.needed().items() if key not in after.needed()}
    assert same == {"extractor", "reference", "evaluate"} and changed == {"average", "train", "sample", "features", "evaluate"}
    assert [key for key in before.floors.values() if key in after.floors.values()] == list(before.floors.values())
    (site / "mean_stage.py").write_text(STAGE + "# a comment\n")
    assert plan().stages.keys() == before.stages.keys()


def test_workers_of_it_and_of_what_needs_it_load_its_package(site):
    made = plan()
    imports, cell = StageImports(made.registry), made.cells[0]
    needing = [made.stages[key] for key in (next(iter(named(made, "average"))), cell.stages["train"], cell.stages["sample"])]
    assert [imports.of(stage)["hooks"] for stage in needing] == [["mean-pack:hooks"]] * 3
    assert imports.of(made.stages[cell.stages["features"]])["hooks"] == []
    assert made.registry.stage_kinds.function("average").__module__ == "mean_stage"


def test_a_stage_whose_module_cannot_be_imported_says_so(site, monkeypatch):
    (site / "mean_stage.py").write_text("import nowhere_to_be_found\n")
    with pytest.raises(diffbench.BrokenComponent, match=r"the stage average of mean-pack:hooks cannot be done: importing mean_stage:average failed with "
                                                        r"ModuleNotFoundError: No module named 'nowhere_to_be_found'; mean-pack does not declare it"):
        Registry().stage_kinds.function("average")


@pytest.mark.slow
def test_a_run_does_it_once_goes_on_after_a_kill_and_the_row_depends_on_it(site, tmp_path, monkeypatch):
    killing, store, out = tmp_path / "kills", Store(tmp_path / "home"), tmp_path / "out"
    killing.touch()
    monkeypatch.setenv("MEAN_KILLS", str(killing))
    matrix = MATRIX | {"axes": MATRIX["axes"] | {"backbone": "centred"}, "metrics": ["brightness"], "run": {"timeout": {"average": "60s"}}}
    first = diffbench.run(matrix, out=out, device="cpu")
    assert first.counts.get("ok", 0) == 0 and not killing.exists()
    assert diffbench.load(out)["reason"].str.startswith("average: ").all()
    assert diffbench.run(matrix, out=out, device="cpu").counts == {"ok": 2}
    stages = json.loads((out / "plan.json").read_bytes())["stages"]
    key, = (key for key, stage in stages.items() if stage["name"] == "average")
    assert len(list((store.root / "attempts" / key).iterdir())) == 2 and needs_of_runs(store, tmp_path).keys >= {key}
    picture = store.read_tensors("average", key, "average.safetensors")["average"]
    for train in (k for k, stage in stages.items() if stage["name"] == "train"):
        assert torch.equal(store.read_tensors("train", train, "weights.safetensors")["network.picture"], picture)
    expected = Registry().create("dataset", "digits").load()["train"].in_memory().images.float().mean(0) / 255
    assert diffbench.load(out)["brightness"].tolist() == [float(expected.mean())] * 2
    model = diffbench.load_model(out, "seed=0")
    again = diffbench.load_model(model.save(tmp_path / "saved"))
    assert torch.equal(again.network.picture, picture) and torch.equal(again.sample(2).images, model.sample(2).images)
    assert "average" in CliRunner().invoke(cli, ["watch", str(out), "--once"]).output
    with pytest.raises(ValueError, match=r"average in average\.safetensors is no picture"):
        contents.check_files("average", {"average.safetensors": safetensors.torch.save({"average": torch.zeros(2)})})


def test_settings_and_schema_know_its_name(site):
    made = plan(run={"timeout": {"average": "90s"}})
    assert made.matrix.run.limit("average") == 90.0
    with pytest.raises(diffbench.MatrixError, match=r"stages: train, .*, throughput, average"):
        plan(run={"timeout": {"averages": "90s"}})
    check = jsonschema.Draft202012Validator(matrix_schema(Registry()))
    for name, is_known in (("average", True), ("averages", False)):
        assert check.is_valid({"diffbench": 1, "run": {"timeout": {name: "90s"}}}) == is_known
    assert made.summary()["stages"]["average"] == 2


@pytest.mark.parametrize(("changes", "said"), [
    ({"name": "Average"}, "no stage can have the name 'Average': write a-z, digits and '_', at most 64, not 'all'"),
    ({"name": "all"}, "no stage can have the name 'all'"),
    ({"does": "mean_stage"}, "the stage average does 'mean_stage': write 'module:function'"),
    ({"version": 0}, "the stage average has version 0: write an integer >= 1"),
    ({"files": {"task.json": None}}, r"the stage average cannot write 'task.json': write the name of a \.json or \.safetensors file, and none of task\.json"),
    ({"files": {"../x.json": None}}, "the stage average cannot write '../x.json'"),
])
def test_a_stage_that_cannot_be_is_refused_at_birth(changes, said):
    with pytest.raises(ValueError, match=said):
        StageKind(**{"name": "average", "does": "m:f", "version": 1} | changes)


@pytest.mark.parametrize(("hooks", "said"), [
    (HOOKS.replace("'average',", "'train',"), "the stage 'train' of plug-in mean-pack:hooks is left out: there is one of that name already"),
    (HOOKS.replace("mean_stage:", "mean_stage."), "plug-in mean-pack:hooks is switched off: its hook diffbench_stage_kinds raised ValueError: the stage average does"),
    (HOOKS.replace("[StageKind", "['x', StageKind"), "its hook diffbench_stage_kinds gives diffbench.StageKinds, got 'x'"),
])
def test_an_offer_that_cannot_be_taken_is_left_out_with_a_sentence(site, hooks, said):
    (site / "mean_hooks.py").write_text(hooks)
    registry = Registry()
    assert said in registry.problems[0].message and registry.stage_kinds["train"].does.startswith("diffbench.")
    with pytest.raises(diffbench.BrokenComponent, match=r"mean-pack\.centred needs a stage that cannot be: no stage for components named 'average'.* Known: classifier, "):
        make_plan(loading.load(MATRIX, registry), registry, "cpu")


@pytest.mark.parametrize(("old", "new", "said"), [
    ("(need(recipe, self.scale),)", "(diffbench.Need(stage='train', name='teacher', recipe=recipe),)", "centred needs stages that need others without end"),
    ("(need(recipe, self.scale),)", "(diffbench.Need(stage='features', recipe=recipe),)", "centred needs the stage 'features' of a recipe: only 'train' is made of one"),
    ("(need(recipe, self.scale),)", "(need(recipe, 1.0), need(recipe, 2.0))", "centred needs another average than a component beside it"),
])
def test_needs_that_cannot_be_met_are_refused_in_the_plan(site, old, new, said):
    (site / "mean_parts.py").write_text(PARTS.replace(old, new))
    with pytest.raises(diffbench.BrokenComponent, match=said):
        plan()


def test_a_need_of_a_training_is_that_training(site):
    teacher = ("(diffbench.Need(stage='train', name='teacher', recipe=replace(recipe, backbone=replace(self, scale=0.0))),) "
               "if stage == 'train' and self.scale else ()")
    (site / "mean_parts.py").write_text(PARTS.replace("(need(recipe, self.scale),) if stage in ('train', 'sample', 'throughput') else ()", teacher))
    made = plan(axes=MATRIX["axes"] | {"backbone": {"centred": {"scale": [0.0, 2.0]}}})
    by_scale = {(planned.cell.backbone.scale, planned.cell.seed): made.stages[planned.stages["train"]] for planned in made.cells}
    for seed in (0, 1):
        assert by_scale[2.0, seed].parents == {"train:teacher": by_scale[0.0, seed].key} and not by_scale[0.0, seed].parents
    assert len(named(made, "train")) == 4


def test_needs_of_nested_components_are_theirs(site):
    registry = Registry()
    cell = loading.load(MATRIX, registry).cells[0]
    guided = registry.create("conditioning", "classifier_guidance", inner=registry.create("conditioning", "film"))
    assert [need.role for need in needs_of(guided, "sample", cell)] == ["noisy_classifier"] and not [*needs_of(guided, "train", cell)]
    assert Need(stage="train", name="teacher", recipe=cell).role == "train:teacher" and Names(registry).full(guided) == "classifier_guidance"
