"""Folders of results: a run takes an empty one or its own, and removes nothing there that it did not write."""

import json
import os
import shutil
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.api import running
from diffbench.cli import cli
from diffbench.errors import DiffbenchError
from diffbench.launchers import Capacity, Launcher
from diffbench.report import written_files
from diffbench.store import claims, output_folder
from diffbench.store.artefacts import Store
from diffbench.store.claims import Claims
from diffbench.store.output_folder import alone_in, identity, prepare
from tests.helpers import made_rows
from tests.helpers.runs import files

MATRIX = {"diffbench": 1, "name": "small", "dataset": "digits", "metrics": [], "axes": {
    "backbone": {"dit": {"patch": 4, "width": 16, "depth": 1, "heads": 2}}, "scheduler": {"ddim": {"steps": 2}}}}
# What people keep in a folder, some of it named much as diffbench names what it is writing.
THEIRS = (".pre-commit-config.yaml", ".gitignore", ".clang-format", ".env-local", ".writable", ".notes.md-0123abcd", "notes.md",
          ".git-backup/.a-b", "sub/.env-local", "cells/.mine.json-0123abcd", "cells/thesis.json", "samples/.x-0123abcd",
          ".claim-odd/file", ".claim-1-2-3-4/file", "trash/.plan.json-0123abcd")


def fill(folder, names=THEIRS):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("keep")
    return {name: b"keep" for name in names}


@pytest.mark.parametrize("name", [".pre-commit-config.yaml", "notes.md", "sub/x", ".git/config", "plan.json", "run.json", "matrix.json", ".claim-odd"])
def test_a_folder_with_something_else_is_refused_and_left_as_it_is(tmp_path, name):
    kept = fill(tmp_path, [name])
    with pytest.raises(DiffbenchError, match="and no run of diffbench; name a new folder, an empty one or one of an earlier run"):
        prepare(tmp_path)
    assert files(tmp_path) == kept


def test_nothing_of_theirs_is_touched_in_a_folder_that_holds_a_run_too(tmp_path):
    """As an earlier version left it, which took any folder."""
    (tmp_path / "plan.json").write_text(json.dumps({"cells": [], "stages": {}}))
    kept = fill(tmp_path)
    left = (".plan.json-0123abcd", ".writable-0123abcd", ".report.html-0123abcd", "cells/.0123456789ab.json-0123abcd", "samples/.0123456789ab.png-0123abcd")
    fill(tmp_path, left)
    for _ in range(2):
        prepare(tmp_path)
        with alone_in(tmp_path, wait=False) as check:
            check()
    assert {name: data for name, data in files(tmp_path).items() if name not in ("plan.json", "run.json")} == kept


def test_an_identity_is_drawn_once(tmp_path):
    prepare(tmp_path / "a")
    with alone_in(tmp_path / "a", wait=False):
        first = identity(tmp_path / "a")
    prepare(tmp_path / "a")
    with alone_in(tmp_path / "a", wait=False):
        assert identity(tmp_path / "a") == first and len(first) == 32
    assert sorted(os.listdir(tmp_path / "a")) == ["run.json"] and identity(tmp_path) is None


@pytest.mark.parametrize("left", [[".run/owner.json"], [".run/owner.json", ".run.json-0123abcd"], [".writable-0123abcd"], ["run.json"]])
def test_a_first_run_that_was_killed_goes_on(tmp_path, left):
    fill(tmp_path, left)
    if left == ["run.json"]:
        (tmp_path / "run.json").write_text(json.dumps({"diffbench": "run", "id": "0" * 32}))
    prepare(tmp_path)


def test_links_lead_to_folders_that_are_judged_alike(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    fill(tmp_path / "full", ["x"])
    for name in ("empty", "full", "nowhere"):
        (tmp_path / f"to {name}").symlink_to(tmp_path / name)
    prepare(tmp_path / "to empty")
    with pytest.raises(DiffbenchError, match="holds 'x'"):
        prepare(tmp_path / "to full")
    with pytest.raises(DiffbenchError, match="the folder cannot be written"):
        prepare(tmp_path / "to nowhere")
    (tmp_path / "cells").mkdir()
    fill(tmp_path / "cells", [".0123456789ab.json-0123abcd"])
    (tmp_path / "empty" / "cells").symlink_to(tmp_path / "cells")
    with alone_in(tmp_path / "empty", wait=False):
        assert (tmp_path / "cells" / ".0123456789ab.json-0123abcd").exists(), "of a folder elsewhere"


def test_what_is_in_the_place_of_a_claim_is_said_and_stays(tmp_path):
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / ".run").write_text("keep")
    with pytest.raises(DiffbenchError, match=r"\.run is no folder, and the folder of this name says who works here: move it away"), alone_in(tmp_path / "file", False):
        pass
    kept = fill(tmp_path / "folder", [".run/Server.run.xml"])
    with pytest.raises(DiffbenchError, match="holds 'Server.run.xml', which is not diffbench's, and the folder of this name"), alone_in(tmp_path / "folder", False):
        pass
    assert (tmp_path / "file" / ".run").read_text() == "keep" and files(tmp_path / "folder") == kept


def test_a_claim_that_is_put_aside_loses_its_own_files_only(tmp_path):
    aside = tmp_path / f".claim-{2**22}-1-{claims._short(claims.table.place())}-0123abcd"
    fill(aside, ["owner.json", "beat", "worker-7.json", "thesis.tex"])
    claims.sweep(tmp_path)
    assert os.listdir(aside) == ["thesis.tex"]
    (aside / "thesis.tex").unlink()
    claims.sweep(tmp_path)
    assert not aside.exists()


class Idle(Launcher):
    """Starts nothing, and nothing ends."""

    def capacity(self, device, widest, jobs):
        return Capacity(slots=1, threads=1, machines=1)

    def submit(self, job):
        pass

    def poll(self, seconds):
        time.sleep(0.05)
        return []

    cancel = submit

    def close(self):
        pass


@pytest.mark.parametrize("is_made_again", [False, True])
def test_a_folder_that_is_removed_meanwhile_ends_the_run_with_a_sentence(tmp_path, is_made_again):
    made = diffbench.plan(MATRIX, device="cpu")

    def remove():
        shutil.rmtree(tmp_path / "out")
        if is_made_again:
            fill(tmp_path / "out", ["theirs"])
    with pytest.raises(DiffbenchError, match="the folder was removed while this run wrote to it; what was finished is in the store"):
        running.execute(made, out=tmp_path / "out", store=Store(tmp_path / "home"), make_launcher=Idle, on_ready=lambda engine: threading.Timer(0.1, remove).start())
    assert files(tmp_path / "out") == ({"theirs": b"keep"} if is_made_again else {})


def test_records_of_cells_that_are_gone_go_and_no_others(tmp_path):
    made = diffbench.plan(MATRIX, device="cpu")
    from diffbench.results.rows import Rows
    fill(tmp_path, ["cells/0123456789ab.json", "cells/thesis.json", "cells/ABCDEF012345.json"])
    Rows(made, Store(tmp_path / "home"), tmp_path, {}).start()
    assert sorted(os.listdir(tmp_path / "cells")) == ["ABCDEF012345.json", "thesis.json"]


def test_every_file_of_a_run_is_one_that_its_writer_is_known_to_make(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(others=False), pictures=True)
    from diffbench.report import page, tables
    from diffbench.report.reading import ReportedRun
    tables.write(run, ReportedRun(run).rows, ("backbone",), ("scheduler",), tables.Facts(name="x", real=tables.RealImages(), machine={}, columns=made_rows.MEANING))
    page.write(ReportedRun(run), run / page.FILE, Store(tmp_path / "home"))
    for name in files(run):
        place, _, file = name.rpartition("/")
        assert output_folder.FILES[place].fullmatch(file), name


def test_exports_replace_what_was_exported_and_nothing_else(tmp_path):
    out = tmp_path / "paper"
    fill(out, ["results.csv", ".gitignore"])
    with pytest.raises(DiffbenchError, match=r"results\.csv is there already and is not as diffbench wrote it: move it away, or name another folder with --out"):
        written_files.write(out, {"means.csv": b"1", "results.csv": b"2"})
    assert sorted(os.listdir(out)) == [".gitignore", "results.csv"] and (out / "results.csv").read_text() == "keep"
    for content in (b"2", b"3"):
        written_files.write(out, {"means.csv": content})
    (out / "means.csv").write_text("edited by hand")
    with pytest.raises(DiffbenchError, match="means.csv is there already"):
        written_files.write(out, {"means.csv": b"4"})
    (out / "link.md").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DiffbenchError, match="link.md is there already"):
        written_files.write(out, {"link.md": b"4"})


def test_a_page_elsewhere_replaces_no_page_of_somebody_else(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))
    run = made_rows.folder(tmp_path / "run", made_rows.rows(backbones=("unet",), others=False))
    fill(tmp_path / "site", ["report.html"])
    done = CliRunner().invoke(cli, ["report", str(run), "--out", str(tmp_path / "site")])
    assert "is not as diffbench wrote it" in str(done.exception) and (tmp_path / "site" / "report.html").read_text() == "keep"
    for _ in range(2):
        for out in ([], ["--out", str(tmp_path / "new")]):
            assert CliRunner().invoke(cli, ["report", str(run), *out], catch_exceptions=False).exit_code == 0


def test_init_new_schema_and_export_replace_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("matrix.yaml", "mine"):
        Path(name).symlink_to("nowhere")
    fill(tmp_path, ["notes.json"])
    for words, sentence in ((["init"], "matrix.yaml is there already"), (["new", "scheduler", "mine"], "mine is there already"),
                            (["schema", "--out", "notes.json"], "there is a file already that is no schema of diffbench; name another one")):
        assert sentence in str(CliRunner().invoke(cli, words).exception)
    for _ in range(2):
        assert CliRunner().invoke(cli, ["schema", "--out", "s.json"], catch_exceptions=False).exit_code == 0
    run = made_rows.folder(tmp_path / "run", made_rows.rows(others=False))
    done = CliRunner().invoke(cli, ["export", str(run), "--to", str(tmp_path / "no" / "x.zip")])
    assert "there is no folder" in str(done.exception) and "make it first" in str(done.exception)
    assert Path("matrix.yaml").is_symlink() and Path("mine").is_symlink() and Path("notes.json").read_text() == "keep"


def test_others_wait_for_the_claim(tmp_path):
    prepare(tmp_path)
    mine = Claims()
    assert mine.take(tmp_path / ".run") is None
    with pytest.raises(DiffbenchError, match="writes to this folder; wait for it with --wait, or name another folder"), alone_in(tmp_path, wait=False):
        pass
    mine.close()
