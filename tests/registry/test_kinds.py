"""Kinds of component that a package adds: axes like any other, from the matrix to the tables."""

import json
import sys

import jsonschema
import pandas
import pytest
from click.testing import CliRunner

import diffbench
from diffbench.cli import cli
from diffbench.contracts.cell import component_kinds
from diffbench.matrix import loading
from diffbench.matrix.describing import describe_cell, rebuild_cell
from diffbench.matrix.schema import matrix_schema
from diffbench.planning.stage_graph import make_plan
from diffbench.registry.describing import Names
from diffbench.registry.kinds import BUILT_IN_KINDS, TAKEN, Kind
from diffbench.registry.registry import Registry
from diffbench.report import layout
from diffbench.report.notebook_files import module
from diffbench.report.reading import read
from diffbench.scaffold import new_package
from diffbench.testing.conformance import NO_CHECKS, checks, outcome
from tests.registry.test_registry import distribution

HOOKS = """
from diffbench import Kind, hookimpl
@hookimpl
def diffbench_kinds():
    return [Kind(name='codec', base='codec_parts:Codec', half='training', summary='data to latents', scaffold='codec_parts'),
            Kind(name='polish', base='codec_parts:Polish', half='sampling', summary='what is done to samples'),
            Kind(name='device', base='codec_parts:Device', half='sampling', summary='a name that the results have')]
"""
CODECS = """
from dataclasses import dataclass
import diffbench
class Codec(diffbench.Component):
    '''Data to latents.'''
    kind = 'codec'
class Polish(diffbench.Component):
    '''What is done to samples.'''
    kind = 'polish'
class Device(diffbench.Component):
    '''A name that the results have.'''
    kind = 'device'
@dataclass(frozen=True, kw_only=True)
class Whole(Codec):
    '''Pixels as they are.'''
    default_of_kind = True
@dataclass(frozen=True, kw_only=True)
class Pca(Codec):
    '''The first components.'''
    rank: int = 8  # how many
    whiten: bool = diffbench.sampling_option(False)  # when decoding
@dataclass(frozen=True, kw_only=True)
class Blur(Polish):
    '''A little blur.'''
    width: float = 1.0  # in pixels
    def why_not(self, cell):
        codec = cell.component('codec')
        return 'much blur is for pixels' if self.width > 2 and codec is not None and codec.component_name() == 'pca' else None
@dataclass(frozen=True, kw_only=True)
class Fast(Device):
    '''Fast.'''
"""
POINTS = ("[diffbench]\nhooks = codec_hooks\n[diffbench.codec]\nwhole = codec_parts:Whole\npca = codec_parts:Pca\n[diffbench.polish]\nblur = codec_parts:Blur\n"
          "[diffbench.device]\nfast = codec_parts:Fast\n")
AXES = {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "conditioning": "none", "scheduler": {"ddim": {"steps": 2}}}
CODEC = ["whole", {"pca": {"rank": [2, 4]}}]
BASE = {"diffbench": 1, "dataset": "digits", "extractor": "pixels", "metrics": ["fid", "memorisation"], "train": {"steps": 1, "batch_size": 8},
        "sample": {"count": 4}, "throughput": {"repeats": 3, "batch_size": 2}}


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The registry beside a package with two kinds."""
    distribution(tmp_path / "site", "codec-pack", POINTS, {"codec_hooks": HOOKS, "codec_parts": CODECS})
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))        # of workers
    for name in ("codec_hooks", "codec_parts"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return Registry()


def matrix(more=None, **changes):
    return {**BASE, "axes": {**AXES, **(more or {})}, **changes}


def cells(registry, more=None, only=(), **changes):
    return loading.load(matrix(more, **changes), registry, only=only).cells


def plan(registry, more=None, **changes):
    return make_plan(loading.load(matrix(more, **changes), registry), registry, "cpu")


def shown(found):
    return [None if (codec := cell.component("codec")) is None else (codec.component_name(), getattr(codec, "rank", None)) for cell in found]


def differing(one, other):
    """The roles of stages in which two cells differ."""
    return {role for role in one.stages if one.stages[role] != other.stages[role]}


def test_a_kind_multiplies_cells_as_others_do(registry):
    found = cells(registry, {"codec": CODEC, "polish": "blur"})
    assert shown(found) == [("whole", None), ("pca", 2), ("pca", 4)]
    assert list(found[1].components()) == [*component_kinds(), "codec", "polish"]
    assert list(found[1].extra) == ["codec"] and list(found[1].sampling_extra) == ["polish"]
    names = Names(registry)
    assert [rebuild_cell(describe_cell(cell, names), registry) for cell in found] == list(found)


def test_a_kind_that_is_not_named_takes_no_place(registry):
    found, = cells(registry)
    assert found.extra == found.sampling_extra == {} and found.component("codec") is None
    with_it, without = plan(registry), make_plan(loading.load(matrix(), Registry([])), Registry([]), "cpu")
    assert with_it.stages.keys() == without.stages.keys() and with_it.cells[0].cell_id == without.cells[0].cell_id


def test_a_kind_is_part_of_the_keys_of_its_half_and_of_what_follows(registry):
    whole, two, four = plan(registry, {"codec": CODEC}).cells
    bare, blurred = plan(registry).cells[0], plan(registry, {"polish": "blur"}).cells[0]
    of_samples = {"sample", "features", "evaluate:fd_pixels", "evaluate:near_copy_share", "throughput:sampling"}
    assert whole.stages == bare.stages and whole.cell_id == bare.cell_id, "the default of a kind is no key material"
    assert differing(bare, two) == differing(two, four) == set(bare.stages) == of_samples | {"train", "throughput:training"}
    assert differing(bare, blurred) == of_samples and len({bare.cell_id, two.cell_id, four.cell_id, blurred.cell_id}) == 4
    white, = plan(registry, {"codec": {"pca": {"rank": 2, "whiten": True}}}).cells
    assert differing(two, white) == of_samples, "an option of sampling alone shares the training"


def test_what_a_training_sees_is_in_its_task_and_labels_name_the_kind(registry):
    made = plan(registry, {"codec": {"pca": {"rank": 2, "whiten": [False, True]}}, "polish": "blur"}, throughput="off", metrics=[])
    train, = (stage for stage in made.stages.values() if stage.name == "train")
    assert train.task["recipe"]["codec"]["options"] == {"rank": 2, "whiten": False} and "polish" not in train.task["recipe"]
    assert "codec-pack.pca(rank=2)" in train.label and "blur" not in train.label
    labels = {stage.label for stage in made.stages.values() if stage.name == "sample"}
    assert len(labels) == 2 and all("codec-pack.pca(rank=2" in label and "codec-pack.blur" in label for label in labels)


def test_components_see_one_another_in_a_cell(registry):
    made = plan(registry, {"codec": CODEC, "polish": {"blur": {"width": [1, 3]}}})
    assert [planned.skipped for planned in made.cells] == [None, None, None, "much blur is for pixels", None, "much blur is for pixels"]


def test_rules_and_single_cells_name_a_kind(registry):
    axes = {"codec": CODEC}
    assert shown(cells(registry, axes, exclude=[{"codec": {"pca": {"rank": 4}}}])) == [("whole", None), ("pca", 2)]
    assert shown(cells(registry, axes, exclude=[{"codec.rank": 4}])) == [("whole", None), ("pca", 2)]
    assert shown(cells(registry, axes, only=["codec=pca", "codec.rank=2"])) == [("pca", 2)]
    assert shown(cells(registry, axes, include=[{"codec": {"pca": {"rank": 9}}}]))[3:] == [("pca", 9)]
    assert shown(cells(registry, include=[{"codec": "pca"}])) == [None, ("pca", 8)]
    assert shown(cells(registry, together=[{"codec": ["whole", "pca"], "seed": [1, 2]}])) == [("whole", None), ("pca", 8)]
    assert shown(cells(registry, {"codec": "pca"}, together=[{"codec.rank": [3, 5], "seed": [1, 2]}])) == [("pca", 3), ("pca", 5)]


@pytest.mark.parametrize(("changes", "said"), [
    ({"axes": {**AXES, "codec": "pcb"}}, r"no codec named 'pcb'\. Known: codec-pack\.pca, codec-pack\.whole"),
    ({"axes": {**AXES, "codec": {"pca": {"rang": 1}}}}, r"unknown option 'rang'\. Did you mean 'rank'\?"),
    ({"axes": {**AXES, "codek": "pca"}}, r"there is no axis 'codek'\. Did you mean 'codec'\? Axes are: dataset, .*, codec, polish"),
    ({"codec": "pca"}, r"unknown key 'codec'.*'codec' goes under axes"),
    ({"together": [{"codec.rank": [1, 2], "seed": [1, 2]}]}, r"no codec is named, so there is none whose options could change: name one under axes"),
    ({"together": [{"codec": ["whole", "pca"], "seed": [1, 2]}], "include": [{"seed": 5}]}, r"an included cell must also name its codec"),
    ({"report": {"rows": ["codecs"]}}, r"there is no column 'codecs' to lay a table out by\. Did you mean 'codec'\?"),
])
def test_mistakes_get_the_usual_sentences(registry, changes, said):
    with pytest.raises(diffbench.MatrixError, match=said):
        loading.load(matrix(**changes), registry)


def test_the_schema_knows_a_kind(registry):
    check = jsonschema.Draft202012Validator(matrix_schema(registry))
    assert check.is_valid(matrix({"codec": CODEC}, exclude=[{"codec": "pca", "codec.rank": 4}], include=[{"codec": "whole"}]))
    assert not check.is_valid(matrix({"codec": "pcb"})) and not check.is_valid(matrix({"codec": {"pca": {"rang": 1}}}))


def test_list_show_and_check_know_a_kind(registry):
    def said(*line):
        done = CliRunner().invoke(cli, line)
        assert done.exit_code == 0, done.output
        return done.output
    assert "codec  (data to latents)" in said("list", "codec") and "  codec-pack.pca(rank=8, " in said("list", "codec")
    assert "whiten: true or false, default False  [sampling only: cells that differ in it share one training]" in said("show", "codec", "pca")
    assert NO_CHECKS.format("codec") in said("check", "codec-pack.pca")
    outcomes = [outcome(check) for check in checks(registry, registry.find("codec", "pca"))]
    assert {found.status for found in outcomes[:-1]} == {"passed"} and outcomes[-1].detail.startswith("the kind 'codec' has no checks but those of form")


def test_a_new_package_of_the_kind_comes_with_a_matrix(registry, tmp_path):
    templates = tmp_path / "site" / "templates"
    templates.mkdir()
    for file in ("__init__.py", "codec.py", "test_codec.py"):
        (templates / file).write_text("class Newcomer: ...\n")
    (tmp_path / "site" / "codec_hooks.py").write_text(HOOKS.replace("scaffold='codec_parts'", "scaffold='templates'"))
    sys.modules.pop("codec_hooks")
    files = new_package(Registry(), "codec", "very-small")
    assert "  codec: [very_small, codec-pack.whole]\n" in files["matrix.yaml"] and files["very_small.py"] == "class VerySmall: ...\n"


@pytest.mark.parametrize(("name", "half", "axis", "said"), [
    ("Codec", "training", True, r"no kind can have the name 'Codec': write a-z, digits and '_'"),
    ("train", "training", True, "no kind can have the name 'train': .* none of train, sample, seed"),
    ("judge", "measuring", True, "the kind 'judge' measures, so it is one for a whole matrix: write axis=False"),
])
def test_a_kind_that_cannot_be_is_refused_at_birth(name, half, axis, said):
    with pytest.raises(ValueError, match=said):
        Kind(name=name, base="m:C", half=half, axis=axis, summary="")
    assert not {kind.name for kind in BUILT_IN_KINDS} & {*TAKEN}


def test_rows_and_tables_have_a_column_of_the_kind(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    done = diffbench.run(matrix({"codec": [{"pca": {"rank": [2, 4]}}, "whole"], "polish": {"blur": {"width": 3}}}, metrics=[], throughput="off"), out=tmp_path / "out", device="cpu")
    assert done.counts == {"ok": 1, "skipped": 2}
    diffbench.run(matrix(metrics=[], throughput="off"), out=tmp_path / "bare", device="cpu")
    for rows in (diffbench.load(tmp_path / "out"), diffbench.load(tmp_path / "out" / "results.csv"), diffbench.load(tmp_path / "out" / "results.parquet")):
        assert list(rows.columns[10:14]) == ["scheduler", "codec", "polish", "steps"]
        assert rows["codec"].tolist() == ["codec-pack.pca", "codec-pack.pca", "codec-pack.whole"] and set(rows["polish"]) == {"codec-pack.blur"}
        assert rows["codec.rank"].tolist()[:2] == [2, 4] and pandas.isna(rows["codec.rank"][2])
        assert layout.layout(rows, ("backbone",), ("scheduler",))[0] == ["backbone", "codec", "codec.rank"]
        assert module("paired").levels(rows)["codec"].tolist() == ["codec-pack.pca, rank 2", "codec-pack.pca, rank 4", "codec-pack.whole"]
    bare = diffbench.load(tmp_path / "bare")
    assert "codec" not in bare and "more_kinds" not in json.loads(next((tmp_path / "bare" / "cells").glob("*.json")).read_bytes())
    merged = read([tmp_path / "bare", tmp_path / "out"]).rows
    assert list(merged.columns[10:14]) == ["scheduler", "codec", "polish", "steps"] and pandas.isna(merged["codec"][0])
    assert module("paired").levels(merged)["codec"].tolist()[0] == "-"


def test_a_kind_with_the_name_of_another_column_is_refused_before_anything_runs(registry, tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    with pytest.raises(diffbench.DiffbenchError, match="the kind 'device' of a plug-in has the name of another column of the results: its package must rename it"):
        diffbench.run(matrix({"device": "fast"}), out=tmp_path / "out", device="cpu")
