"""Messages that no test of their module provokes, each provoked here by what a user would do, or by a double of what fails."""

import errno
import json
import subprocess
import zipfile
from types import SimpleNamespace

import pytest

import diffbench
from diffbench.api import rerunning
from diffbench.errors import Damaged, DiffbenchError
from diffbench.launchers import Launcher, processes
from diffbench.matrix import loading, selection, yaml_file
from diffbench.registry.entry_points import Point
from diffbench.report import notebook_files, reading
from diffbench.results import comparing, importing
from diffbench.results.exporting import INDEX, export_run
from diffbench.results.importing import import_run
from diffbench.running.engine import Engine
from diffbench.store import disk, manifest
from diffbench.store.artefacts import Store
from diffbench.watching import event_log
from tests.conftest import REGISTRY
from tests.helpers import forking
from tests.helpers.runs import make_run
from tests.results.test_comparing import row, run
from tests.results.test_importing import first, replaced, rewritten

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
        loading.load({**BASE, **WRONG[message]}, REGISTRY)
    assert message in str(error.value)


def test_more_cells_than_allowed_and_none_left():
    with pytest.raises(diffbench.MatrixError, match=r"the product has 3 cells \(.*\), and 2 are allowed; --max-cells raises the limit"):
        loading.load({**BASE, "axes": {**BASE["axes"], "seed": [0, 1, 2]}}, REGISTRY, max_cells=2)
    with pytest.raises(diffbench.MatrixError, match="--only 'scheduler=ddpm': no cell has scheduler=ddpm; there are \"ddim\""):
        loading.load({**BASE, "axes": {**BASE["axes"], "scheduler": ["ddim", "ddpm"]}, "exclude": [{"scheduler": "ddpm", "why": "a test"}]}, REGISTRY,
                    only=["scheduler=ddpm"])


def test_a_file_that_is_no_text_or_grows(tmp_path):
    (tmp_path / "matrix.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(diffbench.MatrixError, match=r"the file is not UTF-8 text \(byte 6\)"):
        yaml_file.read(tmp_path / "matrix.yaml")
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 6)]
    with pytest.raises(diffbench.MatrixError, match="more than 50000 nodes after aliases are expanded; write the file without them"):
        yaml_file.parse("\n".join(lines))


def test_a_device_that_does_not_exist():
    with pytest.raises(DiffbenchError, match="--device: "):
        diffbench.plan(BASE, device="tpu")


def test_a_name_that_no_component_may_have(monkeypatch):
    point = Point("No-Name", "somewhere:Thing", "strange", "1", False, (), lambda: None)
    monkeypatch.setattr("diffbench.registry.entry_points.entry_points", lambda group: iter([point] if group == "diffbench.scheduler" else []))
    assert "scheduler 'No-Name' is left out: a name is [a-z][a-z0-9_]{0,63}" in [p.message for p in diffbench.Registry().problems]


def test_a_launcher_without_an_address():
    class Nowhere(Launcher):
        submit = poll = cancel = close = capacity = None
    with pytest.raises(DiffbenchError, match="--launcher: Nowhere has no address, got 'somewhere'"):
        Nowhere.open("somewhere", "cpu")


def test_a_server_of_workers_that_does_not_come_up(monkeypatch):
    monkeypatch.setattr(processes, "server_process", forking.STARTED)
    monkeypatch.setattr(processes, "START_SECONDS", 0.05)
    monkeypatch.setattr(processes.sys, "executable", "/bin/cat")      # reads its arguments as files and ends, or waits: never ready
    with pytest.raises(DiffbenchError, match=r"the worker server (was not ready after 0.05 s|ended with code \d+ before it was ready)"):
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
        comparing.compare(made, "scheduler=ddim", "scheduler=heun")
    with pytest.raises(DiffbenchError, match=r"'colour=red': no cell has 'colour'\..* Known: .*, <kind>.<option>"):
        selection.select([{"scheduler": "ddim", "seed": 0}], "colour=red")
    odd = run(tmp_path / "odd", [row("a1", 1.0, seed=1), row("a2", 1.0, seed=2), row("b3", 1.0, seed=3, scheduler="ddpm"), row("b4", 1.0, seed=4, scheduler="ddpm")])
    with pytest.raises(DiffbenchError, match="no cell of one side has a partner on the other: the sides have different values of seed, .*and several of them"):
        comparing.compare(odd, "scheduler=ddim", "scheduler=ddpm")
    (tmp_path / "odd" / "plan.json").write_text("{")
    for read in (lambda folder: comparing.ComparedRun(folder), lambda folder: reading.ReportedRun(folder).stages_of_cells()):
        with pytest.raises(DiffbenchError, match="plan.json cannot be read: .*; running the matrix again writes it anew"):
            read(tmp_path / "odd")


def test_a_row_that_does_not_tell_how_it_was_made(tmp_path):
    run(tmp_path, [row("a0", 1.0)])
    plan = json.loads((tmp_path / "plan.json").read_text())
    (tmp_path / "plan.json").write_text(json.dumps(plan | {"stages": {}}))
    with pytest.raises(DiffbenchError, match="does not tell its .*sample_batch_size: run its matrix again"):
        rerunning.rerun(tmp_path, "a0")


def test_a_notebook_that_was_worked_on(tmp_path):
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "a.json").write_text(json.dumps({"cell_id": "a", "status": "ok"}))
    notebook_files.copy(notebook_files.names()[0], tmp_path)
    next(tmp_path.rglob("*.ipynb")).write_text("{}")
    with pytest.raises(DiffbenchError, match="is there already and is not the same, perhaps by your work: move it away to have it anew"):
        notebook_files.copy(notebook_files.names()[0], tmp_path)


def test_a_cell_that_is_skipped_here_is_not_repeated(monkeypatch):
    plan = SimpleNamespace(cells=[SimpleNamespace(skipped="no socket for tokens")])
    for name in ("matrices", "make_plan", "rebuild_cell", "replace", "_device"):
        monkeypatch.setattr(rerunning, name, SimpleNamespace(load=lambda *a, **k: SimpleNamespace(run=None)) if name == "matrices" else lambda *a, **k: plan)
    then = SimpleNamespace(matrix={}, planned=lambda cell_id: {"cell": {}}, folder="runs/made")
    with pytest.raises(DiffbenchError, match="cell abc of runs/made cannot be repeated: it is skipped here, because no socket for tokens"):
        rerunning._plan(then, SimpleNamespace(cell_id="abc"), {}, REGISTRY)


def test_an_export_onto_a_file_or_of_a_torn_plan(archived, tmp_path):
    store, made, _, archive = archived
    with pytest.raises(DiffbenchError, match="--to .*run.zip: there is a file of that name already"):
        export_run(made, store, archive)
    (made / "plan.json").write_text("{")
    with pytest.raises(DiffbenchError, match="plan.json cannot be read: .*; running the matrix again writes it anew"):
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
    (replaced("plan.json", lambda data: b"[]"), "run/plan.json is not the plan of a run: it is .*, expected a mapping", True),
    (lambda members: setattr(members[INDEX][0], "compress_type", zipfile.ZIP_BZIP2), "is encrypted or compressed in a way that is not read here", False),
    (unlisted, "holds a file that its manifest does not name", True)])
def test_an_archive_that_is_refused(archived, tmp_path, change, message, keeps_index):
    rewritten(archived[3], tmp_path / "odd.zip", change, index=keeps_index)
    with pytest.raises(DiffbenchError, match=message):
        import_run(tmp_path / "odd.zip", Store(tmp_path / "other"), out=tmp_path / "out")


def test_an_archive_that_is_larger_than_allowed(archived, tmp_path, monkeypatch):
    with pytest.raises(DiffbenchError, match="it says that it unpacks to .*, and the limit is .*; raise it with --limit"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out", limit=10)
    monkeypatch.setattr(importing, "READ_LIMIT", 10)
    with pytest.raises(DiffbenchError, match="run/matrix.json is too large: 16 B, and 10 B are the most"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out")


def test_results_that_cannot_be_put_into_place(archived, tmp_path, monkeypatch):
    publish = disk.publish_folder

    def fails(aside, target, top):
        if target.name == "out":
            raise OSError(errno.EROFS, "Read-only file system")
        return publish(aside, target, top=top)
    monkeypatch.setattr(disk, "publish_folder", fails)
    with pytest.raises(DiffbenchError, match="--out .*out: the results cannot be put there: Read-only file system; the artefacts are in the store"):
        import_run(archived[3], Store(tmp_path / "other"), out=tmp_path / "out")


def test_an_artefact_whose_place_is_taken(tmp_path, monkeypatch):
    def taken(aside, target, top):
        raise OSError(errno.ENOTEMPTY, "Directory not empty")
    store = Store(tmp_path / "home")
    store.prepare()
    monkeypatch.setattr(disk, "publish_folder", taken)
    with pytest.raises(DiffbenchError, match="cannot be published: something there is in the way, and setting it aside does not help"):
        store.move_in("train", "0" * 64, tmp_path / "aside")


def test_an_artefact_that_is_damaged_however_often_it_is_built():
    def looks(stage, outcome):
        raise Damaged("the artefact train 0000 is damaged", stage="train", key="0000")
    driver = SimpleNamespace(outcomes={}, watchers=[SimpleNamespace(finished=looks)], _rebuild=lambda key, is_content: False)
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
    monkeypatch.setattr(event_log, "range", lambda *ends: [], raising=False)
    with pytest.raises(DiffbenchError, match="has written 10,000 logs here; remove the folder, no result depends on it"):
        event_log._new_file(tmp_path)
