"""The YAML of a matrix: merge keys, what is refused with its place, what a value without brackets means, and files that are none."""

import os
import resource
import threading
import time

import pytest

from diffbench.errors import MatrixError
from diffbench.matrix import loading, selection, yaml_file
from tests.conftest import REGISTRY
from tests.matrix.test_matrix import HEAD, cells, mistakes

SMALL = HEAD + "axes: {backbone: unet, scheduler: ddim}\n"


def parsed(text):
    return yaml_file.parse(text).data


def refused(text, name="matrix.yaml"):
    with pytest.raises(MatrixError) as error:
        yaml_file.parse(text, name)
    return error.value.rendered


class TestMergeKeys:
    @pytest.mark.parametrize(("text", "data"), [
        ("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\n", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("a: &a {x: 1, y: 2}\nb:\n  y: 3\n  <<: *a\n", {"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}}),
        ("b: {<<: {x: 1}, z: 2}\n", {"b": {"x": 1, "z": 2}}),
        ("a: &a {x: 1}\nb: &b {x: 2, y: 2}\nc: {<<: [*a, *b]}\n", {"a": {"x": 1}, "b": {"x": 2, "y": 2}, "c": {"x": 1, "y": 2}}),
        ("a: &a {x: {p: 1}}\nb: &b {<<: *a, y: 2}\nc:\n  - {<<: *b, x: 9}\n", {"a": {"x": {"p": 1}}, "b": {"x": {"p": 1}, "y": 2}, "c": [{"x": 9, "y": 2}]}),
        ("b: {'<<': 1}\n", {"b": {"<<": 1}}),
    ])
    def test_they_bring_in_what_the_mapping_has_not_and_the_first_of_several_wins(self, text, data):
        assert parsed(text) == data

    def test_in_a_matrix(self):
        found = cells(HEAD + "axes:\n  backbone: unet\n  scheduler:\n    - ddim: &s {steps: 2}\n    - ddim: {<<: *s, eta: 0.5}\n")
        assert [(c.scheduler.steps, c.scheduler.eta) for c in found] == [(2, 0.0), (2, 0.5)]

    def test_a_mistake_in_a_merged_mapping_stands_where_it_is_written(self, tmp_path):
        found = mistakes(tmp_path, HEAD + "axes:\n  backbone: unet\n  scheduler:\n    - ddim: {steps: 3}\n    - ddim: {<<: &s {steps: many, eto: 1}}\n")
        assert [m.splitlines()[0] for m in found] == [
            "matrix.yaml:9:29: axes.scheduler[1].ddim.steps: steps must be an integer >= 1, got 'many' (text)",
            "matrix.yaml:9:35: axes.scheduler[1].ddim.eto: unknown option 'eto'. Did you mean 'eta'? Options of ddim: steps (50), eta (0.0)"]

    @pytest.mark.parametrize(("text", "start"), [
        ("a: &a {<<: *a}\n", "matrix.yaml:1:12: the alias '*a' stands inside of its own anchor, and so never ends"),
        ("a: &a [*a]\n", "matrix.yaml:1:8: the alias '*a' stands inside of its own anchor"),
        ("a: *b\n", "matrix.yaml:1:4: there is no anchor '&b' before its alias"),
        ("<<: [1]\n", "matrix.yaml:1:6: '<<' merges a mapping or a list of mappings, got a scalar"),
        ("a: &a {}\n<<: *a\n<<: *a\n", "matrix.yaml:3:1: duplicate key '<<': it stands in line 2 already"),
        ("a: &a {q: 1}\nb: {<<: [" + "*a, " * 20_000 + "]}\n", "matrix.yaml:2:5: more than 1000 mappings are merged by '<<'; write fewer"),
        ("a: &a {" + ", ".join(f"k{i}: 1" for i in range(200)) + "}\n" + "".join(f"b{i}: {{<<: *a}}\n" for i in range(400)),
         "matrix.yaml:246:8: more than 50000 nodes once mappings are merged; write fewer"),
    ])
    def test_those_that_never_end_or_are_none(self, text, start):
        assert refused(text)[0].startswith(start)

    def test_a_change_of_one_mapping_leaves_the_others_of_its_anchor(self, tmp_path):
        (tmp_path / "m.yaml").write_text(SMALL + "train: &t {steps: 5}\nx: 1\n".replace("x: 1\n", ""))
        (tmp_path / "m.yaml").write_text(HEAD + "axes: {backbone: unet, scheduler: [{ddim: &s {steps: 5}}, {ddpm: *s}]}\n")
        found = loading.load(tmp_path / "m.yaml", REGISTRY, changes=["axes.scheduler=[ddim]"]).cells
        assert [c.scheduler.steps for c in found] == [50]


@pytest.mark.parametrize(("text", "start"), [
    ("diffbench: 1\n? [a, [b]]\n: 1\n", "matrix.yaml:2:3: a key must be text, got a list"),
    ("? {a: 1}\n: 1\n", "matrix.yaml:1:3: a key must be text, got a mapping"),
    (": 1\n", "matrix.yaml:1:1: a key must be text, got None"),
    ("a: !!omap [b: 1]\n", "matrix.yaml:1:4: the tag 'tag:yaml.org,2002:omap' is refused: a matrix holds plain values only"),
    ("a: !!set {b}\n", "matrix.yaml:1:4: the tag 'tag:yaml.org,2002:set' is refused"),
    ("a: !!int _\n", "matrix.yaml:1:4: the tag 'tag:yaml.org,2002:int' is refused"),
    ("a: !!bool x\n", "matrix.yaml:1:4: the tag 'tag:yaml.org,2002:bool' is refused"),
    ("!x a: 1\n", "matrix.yaml:1:1: the tag '!x' is refused"),
    ("a: 1\na: 2\n", "matrix.yaml:2:1: duplicate key 'a': it stands in line 1 already"),
    ("a: 1\n---\nb: 2\n", "matrix.yaml:2:1: a second document begins here; a matrix is one document"),
    ("%YAML 1.1\n---\na: 1e-3\n", "matrix.yaml:1:1: a matrix is YAML 1.2: remove '%YAML 1.1'"),
    ("a: \x07\n", "matrix.yaml:1:4: the character U+0007 may not stand in YAML; in double quotes it is written as an escape"),
    ("a: " + "1" * 5000, "matrix.yaml:1:4: the number '1111"),
    ("a: 0x" + "f" * 5000, "matrix.yaml:1:4: the number '0xff"),
    ("a: " + "[" * 100_000, "matrix.yaml:1:35: nested more than 32 levels deep"),
    ("a: &a " + "{b: " * 20 + "1" + "}" * 20 + "\nc: " + "{d: " * 20 + "*a" + "}" * 20, "matrix.yaml:1:55: nested more than 32 levels deep at c.d"),
    ('a: "\\uD800"\n', "matrix.yaml:1:4: a: the text '\\ud800' holds half of a character (a lone surrogate)"),
    ("a: &a '" + "x" * 100_000 + "'\nb: [" + "*a, " * 20 + "]\n", "matrix.yaml:1:4: more than 1048576 letters after aliases are expanded"),
    ("a: [" + "x," * 60_000 + "]", "matrix.yaml:1:99"),
    ('a: "\\UFFFFFFFF"\n', "matrix.yaml: this cannot be read as YAML: "),
])
def test_what_a_matrix_may_not_hold_is_refused_with_its_place(text, start):
    begun = time.process_time()
    found = refused(text)[0]
    assert found.startswith(start) and len(found) < 800
    assert time.process_time() - begun < 20


def test_a_look_alike_of_a_space_is_named(tmp_path):
    said = mistakes(tmp_path, SMALL + "train:\n\xa0 steps: 3\n")
    assert any("column 1 of this line holds a no-break space (U+00A0), which is no space to YAML" in m for m in said)


def test_yaml_1_2_scalars():
    data = parsed("a: 2024-01-15\nb: _\nc: +_\nd: .5e3\ne: 1_000\nf: -0x1F\ng: 0b11\nh: .inf\ni: -.INF\nj: 1e400\nk: 'true'\nl: TRUE\nm: ~\nn: 1.\no: '1'\np: 0x\nq: <<\n")
    assert data == {"a": "2024-01-15", "b": "_", "c": "+_", "d": 500.0, "e": 1000, "f": -31, "g": 3, "h": float("inf"), "i": float("-inf"), "j": float("inf"), "k": "true",
                    "l": True, "m": None, "n": 1.0, "o": "1", "p": "0x", "q": "<<"}


def test_one_value_needs_no_brackets():
    found = loading.load(parsed(SMALL.replace("[fid]", "fid") + "report: {rows: backbone, columns: scheduler}\nrun: {trackers: tensorboard}\nthroughput: {batch_size: 3}\n"), REGISTRY)
    assert [m.component_name() for m in found.metrics] == ["fid", "memorisation"] or [m.component_name() for m in found.metrics] == ["fid"]
    assert (found.report.rows, found.report.columns, found.run.trackers, found.throughput.batch_size) == (("backbone",), ("scheduler",), ("tensorboard",), (3,))
    assert cells(HEAD + "axes: {scheduler: ddim, backbone: {unet: {multipliers: 2}}}\n")[0].backbone.multipliers == (2,)
    assert [c.backbone.multipliers for c in cells(HEAD + "axes: {scheduler: ddim, backbone: {unet: {multipliers: [1, [1, 2]]}}}\n")] == [(1,), (1, 2)]
    assert len(cells(HEAD + "axes: {backbone: unet, scheduler: [ddim, ddpm]}\nexclude: {scheduler: ddpm}\ninclude: {scheduler: heun}\n")) == 2
    assert [c.train.steps for c in cells(SMALL + "together: {train.steps: [1, 2], train.lr: [0.1, 0.2]}\n")] == [1, 2]
    assert cells(SMALL.replace("[fid]", "{prdc: {k: 3}}"))


@pytest.mark.parametrize(("text", "start"), [
    (SMALL.replace("[fid]", ""), "matrix.yaml:4:1: metrics: a metric is written as a name or as 'name: {option: value}', got nothing"),
    (HEAD + "axes:\n  backbone: unet\n  conditioning:\n\n  scheduler: ddim\n", "matrix.yaml:7:3: axes.conditioning: a conditioning is written as a name"),
    (SMALL + "train: {steps: 1e3}\n", "matrix.yaml:6:16: train.steps: steps must be an integer >= 0, got 1000.0; write 1000"),
    (SMALL + "throughput: {batch_size: [1e1, 2]}\n", "matrix.yaml:6:26: throughput.batch_size: batch_size must be an integer >= 1 or a list of them, got [10.0, 2]; write [10, 2]"),
    (HEAD + "axes: {backbone: unet, scheduler: ddim, seed: 1e1}\n", "matrix.yaml:5:47: axes.seed: a seed is an integer in [0, 2147483648), got 10.0; write 10"),
    (SMALL.replace("name: test", "name: 2024-01-15"), "matrix.yaml:2:7: name: a name has letters a-z, digits, '-' and '_', begins with a letter and is at most 64 long, got '2024-01-15'"),
    (SMALL.replace("diffbench: 1", "diffbench: true"), "matrix.yaml:1:12: diffbench: the version of the file's schema must be 1, got True"),
    (SMALL + "exclude: [{scheduler: {ddim: 5}}]\n", "matrix.yaml:6:11: exclude[0]: a scheduler is meant by its name or by 'name: {option: value}', got {'ddim': 5}"),
    (SMALL + "together: [{scheduler.steps: [1, 2]}, {scheduler.steps: [3]}]\n",
     "matrix.yaml:6:40: together[1].scheduler.steps: 'scheduler.steps' changes in step with another group already; keep one"),
    (HEAD + "axes: {backbone: unet}\ntogether: [{scheduler: [ddim, ddpm]}, {scheduler.steps: [3, 4]}]\n",
     "matrix.yaml:6:40: together[1].scheduler.steps: 'scheduler' changes in step itself, so its options stand beside each of its values"),
    (SMALL + "include: {scheduler: {ddi: {steps: 7}}}\n", "matrix.yaml:6:23: include.scheduler.ddi: no scheduler named 'ddi'. Did you mean 'ddim'?"),
    (HEAD + "axes: {backbone: unet}\ntogether: [{scheduler: [ddim, ddpm]}]\ninclude: [{backbone: dit}]\n",
     "matrix.yaml:7:10: include: an included cell must also name its scheduler"),
    (HEAD + "axes: {backbone: unet}\ntogether: [{scheduler.eta: [0.0, 0.5]}]\n", "matrix.yaml:5:7: axes: scheduler must be named: no scheduler is the default"),
    (HEAD + "axes: {scheduler: ddim, backbone: {unet: {preset: []}}}\n", "matrix.yaml:5:51: axes.backbone.unet.preset: 'preset' has an empty list"),
])
def test_mistakes_stand_at_their_own_line_and_say_what_to_write(tmp_path, text, start):
    for smoke in (False, True):
        assert any(m.startswith(start) for m in mistakes(tmp_path, text, smoke=smoke)), mistakes(tmp_path, text)


class TestSet:
    @pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "word\n", "3\n"])
    def test_on_what_is_no_mapping_the_mistake_is_the_same(self, tmp_path, text):
        assert mistakes(tmp_path, text, changes=["train.steps=3"]) == mistakes(tmp_path, text)

    def test_its_mistakes_are_shown_as_its_own(self, tmp_path):
        found = mistakes(tmp_path, SMALL + "train: {steps: 5}\nsample: {count: 0}\n", changes=["train.stpes=3", "axes.shceduler=ddim", "trian.x=1", "train.steps=lots"])
        assert [m.partition(": ")[0] for m in found] == ["matrix.yaml:7:17", "--set trian.x=1", "--set axes.shceduler=ddim", "--set train.stpes=3", "--set train.steps=lots"]
        assert "--set train.steps=lots: train.steps: steps must be an integer >= 0, got 'lots' (text)" in found
        assert not any("^" in m for m in found[1:])

    def test_a_rule_between_options_names_the_change(self, tmp_path):
        (said,) = mistakes(tmp_path, SMALL + "train: {batch_size: 16}\n", changes=["train.gpus=80"])
        assert said.startswith("matrix.yaml:6:8: train: 'train': gpus must be at most batch_size, 16") and "got 80 (with --set train.gpus=80)" in said

    def test_a_text_that_is_no_yaml(self, tmp_path):
        (said,) = mistakes(tmp_path, SMALL, changes=["train.steps=[1"])
        assert said.startswith("--set train.steps:1:3: this is not YAML") and mistakes(tmp_path, SMALL, changes=["=3"])[0].startswith("--set =3: write PATH=VALUE")


class TestFiles:
    def refused(self, path):
        with pytest.raises(MatrixError) as error:
            yaml_file.read(path)
        return error.value.rendered[0]

    def test_what_is_no_file_or_too_long(self, tmp_path):
        assert self.refused("/dev/zero") == "/dev/zero: the file has more than 262144 bytes, which is what a matrix may have"
        assert self.refused(tmp_path) == f"{tmp_path}: the file cannot be read: Is a directory"
        assert self.refused("-") == "-: a matrix is read from a file; where it comes from another program, name /dev/stdin"
        assert self.refused("a\0b") == "a\0b: the file cannot be read: embedded null byte"
        main, side = os.openpty()
        assert self.refused(os.ttyname(side)).endswith("it is a terminal; write the matrix into a file")
        os.close(main), os.close(side)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_other_encodings_are_named(self, tmp_path, encoding):
        (tmp_path / "m.yaml").write_bytes(SMALL.encode(encoding))
        assert f"is not UTF-8 text but seems to be {encoding[:6].upper()}" in self.refused(tmp_path / "m.yaml")

    def test_a_byte_order_mark_is_no_part_of_the_text(self, tmp_path):
        (tmp_path / "m.yaml").write_bytes(SMALL.encode("utf-8-sig"))
        assert yaml_file.read(tmp_path / "m.yaml").data["diffbench"] == 1

    def test_a_pipe_is_read_to_its_end_and_one_that_nobody_writes_into_given_up(self, tmp_path, monkeypatch):
        os.mkfifo(tmp_path / "pipe")

        def write():
            with open(tmp_path / "pipe", "w") as file:
                file.write(SMALL)
                file.flush()
                time.sleep(0.2)
                file.write("train: {steps: 7}\n")
        writer = threading.Thread(target=write)
        writer.start()
        assert yaml_file.read(tmp_path / "pipe").data["train"] == {"steps": 7}
        writer.join()
        monkeypatch.setattr(yaml_file, "PIPE_SECONDS", 0.05)
        assert "it is a pipe, and nothing was written into it for 0.05 s" in self.refused(tmp_path / "pipe")


def test_what_python_gives_has_the_same_limits():
    small = parsed(SMALL)
    loop = []
    loop.append(loop)
    for wrong, said in (({"seed": [10**5000]}, "axes.seed[0]: the number an integer of 16,610 bits is no integer"), ({"seed": loop}, "nested more than 32 levels deep at axes.seed[0]"),
                        ({1: 2}, "axes: a key must be text, got 1"), ({"seed": ["\ud800"]}, "holds half of a character")):
        with pytest.raises(MatrixError) as error:
            loading.load(small | {"axes": small["axes"] | wrong}, REGISTRY)
        assert said in error.value.rendered[0]
    given = {"seed": [3]} | small["axes"]
    assert loading.load(small | {"axes": given}, REGISTRY, changes=["axes.seed=4"]).cells[0].seed == 4 and given["seed"] == [3]


def count(n):
    return f"[{', '.join(map(str, range(1, n + 1)))}]"


BOMBS = {
    "the grid of the options of ddim has 9000000 points (3000 steps x 3000 eta), and 10000 are allowed; --max-cells raises the limit":
        HEAD + f"axes: {{backbone: unet, scheduler: {{ddim: {{steps: {count(3000)}, eta: [{', '.join(['0.5'] * 3000)}]}}}}}}\n",
    "the grid of the options of cfg has 18000 points (2 inner x 9000 scale)":
        HEAD + f"axes: {{backbone: unet, scheduler: ddim, conditioning: {{cfg: {{inner: [film, none], scale: {count(9000)}}}}}}}\n",
    "the grid of the options of cfg has 729000 points (8100 inner x 90 scale)":
        HEAD + f"axes: {{scheduler: ddim, conditioning: {{cfg: {{inner: {{cfg: {{inner: {{cfg: {{inner: film, scale: {count(90)}}}}}, scale: {count(90)}}}}}, scale: {count(90)}}}}}}}\n",
    "the lists and grids up to here name more than 50000 components":
        HEAD + f"axes: {{scheduler: ddim, backbone: {{dit: {{preset: [{', '.join(['S'] * 3000)}], depth: {count(3000)}}}}}}}\n",
    "the product has 36000 cells (36000 scheduler)":
        HEAD + f"axes: {{backbone: unet, scheduler: [{', '.join([f'ddim: {{steps: {count(600)}}}'] * 60)}]}}\n",
    "the product has 125000000000 cells (5000 in step x 5000 in step x 5000 in step), and 10000 are allowed":
        SMALL + f"together: [{{seed: {count(5000)}}}, {{train.steps: {count(5000)}}}, {{train.lr: {count(5000)}}}]\n",
    "5 cells are included beside 1 of the product, and 5 are allowed": SMALL + "include: [" + "{scheduler: ddpm}, " * 5 + "]\n",
    "a matrix measures at most 100 metrics, got 101": SMALL.replace("[fid]", f"{{prdc: {{k: {count(101)}}}}}"),
    "timesteps must be an integer in [2, 1000000], got 1000000000":
        HEAD + "axes: {backbone: unet, scheduler: ddim, noise_schedule: {linear: {timesteps: 1000000000}}}\n",
    "write KEY=VALUE, such as scheduler=ddim,steps=50": SMALL + f"report: {{baseline: '{',' * 200_000}'}}\n",
}


@pytest.mark.parametrize("message", BOMBS)
def test_what_would_grow_is_counted_before_it_is_made(message, tmp_path):
    """In a few seconds of the processor and without memory: 9 million components would take gigabytes."""
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert any(message in m for m in mistakes(tmp_path, BOMBS[message], **({"max_cells": 5} if message[0] == "5" else {})))
    assert time.process_time() - begun < 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def test_comparisons_of_conditions_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MOST_COMPARISONS", 1000)
    text = HEAD + f"axes: {{backbone: unet, scheduler: ddim, seed: {count(300)}}}\n"
    said = "the conditions up to here take more than 1000 comparisons with cells; write fewer, or name fewer values"
    assert said in mistakes(tmp_path, text + "exclude: [{seed: 1}, {seed: 2}, {seed: 3}, {seed: 4}]\n")[0]
    assert said in mistakes(tmp_path, text, only=["seed=[1, 2]", *["scheduler=ddim"] * 500])[0]


def test_no_more_than_a_hundred_mistakes_are_told(tmp_path):
    assert len(mistakes(tmp_path, SMALL + "".join(f"trian{i}: 1\n" for i in range(5000)))) == 100


def test_a_part_that_cannot_say_whether_it_fits_is_named(monkeypatch):
    import diffbench

    def fails(self, cell):
        raise ZeroDivisionError("float division by zero")
    monkeypatch.setattr(REGISTRY.component("backbone", "unet"), "why_not", fails)
    with pytest.raises(diffbench.BrokenComponent, match="backbone unet cannot say whether it fits a cell: its why_not raised ZeroDivisionError: float division by zero"):
        diffbench.plan(parsed(SMALL))
