"""Messages that no test of their module provokes, each provoked here by what a user would do, or by a double of what fails."""

import errno
import json
import subprocess
import zipfile
from types import SimpleNamespace

import pytest
import torch

import diffbench
from diffbench import durable, events, manifest, matrix, pairs, repeating, selection, uncertainty, unpacking, yaml_file
from diffbench.archive import INDEX, export_run
from diffbench.classifier import Classifier, fit_classifier
from diffbench.engine import Engine
from diffbench.errors import Damaged, DiffbenchError
from diffbench.frechet import frechet_distance
from diffbench.launchers import Launcher, processes
from diffbench.report import exports, reading
from diffbench.source import Point
from diffbench.store import Store
from diffbench.unpacking import import_run
from tests.conftest import REGISTRY
from tests.runs import make_run
from tests.test_pairs import row, run
from tests.test_unpacking import first, replaced, rewritten

BASE = {"diffbench": 1, "name": "small", "dataset": "digits", "axes": {"backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": "ddim"},
        "metrics": ["fid"]}
WRONG = {
    "unknown key 'axis'. Did you mean 'axes'? A matrix has: ": {"axis": 1},
    "axes is a mapping from axis to values, got 3": {"axes": 3},
    "dataset stands both at the top and under axes; keep one": {"axes": {**BASE["axes"], "dataset": "digits"}},
    "the axis 'seed' is empty: name at least one value": {"axes": {**BASE["axes"], "seed": []}},
    "'steps' has an empty list: name at least one value": {"axes": {**BASE["axes"], "scheduler": {"ddim": {"steps": []}}}},
    "together is a list of groups, got 3": {"together": 3},
    "'scheduler' is already an axis; an option multiplies or changes in step, not both": {"together": [{"scheduler": ["ddim"], "seed": [0]}]},
    "exclude is a list of rules, got 3": {"exclude": 3},
    "a rule maps axes to the values it leaves out, got 3": {"exclude": [3]},
    "why is a text, got 3": {"exclude": [{"scheduler": "ddim", "why": 3}]},
    "include is a list of cells, got 3": {"include": 3},
    "a cell maps axes to values, got 3": {"include": [3]},
    "one extractor is used for the whole matrix, got 2": {"extractor": {"pixels": {"size": [4, 8]}}},
    "backbone must be named: no backbone is the default; name one of dit, unet": {"axes": {"scheduler": "ddim"}},
    "batch_size must name each size once, got [2, 2]": {"throughput": {"batch_size": [2, 2]}},
}


@pytest.mark.parametrize("message", WRONG)
def test_a_mistake_in_a_matrix(message):
    with pytest.raises(diffbench.MatrixError) as error:
        matrix.load({**BASE, **WRONG[message]}, REGISTRY)
    assert message in str(error.value)


def test_more_cells_than_allowed_and_none_left():
    with pytest.raises(diffbench.MatrixError, match=r"the product has 3 cells \(.*\), and 2 are allowed; --max-cells raises the limit"):
        matrix.load({**BASE, "axes": {**BASE["axes"], "seed": [0, 1, 2]}}, REGISTRY, max_cells=2)
    with pytest.raises(diffbench.MatrixError, match="--only scheduler=ddpm: no cell is left"):
        matrix.load({**BASE, "axes": {**BASE["axes"], "scheduler": ["ddim", "ddpm"]}, "exclude": [{"scheduler": "ddpm", "why": "a test"}]}, REGISTRY,
                    only=["scheduler=ddpm"])


def test_a_file_that_is_no_text_or_grows(tmp_path):
    (tmp_path / "matrix.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(diffbench.MatrixError, match=r"the file is not UTF-8 text \(byte 6\)"):
        yaml_file.read(tmp_path / "matrix.yaml")
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    with pytest.raises(diffbench.MatrixError, match="more than 100000 nodes after aliases are expanded; write the file without them"):
        yaml_file.parse("\n".join(lines))


def test_a_device_that_does_not_exist():
    with pytest.raises(DiffbenchError, match="--device: "):
        diffbench.plan(BASE, device="tpu")


def test_a_name_that_no_component_may_have(monkeypatch):
    point = Point("No-Name", "somewhere:Thing", "strange", "1", False, (), lambda: None)
    monkeypatch.setattr("diffbench.source.entry_points", lambda group: iter([point] if group == "diffbench.scheduler" else []))
    assert "scheduler 'No-Name' is left out: a name is [a-z][a-z0-9_]{0,63}" in [p.message for p in diffbench.Registry().problems]


def test_a_launcher_without_an_address():
    class Nowhere(Launcher):
        submit = poll = cancel = close = capacity = None
    with pytest.raises(DiffbenchError, match="--launcher: Nowhere has no address, got 'somewhere'"):
        Nowhere.open("somewhere", "cpu")


def test_a_server_of_workers_that_does_not_come_up(monkeypatch):
    monkeypatch.setattr(processes, "START_SECONDS", 0.05)
    monkeypatch.setattr(processes.sys, "executable", "/bin/cat")      # reads its arguments as files and ends, or waits: never ready
    with pytest.raises(DiffbenchError, match=r"the worker server (was not ready after 0.05 s|ended before it was ready)"):
        processes._Server(processes.SimpleQueue())


def test_a_queue_without_gpus_or_that_fails(monkeypatch):
    pytest.importorskip("submitit", reason="the extra `slurm` is not installed")
    from diffbench.launchers import slurm

    monkeypatch.setattr(slurm.subprocess, "run", lambda *a, **k: SimpleNamespace(stdout="8|(null)|infinite|day*\n"))
    with pytest.raises(DiffbenchError, match="--launcher slurm: no node of the default partition has a GPU"):
        slurm.SlurmLauncher("").capacity("cuda", 1, None)

    def fails(command, **options):
        raise subprocess.CalledProcessError(1, command, stderr="slurm_load_partitions: unable to contact slurm controller")
    monkeypatch.setattr(slurm.subprocess, "run", fails)
    with pytest.raises(DiffbenchError, match="--launcher slurm: sinfo --noheader .*: slurm_load_partitions: unable to contact"):
        slurm.SlurmLauncher("")


def test_results_that_cannot_be_compared(tmp_path):
    made = run(tmp_path, [row("a0", 1.0), row("c0", 3.0, scheduler="heun", status="failed", reason="no socket")])
    with pytest.raises(DiffbenchError, match="'scheduler=heun' names 1 cells of .*, of which none is ok"):
        pairs.compare(made, "scheduler=ddim", "scheduler=heun")
    with pytest.raises(DiffbenchError, match=r"'colour=red': no row has 'colour'\..* Known: .*, <kind>.<option>"):
        selection.chosen([{"scheduler": "ddim", "seed": 0}], "colour=red")
    odd = run(tmp_path / "odd", [row("a1", 1.0, seed=1), row("a2", 1.0, seed=2), row("b3", 1.0, seed=3, scheduler="ddpm"), row("b4", 1.0, seed=4, scheduler="ddpm")])
    with pytest.raises(DiffbenchError, match="no cell of one side has a partner on the other: the sides have different values of seed, .*and several of them"):
        pairs.compare(odd, "scheduler=ddim", "scheduler=ddpm")
    (tmp_path / "odd" / "plan.json").write_text("{")
    for read in (lambda folder: pairs.Run(folder), lambda folder: reading.Run(folder=folder).stages()):
        with pytest.raises(DiffbenchError, match="plan.json cannot be read: .*; running the matrix again writes it anew"):
            read(tmp_path / "odd")


def test_a_notebook_that_was_worked_on(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps({"cell_id": "a", "status": "ok"}))
    exports.copy_notebook(exports.notebooks()[0], tmp_path)
    next(tmp_path.rglob("*.ipynb")).write_text("{}")
    with pytest.raises(DiffbenchError, match="is there already and is not the same, perhaps by your work: move it away to have it anew"):
        exports.copy_notebook(exports.notebooks()[0], tmp_path)


def test_a_cell_that_is_skipped_here_is_not_repeated(monkeypatch):
    plan = SimpleNamespace(cells=[SimpleNamespace(skipped="no socket for tokens")])
    for name in ("matrices", "make_plan", "rebuild_cell", "replace", "_device"):
        monkeypatch.setattr(repeating, name, SimpleNamespace(load=lambda *a, **k: SimpleNamespace(run=None)) if name == "matrices" else lambda *a, **k: plan)
    then = SimpleNamespace(matrix={}, planned={"cell": {}}, row=SimpleNamespace(cell_id="abc"), folder="runs/made")
    with pytest.raises(DiffbenchError, match="cell abc of runs/made cannot be repeated: it is skipped here, because no socket for tokens"):
        repeating._plan(then, {}, REGISTRY)


def test_an_export_onto_a_file_or_of_a_torn_plan(archived, tmp_path):
    store, made, _, archive = archived
    with pytest.raises(DiffbenchError, match="--to .*run.zip: there is a file of that name already"):
        export_run(made, store, archive)
    (made / "plan.json").write_text("{")
    with pytest.raises(DiffbenchError, match="plan.json: .*; run its matrix again"):
        export_run(made, store, tmp_path / "again.zip")


def index(change):
    """A change of the archive's index."""
    def apply(members):
        info, data = members[INDEX]
        members[INDEX] = info, json.dumps({**json.loads(data), **change}).encode()
    return apply


def unlisted(members):
    """A file beside an artefact's that its manifest does not name."""
    folder = first(members, "train/") if "train/" in members else next(n for n in members if n.startswith("store/train/")).rpartition("/")[0]
    members[f"{folder}/extra.json"] = members[first(members, "outcome.json")][0].__class__(f"{folder}/extra.json"), b"{}"


@pytest.mark.parametrize("change, message, keeps_index", [
    (index({"format": 99}), "it is of format 99, and this version of diffbench reads 1", True),
    (lambda members: members.pop(INDEX), "it has no diffbench-run.json", False),
    (replaced("plan.json", lambda data: b"[]"), "run/plan.json: ", True),
    (lambda members: setattr(members[INDEX][0], "compress_type", zipfile.ZIP_BZIP2), "is encrypted or compressed in a way that is not read here", False),
    (unlisted, "holds a file that its manifest does not name", True)])
def test_an_archive_that_is_refused(archived, tmp_path, change, message, keeps_index):
    rewritten(archived[3], tmp_path / "odd.zip", change, index=keeps_index)
    with pytest.raises(DiffbenchError, match=message):
        import_run(tmp_path / "odd.zip", Store(tmp_path / "other"), out=tmp_path / "out")


def test_an_archive_that_is_larger_than_allowed(archived, tmp_path, monkeypatch):
    with pytest.raises(DiffbenchError, match="it says that it unpacks to .*, and the limit is .*; raise it with --limit"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out", limit=10)
    monkeypatch.setattr(unpacking, "READ_LIMIT", 10)
    with pytest.raises(DiffbenchError, match="diffbench-run.json is too large"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out")


def test_results_that_cannot_be_put_into_place(archived, tmp_path, monkeypatch):
    publish = durable.publish_folder

    def fails(aside, target, top):
        if target.name == "out":
            raise OSError(errno.EROFS, "Read-only file system")
        return publish(aside, target, top=top)
    monkeypatch.setattr(durable, "publish_folder", fails)
    with pytest.raises(DiffbenchError, match="--out .*out: the results cannot be put there: Read-only file system; the artefacts are in the store"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out")


def test_an_artefact_whose_place_is_taken(tmp_path, monkeypatch):
    def taken(aside, target, top):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")
    store = Store(tmp_path / "home")
    store.prepare()
    monkeypatch.setattr(durable, "publish_folder", taken)
    with pytest.raises(DiffbenchError, match="cannot be published: something there is in the way, and setting it aside does not help"):
        store.move_in("train", "0" * 64, tmp_path / "aside")


def test_an_artefact_that_is_damaged_however_often_it_is_built():
    def looks(stage, outcome):
        raise Damaged("the artefact train 0000 is damaged", stage="train", key="0000")
    driver = SimpleNamespace(outcomes={}, watchers=[SimpleNamespace(finished=looks)], _rebuild=lambda key: False)
    with pytest.raises(DiffbenchError, match=r"is damaged, though it was built \d+ times in this run: the disk is not to be trusted"):
        Engine._tell(driver, SimpleNamespace(key="1111"), None)


def test_a_ray_cluster_that_is_another_or_does_not_answer(monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")
    from diffbench.launchers import ray as launcher

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    with pytest.raises(DiffbenchError, match="--launcher ray://auto: this process is connected to a cluster already; plain ray uses that one"):
        launcher.RayLauncher("auto")

    def fails(*arguments, **options):
        raise ConnectionError("nobody there")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", fails)
    with pytest.raises(DiffbenchError, match="--launcher ray: no cluster answers at 127.0.0.1:1: .*nobody there"):
        launcher.RayLauncher("127.0.0.1:1")


def test_a_manifest_that_names_what_it_should_not(tmp_path):
    store = Store(tmp_path / "home")
    key = make_run(store, tmp_path / "made")["train"]
    with pytest.raises(Damaged, match="its manifest names no absent.json"):
        manifest.read(store.path("train", key), "train", key, "absent.json")
    path = store.path("train", key) / "manifest.json"
    content = json.loads(path.read_bytes())
    path.write_text(json.dumps({**content, "files": {"../up": {"size": 1, "sha256": "0"}}}))
    with pytest.raises(Damaged, match="its manifest names '../up' wrongly"):
        manifest.read(store.path("train", key), "train", key, "facts.json")


def test_ten_thousand_logs_of_one_process(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "range", lambda *ends: [], raising=False)
    with pytest.raises(DiffbenchError, match="has written 10,000 logs here; remove the folder, no result depends on it"):
        events._new_file(tmp_path)


def test_images_a_classifier_cannot_learn_from_or_read():
    images, labels = torch.zeros(20, 1, 8, 8, dtype=torch.uint8), torch.arange(20) % 2
    with pytest.raises(diffbench.DataError, match=r"a classifier learns from uint8 images \[N, C, H, W\] and labels \[N\], got "):
        fit_classifier(images.float(), labels, 2, seed=0)
    with pytest.raises(diffbench.DataError, match=r"labels must be in 0..1, got 0..7"):
        fit_classifier(images, labels * 7, 2, seed=0)
    with pytest.raises(diffbench.Diverged, match="the classifier's loss is nan after 3 steps"):
        fit_classifier(images, labels, 2, seed=0, steps=3, learning_rate=1e38)
    with pytest.raises(diffbench.DataError, match=r"the classifier reads uint8 images \[N, 1, 8, 8\], got float32 \[20, 1, 8, 8\]"):
        Classifier((1, 8, 8), 2).describe(images.float())


def test_too_few_samples_for_a_number():
    few, features = torch.zeros(3, 2), torch.randn(60, 2, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(diffbench.DataError, match=r"a jackknife needs at least \d+ samples and a block for each, got 60 samples and 3 blocks"):
        frechet_distance(features, diffbench.moments(features), torch.zeros(3))
    with pytest.raises(diffbench.DataError, match="the jackknife takes 20 values, one per block left out, got 3"):
        uncertainty.jackknife(1.0, few[:, 0])
    for name, given, message in (("prdc", few, r"balls that reach to neighbour \d+ need more than \d+ samples in a set, got 3 generated and 3 real ones"),
                                 ("kid", few[:1], r"needs features \[N, d\] and \[M, d\] with N, M >= 2, got \[1, 2\] and \[1, 2\]")):
        seen = SimpleNamespace(features=given, logits=None, labels=None)
        with pytest.raises(diffbench.DataError, match=message):
            REGISTRY.create("metric", name).measure(seen, SimpleNamespace(reference=seen, held_out=seen, train=seen))


def test_data_that_are_not_there_or_not_what_they_are(tmp_path, monkeypatch):
    from diffbench_components.datasets import published

    with pytest.raises(diffbench.DataError, match="an IDX file of unsigned bytes begins with 0, 0, 8, found "):
        published._idx(b"PNG!")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(diffbench.DataError, match="files in .* are unusable; mend or remove them, or write 'damaged: skip'"):
        REGISTRY.create("dataset", "image_folder", path=str(tmp_path), size=8).load()
    with pytest.raises(diffbench.DataError, match="usable images, and three splits need at least 5"):
        REGISTRY.create("dataset", "image_folder", path=str(tmp_path), size=8, damaged="skip").load()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(diffbench.DataError, match="digits comes inside scikit-learn, and its file datasets/data/digits.csv.gz is not there; reinstall"):
        REGISTRY.create("dataset", "digits").fingerprint()


def test_a_cifar10_that_torchvision_cannot_read(tmp_path, monkeypatch):
    from diffbench_components.datasets import cifar10

    monkeypatch.setenv("DIFFBENCH_DATA", str(tmp_path))
    with pytest.raises(diffbench.DataError, match="cifar10: torchvision cannot read "):
        cifar10.Cifar10()._published(train=True)
