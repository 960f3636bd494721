"""matrix.yaml: expansion, and every mistake at once with its place."""

import textwrap
import time

import pytest

from diffbench.errors import MatrixError
from diffbench.matrix import loading
from diffbench.registry.describing import label
from tests.conftest import REGISTRY

HEAD = """\
diffbench: 1
name: test
dataset: digits
metrics: [fid]
"""
AXES = """\
axes:
  backbone: [unet, dit]
  conditioning: [none, {cfg: {inner: film, scale: [1.5, 3.0]}}]
  scheduler: [{ddim: {steps: [10, 20]}}, ddpm]
"""


def cells(text, **options):
    return loading.load(written(text), REGISTRY, **options).cells


def written(text):
    """A matrix as the mapping a file would give, without positions."""
    from diffbench.matrix import yaml_file

    return yaml_file.parse(textwrap.dedent(text)).data


def mistakes(tmp_path, text, **options):
    path = tmp_path / "matrix.yaml"
    path.write_text(textwrap.dedent(text))
    with pytest.raises(MatrixError) as error:
        loading.load(path, REGISTRY, **options)
    return [m.replace(str(path), "matrix.yaml") for m in error.value.rendered]


def test_the_product_in_the_order_of_the_file():
    found = cells(HEAD + AXES + "  seed: [0, 1]\n")
    assert len(found) == 2 * 3 * 3 * 2
    assert [c.seed for c in found[:2]] == [0, 1], "the last axis varies fastest"
    assert {c.conditioning.guidance_scale for c in found} == {None, 1.5, 3.0}
    assert found[0].parameterization.component_name() == "epsilon", "an axis the file is silent about takes its default"


def test_a_list_for_an_option_that_holds_a_list_is_one_value_and_a_list_of_lists_a_grid():
    one = cells(HEAD + "axes: {scheduler: ddim, backbone: {unet: {multipliers: [1, 2]}}}\n")
    two = cells(HEAD + "axes: {scheduler: ddim, backbone: {unet: {multipliers: [[1, 2], [1, 2, 2]]}}}\n")
    assert [c.backbone.multipliers for c in one] == [(1, 2)]
    assert [c.backbone.multipliers for c in two] == [(1, 2), (1, 2, 2)]


def test_together_changes_in_step():
    found = cells(HEAD + "axes: {backbone: unet, scheduler: [ddim, ddpm]}\ntogether:\n  - {train.lr: [1e-3, 1e-4], train.batch_size: [128, 64]}\n")
    assert len(found) == 4
    assert {(c.train.lr, c.train.batch_size) for c in found} == {(1e-3, 128), (1e-4, 64)}


def test_components_and_settings_change_in_step():
    found = cells(HEAD + "axes: {scheduler: ddim}\ntogether:\n  - {backbone: [unet, dit], train.lr: [1e-3, 1e-2], seed: [3, 4]}\n")
    assert [(c.backbone.component_name(), c.train.lr, c.seed) for c in found] == [("unet", 1e-3, 3), ("dit", 1e-2, 4)]


def test_together_on_an_option_of_an_axis():
    found = cells(HEAD + "axes: {backbone: unet, scheduler: [ddim, ddpm]}\ntogether:\n  - {scheduler.steps: [10, 20], sample.count: [100, 200]}\n")
    assert {(c.scheduler.steps, c.sample.count) for c in found} == {(10, 100), (20, 200)}


def test_exclude_by_name_by_option_and_by_dotted_option():
    base = HEAD + AXES
    assert len(cells(base)) == 18
    assert len(cells(base + "exclude: [{backbone: dit, conditioning: none, why: slow}]\n")) == 15
    assert len(cells(base + "exclude: [{scheduler: {ddim: {steps: 10}}}]\n")) == 12
    assert len(cells(base + "exclude: [{scheduler.steps: 10, backbone: [unet, dit]}]\n")) == 12
    assert len(cells(base + "exclude: [{conditioning: {cfg: {scale: 3.0}}}]\n")) == 12


def test_excluded_cells_keep_their_reason():
    loaded = loading.load(written(HEAD + AXES + "exclude: [{backbone: dit, why: too slow here}]\n"), REGISTRY)
    assert [(e.count, e.why) for e in loaded.excluded] == [(9, "too slow here")]


def test_include_adds_a_cell_outside_the_product_that_no_rule_removes():
    found = cells(HEAD + AXES + """\
exclude: [{backbone: dit}]
include:
  - {backbone: dit, conditioning: none, scheduler: {ddim: {steps: 5}}, train.steps: 0}
""")
    assert len(found) == 10
    assert found[-1].backbone.component_name() == "dit" and found[-1].train.steps == 0 and found[-1].scheduler.steps == 5


def test_a_cell_named_twice_is_one_cell():
    assert len(cells(HEAD + "axes: {backbone: unet, scheduler: [ddim, ddim, {ddim: {steps: 50}}]}\n")) == 1


def test_cells_equal_by_a_reduction_keep_a_row_each():
    loaded = loading.load(written(HEAD + "axes: {backbone: unet, scheduler: [{ddim: {steps: 50, eta: 1.0}}, {ddpm: {steps: 50}}]}\n"), REGISTRY)
    assert len(loaded.cells) == 2 and len(set(loaded.cell_ids)) == 2


def test_ids_depend_on_content_alone():
    first = loading.load(written(HEAD + "axes: {backbone: unet, scheduler: [ddim]}\ntrain: {lr: 1}\n"), REGISTRY)
    second = loading.load(written("axes: {backbone: unet, scheduler: ddim, seed: 0}\n" + HEAD.replace("test", "other") + "train: {lr: 1.0, steps: 10_000}\nsample: {batch_size: 7}\n"), REGISTRY)
    assert first.cell_ids == second.cell_ids
    third = loading.load(written(HEAD + "axes: {backbone: unet, scheduler: [ddim]}\ntrain: {lr: 0.5}\n"), REGISTRY)
    assert third.cell_ids != first.cell_ids


def test_set_and_only():
    assert [c.train.steps for c in cells(HEAD + "axes: {backbone: unet, scheduler: ddim}\n", changes=["train.steps=7"])] == [7]
    assert [c.seed for c in cells(HEAD + "axes: {backbone: unet, scheduler: ddim}\n", changes=["axes.seed=[3, 4]"])] == [3, 4]
    assert {c.scheduler.component_name() for c in cells(HEAD + AXES, only=["scheduler=ddpm"])} == {"ddpm"}
    assert len(cells(HEAD + AXES, only=["scheduler=ddim", "backbone=unet"])) == 6
    with pytest.raises(MatrixError, match=r"--only 'scheduler.steps=11': no cell has scheduler.steps=11; there are "):
        cells(HEAD + AXES, only=["backbone=unet", "scheduler.steps=11"])
    with pytest.raises(MatrixError, match="write PATH=VALUE"):
        cells(HEAD + AXES, changes=["train.steps"])


def test_smoke_makes_everything_small():
    found = cells(HEAD + AXES, smoke=True)
    assert {(c.train.steps, c.sample.count, c.scheduler.steps) for c in found} == {(2, 8, 2)}


def test_every_mistake_at_once_with_line_column_and_what_would_work(tmp_path):
    found = mistakes(tmp_path, """\
        diffbench: 1
        name: test
        dataset: digits
        axes:
          backbone: [unet, dti]
          conditioning:
            - cfg: {inner: flim, scale: [1.5, -3]}
          scheduler:
            - ddim: {steps: "50", eto: 0.1}
            - pndm: {steps: 2}
        train: {steps: many, learning_rate: 0.1}
        metrics: [fidd]
        smaple: {}
        """)
    starts = [m.splitlines()[0] for m in found]
    assert starts == [
        "matrix.yaml:5:20: axes.backbone[1]: no backbone named 'dti'. Did you mean 'dit'? Known: dit, unet",
        "matrix.yaml:7:20: axes.conditioning[0].cfg.inner: no conditioning named 'flim'. Did you mean 'film'? Known: cfg, classifier_guidance, concat, cross_attention, film, in_context, none",
        "matrix.yaml:7:39: axes.conditioning[0].cfg.scale[1]: scale must be a number >= 0, got -3",
        "matrix.yaml:9:21: axes.scheduler[0].ddim.steps: steps must be an integer >= 1, got '50' (text)",
        "matrix.yaml:9:27: axes.scheduler[0].ddim.eto: unknown option 'eto'. Did you mean 'eta'? Options of ddim: steps (50), eta (0.0)",
        "matrix.yaml:10:13: axes.scheduler[1].pndm: pndm: steps must be at least 4 with warmup 'prk' (three of them are the warm-up), got 2; 'plms' takes 2",
        "matrix.yaml:11:16: train.steps: steps must be an integer >= 0, got 'many' (text)",
        starts[7],
        "matrix.yaml:12:11: metrics[0]: no metric named 'fidd'. Did you mean 'fid'? Known: bits_per_dim, class_accuracy, fid, inception_score, kid, memorisation, prdc, sliced_wasserstein, torchmetrics",
        starts[9],
    ]
    assert starts[7].startswith("matrix.yaml:11:22: train.learning_rate: unknown option 'learning_rate'.")
    assert starts[9].startswith("matrix.yaml:13:1: smaple: unknown key 'smaple'. Did you mean 'sample'?")
    assert found[0].splitlines()[1:] == ["      backbone: [unet, dti]", "                       ^"]


@pytest.mark.parametrize(("text", "said"), [
    ("", "a matrix is a mapping that begins with 'diffbench: 1', got None"),
    ("- a\n- b\n", "a matrix is a mapping"),
    ("name: x\ndataset: digits\n", "the version of the file's schema must be 1, got nothing"),
    ("diffbench: 2\ndataset: digits\n", "must be 1, got 2"),
    (HEAD + "name: again\n", "duplicate key"),
    (HEAD + "axes: [unet\n", "this is not YAML"),
    (HEAD + "axes: {backbone: []}\n", "the axis 'backbone' is empty"),
    (HEAD + "axes: {backbon: unet}\n", "there is no axis 'backbon'. Did you mean 'backbone'?"),
    (HEAD + "axes: {seed: [0, 1.5]}\n", "a seed is an integer in [0, 2147483648), got 1.5"),
    (HEAD + "axes: {backbone: unet, scheduler: {ddim: 50}}\n", "the options of ddim are written as {option: value}, got 50"),
    (HEAD + "axes: {backbone: unet, scheduler: {ddim: {}, ddpm: {}}}\n", "2 names at once (ddim, ddpm); write each as its own list item"),
    (HEAD + "axes: {train.lrr: 1}\n", "unknown option 'lrr'. Did you mean 'lr'?"),
    (HEAD + "axes: {conditioning: cfg}\n", "cfg needs the option 'inner'"),
    (HEAD + "exclude: [{backbone: dit}]\naxes: {scheduler: ddim, backbone: unet}\n", "this rule leaves out no cell (of 1)"),
    (HEAD + "exclude: [{backbone: diit}]\naxes: {scheduler: ddim, backbone: [unet, dit]}\n", "no backbone named 'diit'"),
    (HEAD + "exclude: [{colour: red}]\naxes: {scheduler: ddim, backbone: unet}\n", "no cell has 'colour'. Known: autoencoder, backbone"),
    (HEAD + "together: [{train.lr: [1, 2], train.steps: [1]}]\naxes: {scheduler: ddim, backbone: unet}\n", "lists that change in step must have one length, got 2 for train.lr, 1 for train.steps"),
    (HEAD + "include: [{scheduler: ddim}]\naxes: {scheduler: ddim, backbone: [unet, dit]}\n", "this cell must say which backbone: the axis has 2 values"),
    (HEAD + "include: [{scheduler: ddim}]\naxes: {scheduler: ddim}\ntogether: [{backbone: [unet, dit], train.lr: [1, 2]}]\n", "must also name its backbone"),
    (HEAD + "include: [{backbone: unet, scheduler: {ddim: {steps: [1, 2]}}}]\naxes: {scheduler: ddim, backbone: unet}\n", "an included cell is a single one"),
    (HEAD + "train: {lr: .inf}\naxes: {scheduler: ddim, backbone: unet}\n", "lr must be a number > 0, got inf"),
    (HEAD + "axes: !!python/object/apply:os.system [echo]\n", "is refused: a matrix holds plain values only"),
    (HEAD + "train: !foo {steps: 1}\n", "is refused: a matrix holds plain values only"),
    (HEAD + "name: ../../etc\n".replace("name", "extractor"), "no extractor named"),
    (HEAD.replace("name: test", "name: ../../etc"), "a name has letters a-z"),
    (HEAD + "axes: {seed: [" + "1" * 5000 + "]}\n", "is no integer of at most 64 bits"),
    (HEAD + "report: {rows: [bakbone]}\naxes: {scheduler: ddim, backbone: unet}\n", "there is no column 'bakbone'"),
    (HEAD.replace("[fid]", "[fid, prdc, prdc: {k: 3}]") + "axes: {scheduler: ddim, backbone: unet}\n",
     "metrics[2]: prdc and prdc(k=3) would both be the column precision: keep one"),
    (HEAD.replace("[fid]", "[prdc: {k: [3, 4]}]") + "axes: {scheduler: ddim, backbone: unet}\n", "would both be the column precision: keep one"),
    (HEAD + "1: 2\n", "a key must be text, got 1"),
    (HEAD + "axes: {scheduler: ddim, backbone: unet}\nthroughput: {repeats: 1}\n", "repeats must be an integer >= 3, got 1"),
    (HEAD + "axes: {scheduler: ddim, backbone: unet}\nrun: {trackers: [tensorboard, wandbb]}\n", "run.trackers[1]: no tracker named 'wandbb'. Did you mean 'wandb'?"),
])
def test_bad_files_get_one_clear_sentence(tmp_path, text, said):
    start = time.process_time()
    found = mistakes(tmp_path, text)
    assert any(said in m for m in found), found
    assert all(m.startswith("matrix.yaml") for m in found)
    assert time.process_time() - start < 2


def test_yaml_1_2_numbers_and_texts():
    """What YAML 1.1 readers turn into something else: 1e-4 is a number, `on` and 12:30 are text, 010 is ten."""
    from diffbench.matrix import yaml_file

    data = yaml_file.parse("a: 1e-4\nb: on\nc: 12:30\nd: 010\ne: 60_000\nf: no\n").data
    assert data == {"a": 1e-4, "b": "on", "c": "12:30", "d": 10, "e": 60_000, "f": "no"}


def test_an_alias_bomb_and_deep_nesting_are_refused(tmp_path):
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
    assert "more than 50000 nodes" in mistakes(tmp_path, bomb)[0]
    assert any(w in mistakes(tmp_path, "a: " + "[" * 200 + "]" * 200)[0] for w in ("nested more than", "cannot be read"))
    assert mistakes(tmp_path, "a: &a [*a]\n"), "a recursive alias is refused too"


def test_huge_files_and_huge_products_are_refused_before_they_are_expanded(tmp_path):
    assert "a matrix may have" in mistakes(tmp_path, "# " + "x" * 300_000)[0]
    axes = "axes:\n  backbone: unet\n  scheduler: [" + ", ".join(f"{{ddim: {{steps: {i}}}}}" for i in range(1, 60)) + "]\n  seed: [" + ", ".join(map(str, range(200))) + "]\n"
    assert "the product has 11800 cells (59 scheduler x 200 seed), and 10000 are allowed" in mistakes(tmp_path, HEAD + axes)[0]


def test_a_file_that_is_not_there_or_not_text(tmp_path):
    with pytest.raises(MatrixError, match="the file cannot be read"):
        loading.load(tmp_path / "nowhere.yaml", REGISTRY)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(MatrixError, match="not UTF-8 text"):
        loading.load(tmp_path / "binary.yaml", REGISTRY)


def test_presets_stand_for_their_options_and_name_the_rows():
    made = cells(HEAD + "axes: {scheduler: ddim, backbone: [{unet: {preset: [tiny, small]}}, {dit: {preset: B, patch: 4}}]}\n")
    assert [label(c.backbone, REGISTRY) for c in made] == ["unet(preset=tiny)", "unet(preset=small)", "dit(preset=B, patch=4)"]
    assert made[0].backbone.channels == 16 and made[2].backbone.width == 768


def test_an_unknown_preset_is_a_mistake_with_its_place(tmp_path):
    (said,) = mistakes(tmp_path, HEAD + "axes: {scheduler: ddim, backbone: {unet: {preset: tinny}}}\n")
    assert said.startswith("matrix.yaml:5:51: axes.backbone.unet.preset: unknown preset 'tinny'. Did you mean 'tiny'?"), said
