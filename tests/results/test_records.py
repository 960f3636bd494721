"""Records of cells: a file that is none costs its own row, and texts are such that every table and page can hold them."""
import json

import pandas
import pytest

import diffbench
from diffbench import wording
from diffbench.launchers import Ended
from diffbench.report import page, reading, tables
from diffbench.results import folder, records
from diffbench.results import rows as results
from diffbench.running.attempt import Attempt
from diffbench.stages import failure
from diffbench.store.artefacts import Store
from tests.helpers import made_rows
from tests.helpers.made_rows import FD

UNFIT = "caf\udce9 \0 \x1b]0;title\x07 \x85 \ud83d"
PLAIN = "caf\\udce9 \\x00 \\x1b]0;title\\x07 \\x85 \\ud83d"


class Silent(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(("error", "reason"), [
    (FileNotFoundError("/data/caf\udce9.npy\0"), "FileNotFoundError: /data/caf\\udce9.npy\\x00 ("), (diffbench.DataError("caf\udce9"), "caf\\udce9"),
    (ValueError("two\nlines\x1b[2J"), "ValueError: two lines\\x1b[2J ("), (diffbench.DataError("x" * 10**7), "x" * 2000 + " ... (10000000 characters in all)"),
    (Silent(), "Silent: its message cannot be had: RuntimeError (")])
def test_a_reason_is_text_where_it_is_made(error, reason):
    try:
        raise error
    except Exception as raised:  # noqa: BLE001
        said = failure.failure(raised)["reason"]
    assert said.startswith(reason) and said.isprintable() and len(said.encode()) < 2100


@pytest.mark.parametrize("written", ["error.json", "log.txt"])
def test_a_reason_of_a_worker_that_says_anything_is_text(tmp_path, written):
    words = {"error.json": json.dumps({"status": "failed", "kind": "code", "reason": UNFIT + "x" * 10**6}).encode(), "log.txt": b"y" * 10**6 + b"\xe9\0" + b"x" * 10**4}
    (tmp_path / written).write_bytes(words[written])
    failure = Attempt(None, tmp_path, limit=None, stall=1.0).failure(Ended(id="x", code=1))
    assert failure.reason.isprintable() and failure.reason.encode() and len(failure.reason) < 2200


@pytest.mark.parametrize("said", ['{"done": 1e999, "of": 2, "figures": {}}', '{"done": "1", "of": 2, "figures": {}}', '{"done": 1, "of": 2, "figures": []}', "[]", "null", "7"])
def test_progress_that_is_none_is_no_news(tmp_path, said):
    (tmp_path / "started.json").write_text("{}")
    (tmp_path / "progress.json").write_text(said)
    assert Attempt(None, tmp_path, limit=None, stall=1.0).look(at_once=True) is None


BAD = {"torn": "{", "list": "[1]", "number": "7", "nothing": "", "deep": "[" * 100_000, "constant": '{"cell_id": "constant", "status": "ok", "x": NaN}', "other": '{"cell_id": "b", "status": "ok"}',
       "status": '{"cell_id": "status", "status": "done"}', "seed": '{"cell_id": "seed", "status": "ok", "seed": "0"}', "none": '{"cell_id": "none", "status": "ok", "seed": null}',
       "text": '{"cell_id": "text", "status": "ok", "fd_x": "5"}', "huge": '{"cell_id": "huge", "status": "ok", "fd_x": 1' + "0" * 400 + "}", "list2": '{"cell_id": "list2", "status": "ok", "dataset": ["a"]}',
       "map": '{"cell_id": "map", "status": "ok", "scheduler.x": {"a": 1}}', "count": '{"cell_id": "count", "status": "ok", "sample_count": 1.5}',
       "kinds": '{"cell_id": "kinds", "status": "ok", "more_kinds": 7}', "kinds2": '{"cell_id": "kinds2", "status": "ok", "more_kinds": ["seed"]}',
       "kind": '{"cell_id": "kind", "status": "ok", "more_kinds": ["codec"], "codec": 3}',
       "blocks": '{"cell_id": "blocks", "status": "ok", "left_out": {"fd_x": [null]}}', "digits": '{"cell_id": "digits", "status": "ok", "x": 1' + "0" * 5000 + "}"}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_is_none_is_a_failed_row_and_costs_no_other(tmp_path, name):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(others=False)[:6])
    (run / "cells" / f"{name}.json").write_text(BAD[name])
    table = results.write_tables(run, made_rows.MEANING)
    row = table[table["status"] == "failed"].iloc[0]
    assert len(table) == 7 and row["cell_id"] == name and row["reason"].startswith(f"cells/{name}.json is no record of a cell: ")
    assert row["reason"].endswith(". Running the matrix again writes it anew")
    tables.write(run, table, ("backbone",), ("scheduler",), tables.Facts(name="x", real=tables.RealImages(), machine={}, columns=made_rows.MEANING, records=folder.RunFolder(run).records))
    assert f"cells/{name}.json is no record" in (run / "fid.md").read_text()


def test_what_is_no_file_is_no_record(tmp_path):
    run = made_rows.folder(tmp_path / "run", made_rows.rows(others=False)[:2])
    (run / "cells" / "folder.json").mkdir()
    assert "it is no file" in folder.RunFolder(run).records["folder"]["reason"]


def test_texts_of_a_record_are_plain_when_it_is_written_and_when_it_is_read(tmp_path):
    row = made_rows.rows(others=False)[0] | {"dataset": UNFIT, "scheduler.name": [UNFIT], UNFIT: 1.0, "reason": "y" * 10**7, "train_laps": {"noise": [UNFIT]}}
    stored = records.storable(row | {"x": float("inf"), "truth": True})
    assert stored["dataset"] == PLAIN and stored["scheduler.name"] == [PLAIN] and stored[PLAIN] == 1.0 and stored["train_laps"] == {"noise": [PLAIN]}
    assert len(stored["reason"]) < 10_100 and stored["x"] is None and stored["truth"] == 1.0
    run = made_rows.folder(tmp_path / "run", made_rows.rows(others=False)[1:3])
    (run / "cells" / f"{row['cell_id']}.json").write_text(json.dumps(row))
    results.write_tables(run, made_rows.MEANING)
    for name in ("results.parquet", "results.csv"):
        assert PLAIN in set(diffbench.load(run / name)["dataset"])
    page.write(reading.ReportedRun(run), run / page.FILE, Store(tmp_path / "store"))
    assert wording.encoded("caf\udce9") == b"caf\\udce9"


FAILS = {"once": lambda i: i == 0, "all but one": lambda i: i, "always": lambda i: True}


@pytest.mark.parametrize("fails", FAILS.values(), ids=FAILS)
def test_a_row_that_failed_keeps_its_numbers_and_nothing_is_concluded_from_them(tmp_path, fails):
    """As where one metric of several raises: the values of the others stand in the row."""
    made = made_rows.rows(others=False, seeds=((0, 0),), scales=(1.5,))
    good = [row for i, row in enumerate(made) if not fails(i)]
    for i, row in enumerate(made):
        if fails(i):
            row |= {"status": "failed", "reason": "evaluate: ValueError: fails once", FD: -987654.0, f"{FD}_debiased": -987654.0, "sample_images_per_second": 1e6, "class_accuracy": None}
    made_rows.folder(tmp_path / "run", made)
    made_rows.folder(tmp_path / "without", good)
    meaning = made_rows.MEANING
    for name, rows in (("run", made), ("without", good)):
        folder = tmp_path / name
        for old in ("fid.csv", "means.csv", "throughput.md"):
            (folder / old).write_text("of an earlier state")
        facts = tables.Facts(name="x", real=tables.RealImages(), machine={}, columns=meaning, records={r["cell_id"]: r for r in rows})
        table = diffbench.load(folder)
        table["sample_images_per_anchor"] = table["sample_images_per_second"]
        tables.write(folder, table, ("backbone",), ("scheduler",), facts)
    run, without = tmp_path / "run", tmp_path / "without"
    for name in ("fid.csv", "means.csv", "differences.csv", "throughput.csv"):
        assert (run / name).exists() == (without / name).exists() == bool(good)
        if good:
            assert (run / name).read_bytes() == (without / name).read_bytes(), "the rows that are ok say what they say alone"
    text = (run / "fid.md").read_text()
    assert "-987654" not in text and "evaluate: ValueError: fails once" in text and text.count("| failed") == len(made) - len(good)
    assert ("Nothing was measured." in text) == (not good)
    source = reading.ReportedRun(run)
    if len(good) != 1:                         # a page is megabytes
        shown = page.html(source, Store(tmp_path / "store"))
        assert "fails once" in shown and "-987654" not in shown and f"{len(made) - len(good)} failed" in shown
    assert [repr(s.means) for s, _ in source.sheets] == [repr(s.means) for s, _ in reading.ReportedRun(without).sheets] and bool(source.sheets) == bool(good)
    assert (pandas.read_parquet(run / "results.parquet")[FD] == -987654.0).sum() == len(made) - len(good), "the value stays in its row"
