"""The JSON Schema of the matrix: what diffbench takes it takes, what is a mistake in the file it finds."""

import copy
import functools
import re
from dataclasses import MISSING, fields
from pathlib import Path

import jsonschema
import pytest

from diffbench.contracts.options import as_many, check_value, hint, is_many, plain
from diffbench.errors import MatrixError
from diffbench.matrix import loading, yaml_file
from diffbench.matrix.schema import matrix_schema
from diffbench.registry.registry import Registry
from tests.conftest import REGISTRY
from tests.registry.test_registry import SCHEDULER, distribution

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [(page.name, block) for page in PAGES for block in re.findall(r"(?<!that package -->\n)```yaml\n(.*?)```", page.read_text(), re.DOTALL)]
FILES = sorted((ROOT / "benchmarks").glob("**/*.yaml"))
EVERY = [(kind, ref) for kind in REGISTRY.kinds for ref in REGISTRY.refs(kind)]
BASE = {"diffbench": 1, "name": "small", "dataset": "digits", "axes": {"scheduler": [{"ddim": {"steps": [10, 20]}}], "conditioning": "film", "backbone": "unet"},
        "metrics": ["fid"]}


@functools.cache
def validator():
    schema = matrix_schema(REGISTRY)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def under(kind, spec):
    """A matrix with this component of a kind."""
    if kind == "metric":
        return BASE | {"metrics": [spec]}
    return BASE | {kind: spec} if kind in ("dataset", "extractor") else BASE | {"axes": {**BASE["axes"], kind: [spec]}}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_matrix_of_the_repository_is_valid(path):
    validator().validate(yaml_file.read(path).data)


@pytest.mark.parametrize("block", [b for _, b in BLOCKS], ids=[f"{name}-{i}" for i, (name, _) in enumerate(BLOCKS)])
def test_every_matrix_of_the_documentation_is_valid(block):
    validator().validate({"diffbench": 1} | yaml_file.parse(block).data)


@pytest.mark.parametrize(("kind", "ref"), EVERY, ids=lambda v: getattr(v, "full_name", v))
def test_every_component_is_taken_in_each_of_its_examples(kind, ref):
    cls = REGISTRY.load(ref)
    for options in cls.examples:
        validator().validate(under(kind, {ref.full_name: {k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}))
    if all(f.default is not MISSING for f in fields(cls)):
        validator().validate(under(kind, ref.full_name.replace("_", "-")))


@pytest.mark.parametrize(("kind", "ref"), EVERY, ids=lambda v: getattr(v, "full_name", v))
def test_of_every_option_it_takes_what_diffbench_takes_and_nothing_else(kind, ref):
    """Values of many sorts, each tried on its own: both say yes or both say no, but for 1.0, which a schema takes for an integer."""
    from diffbench.contracts.component import Component

    cls = REGISTRY.load(ref)
    required = {f.name: {**{f.name: "a text"}, **next(iter(cls.examples), {})}[f.name] for f in fields(cls) if f.default is MISSING}
    for f in fields(cls):
        wanted = hint(cls, f.name)
        if isinstance(wanted, type) and issubclass(wanted, Component):
            continue
        for value in (-1, 0, 1, 7, 0.5, 1.5, -0.5, 1e9 + 0.5, True, "text", None, [], {"a": 1}, *([] if f.default is MISSING else [f.default])):
            document = under(kind, {ref.full_name: required | {f.name: [list(value)] if isinstance(value, tuple) else value}})
            takes = check_value(cls, f.name, as_many(cls, f.name, plain(value))) is None and (value != [] or is_many(cls, f.name))
            assert validator().is_valid(document) == takes, f"{f.name}: {value!r}"


def changed(path, value):
    document = copy.deepcopy(BASE)
    *above, last = path
    here = document
    for part in above:
        here = here.setdefault(part, {})
    here[last] = value
    return document


def test_without_a_mistake_it_is_valid():
    validator().validate(BASE)
    assert loading.load(BASE, REGISTRY).cells


BAD = {
    "an unknown key": (("scheduler",), "ddim"),
    "another version": (("diffbench",), 2),
    "a name that is a path": (("name",), "../x"),
    "an unknown axis": (("axes", "schedular"), ["ddim"]),
    "an unknown component": (("axes", "scheduler"), ["dddim"]),
    "an unknown option": (("axes", "scheduler"), [{"ddim": {"step": 5}}]),
    "an option out of range": (("axes", "scheduler"), [{"ddim": {"eta": 1.5}}]),
    "one value of a grid out of range": (("axes", "scheduler"), [{"ddim": {"steps": [5, 0]}}]),
    "a text for a number": (("axes", "scheduler"), [{"ddim": {"steps": "5"}}]),
    "two names at once": (("axes", "scheduler"), [{"ddim": {}, "ddpm": {}}]),
    "an empty axis": (("axes", "scheduler"), []),
    "options that are no mapping": (("axes", "scheduler"), [{"ddim": 5}]),
    "a nested component that does not exist": (("axes", "conditioning"), [{"cfg": {"inner": "fillm"}}]),
    "a missing option": (("axes", "conditioning"), [{"cfg": {"scale": 2.0}}]),
    "an unknown preset": (("axes", "backbone"), [{"dit": {"preset": "XXL"}}]),
    "a seed below 0": (("axes", "seed"), [-1]),
    "a seed that is no integer": (("axes", "seed"), [0.5]),
    "an unknown setting": (("train", "step"), 5),
    "a setting out of range": (("train", "ema"), 1.0),
    "a setting of the wrong type": (("sample", "clip"), "yes"),
    "a setting as an axis out of range": (("axes", "train.lr"), [0.0]),
    "a duration that is none": (("run", "stall"), "soon"),
    "a limit for no stage": (("run", "timeout"), {"training": "3h"}),
    "sizes of 0": (("throughput", "batch_size"), [8, 0]),
    "an unknown metric": (("metrics",), ["fud"]),
    "an unknown axis of a rule": (("exclude",), [{"schedular": "ddim"}]),
    "an unknown name of a rule": (("exclude",), [{"scheduler": "dddim"}]),
    "a reason that is no text": (("exclude",), [{"scheduler": "ddim", "why": 5}]),
    "an included cell with an unknown axis": (("include",), [{"schedular": "ddim"}]),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_is_found_and_diffbench_finds_it_too(mistake):
    document = changed(*BAD[mistake])
    assert not validator().is_valid(document)
    with pytest.raises(MatrixError):
        loading.load(document, REGISTRY)


GOOD = {
    "a hyphen": (("axes", "scheduler"), ["euler-sde", {"dpm-solver-pp": None}]),
    "an alias": (("axes", "scheduler"), ["euler_maruyama"]),
    "a single value": (("axes", "scheduler"), "ddim"),
    "a single metric": (("metrics",), "fid"),
    "a single metric with options": (("metrics",), {"prdc": {"k": 3}}),
    "a single group in step": (("together",), {"train.steps": [5, 10]}),
    "a single rule": (("exclude",), {"scheduler": {"ddim": {"steps": 10}}}),
    "a single included cell": (("include",), {"scheduler": {"ddim": {"steps": 7}}}),
    "a single value of an option that holds a list": (("axes", "backbone"), {"unet": {"multipliers": 2}}),
    "a single column of a table": (("report", "rows"), "backbone"),
    "a component in a component": (("axes", "conditioning"), [{"cfg": {"inner": ["film", {"in_context": {"tokens": [2, 4]}}], "scale": [1.5, 3]}}]),
    "a list of lists": (("axes", "backbone"), [{"unet": {"multipliers": [[1, 2], [1, 2, 4]]}}]),
    "a preset and an option": (("axes", "backbone"), [{"dit": {"preset": ["S", "B"], "patch": 4}}]),
    "settings as axes": (("axes", "train.lr"), [1e-3, 2e-3]),
    "a duration in words": (("run", "timeout"), {"train": "3h", "sample": 60}),
    "options in step": (("together",), [{"scheduler.eta": [0.0, 0.5], "train.steps": [10, 20]}]),
    "a rule": (("exclude",), [{"scheduler": {"ddim": {"steps": 10}}, "why": "enough of it"}]),
    "the seed of the noise": (("sample", "seed"), "cell"),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_diffbench_takes_is_taken(case):
    document = changed(*GOOD[case])
    validator().validate(document)
    assert loading.load(document, REGISTRY).cells


def test_a_plug_in_is_in_it_and_a_name_of_two_is_not(tmp_path, monkeypatch):
    for whose in ("alpha", "beta"):
        distribution(tmp_path, f"{whose}-pack", f"[diffbench.scheduler]\ntwin = {whose}_module:Twin\n", {f"{whose}_module": SCHEDULER})
    distribution(tmp_path, "gone-pack", "[diffbench.scheduler]\ngone = gone_module:Gone\n", {"gone_module": "import a_module_nobody_has\n"})
    monkeypatch.syspath_prepend(tmp_path)
    schema = jsonschema.Draft202012Validator(matrix_schema(Registry()))
    assert schema.is_valid(under("scheduler", {"alpha-pack.twin": {"steps": 3}})) and schema.is_valid(under("scheduler", "beta_pack.twin"))
    assert not schema.is_valid(under("scheduler", {"alpha-pack.twin": {"stops": 3}})) and not schema.is_valid(under("scheduler", "twin"))
    assert schema.is_valid(under("scheduler", {"gone": {"anything": 3}})), "its options are not known"


def test_editors_are_told_what_things_mean():
    schema = validator().schema
    eta = schema["$defs"]["scheduler ddim"]["properties"]["eta"]
    assert eta["description"] == "share of the ancestral noise that is added (a number in [0, 1])" and eta["default"] == 0.0
    assert schema["$defs"]["scheduler ddim"]["description"].startswith("DDIM, deterministic at eta = 0") and "(diffbench " in schema["$defs"]["scheduler ddim"]["description"]
