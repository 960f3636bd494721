"""Results that cannot be written: the other files are whole, and the run says which one is missing and why."""

import errno
import json
import os
import shutil

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.api import running
from diffbench.cli import cli
from diffbench.errors import DiskFull
from diffbench.report import page, tables
from diffbench.results import table_files
from diffbench.results.run_files import explained
from diffbench.store import disk
from tests.helpers.runs import files
from tests.running.test_engine import MATRIX, run

pytestmark = [pytest.mark.usefixtures("finished"), pytest.mark.slow]

REPORTS = {"report.html": (page, "html"), "fid.md, fid.csv, means.csv, differences.csv": (tables, "write_quality"), "throughput.md, throughput.csv": (tables, "write_throughput"),
           "results.parquet": (table_files, "as_parquet"), "results.csv": (table_files, "as_csv")}


@pytest.mark.parametrize("name", REPORTS)
def test_a_file_that_cannot_be_made_of_the_rows_costs_no_other_and_is_named(finished, tmp_path, monkeypatch, name):
    whole = set(files(finished[0] / "out"))
    with monkeypatch.context() as patch:
        patch.setattr(*REPORTS[name], lambda *_, **__: 1 / 0)
        done = run(tmp_path, MATRIX)
    (said,) = done.not_written
    assert said.startswith(f"{tmp_path / 'out'}: could not write {name}: ZeroDivisionError: division by zero (test_unwritten_results.py:")
    assert said.endswith("; the rows and the other files are whole")
    assert done.counts == {"ok": 4} and not done.is_complete
    left = {name for name in files(tmp_path / "out") if not name.startswith("events/")}
    assert {name for name in whole if not name.startswith("events/")} - left <= set(name.split(", ")), "all others are there, finished.json with them"
    last = [json.loads(line) for path in (tmp_path / "out" / "events").iterdir() for line in path.read_text().splitlines()]
    assert last[-1]["event"] == "run_finished" and any(event.get("text") == said for event in last)
    again = run(tmp_path, MATRIX)
    assert again.is_complete and again.stages_run == 0 and set(name.split(", ")) <= set(files(tmp_path / "out")), "the same line writes it"


def test_the_command_says_which_file_was_not_written_and_ends_with_1(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "html", lambda *_, **__: 1 / 0)
    (tmp_path / "matrix.yaml").write_text(json.dumps(MATRIX))
    done = CliRunner().invoke(cli, ["run", str(tmp_path / "matrix.yaml"), "--out", str(tmp_path / "out"), "--device", "cpu"])
    assert done.exit_code == 1 and "4 ok (0 stages run" in done.output and "could not write report.html: ZeroDivisionError" in done.output


def test_a_folder_that_is_removed_while_a_run_writes_to_it_is_said(finished, tmp_path):
    plan = diffbench.plan(MATRIX, device="cpu")
    with pytest.raises(diffbench.DiffbenchError, match="the folder was removed (or moved )?while this run wrote to it; what was finished is in the store"):
        running.execute(plan, out=tmp_path / "out", on_ready=lambda engine: shutil.rmtree(tmp_path / "out"))
    with pytest.raises(diffbench.DiffbenchError, match="the folder was removed or moved while this run wrote to it"), explained(tmp_path / "gone"):
        (tmp_path / "gone" / "x").write_text("")


@pytest.mark.parametrize(("code", "said"), [(errno.EFBIG, "would be larger than a file may be here: File too large; raise the limit"), (errno.EDQUOT, "disk full: "),
                                            (errno.ENOSPC, "disk full: "), (errno.EROFS, "can only be read: Read-only file system; mount it for writing again")])
def test_results_that_cannot_be_written_end_the_run_with_a_sentence(finished, tmp_path, monkeypatch, code, said):
    create = disk.Disk.create

    def full(self, path):
        if path.name.startswith(".results.csv"):
            with disk.explained(path):
                raise OSError(code, os.strerror(code), str(path))
        return create(self, path)
    monkeypatch.setattr(disk.Disk, "create", full)
    with pytest.raises(DiskFull, match=said):
        run(tmp_path, MATRIX)
    with pytest.raises(DiskFull, match=said), explained(tmp_path):
        raise OSError(code, os.strerror(code), str(tmp_path / "any file"))
