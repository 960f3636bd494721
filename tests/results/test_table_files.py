"""Tables as files: every value comes back as what it was, from parquet and from CSV, and no spreadsheet runs a text."""

import json
import random
import shutil
import subprocess

import pandas
import pyarrow.parquet
import pytest
from pandas.testing import assert_frame_equal

import diffbench
from diffbench.errors import DiffbenchError
from diffbench.report import exports, layout, page
from diffbench.results import frame, table_files
from diffbench.results import rows as results
from tests.helpers import made_rows

COLUMN = "scheduler.mode"
FORMULAS = ["=1+1", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", " =1+1", "'=1+1", "=cmd|' /C calc'!A0", "＝1+1"]
LIKE_NUMBERS = ["12e456789012", "004567890123", "1234567e8901", "007", "+1", "1e5", "1.50", "nan", "inf", "-inf", "12345678901234567890"]
TEXTS = [*FORMULAS, *LIKE_NUMBERS, "True", "False", "none", "NA", "null", "", "[1, 2]", "[", "a,b", 'say "x"', "two\nlines", "'", "-", "ünïcödé", "10", "-1"]
KINDS = {"text": lambda r: r.choice(TEXTS), "int": lambda r: r.choice([0, 1, -7, 2**62]), "huge": lambda r: r.choice([2**63, -(10**40)]), "truth": lambda r: r.random() < 0.5,
         "float": lambda r: r.choice([0.5, 1.0, -2.5e-300, 1e22, 0.1 + 0.2]), "list": lambda r: r.choice([[], [1], [1, "1"], [[1, 2], [True]], ["=1+1", None]]), "none": lambda r: None}


def record(i, **more):
    return {"cell_id": f"{i:012x}", "status": "ok", "reason": "", "dataset": "digits", "scheduler": "ddim", "steps": 2, "seed": 0, "noise_seed": 0, **more}


def folder_of(path, rows):
    (path / "cells").mkdir(parents=True)
    for row in rows:
        (path / "cells" / f"{row['cell_id']}.json").write_text(json.dumps(row))
    return path


def same(value, other):
    """Equal, and of one type, lists and tuples alike."""
    if isinstance(other, list):
        return isinstance(value, tuple) and len(value) == len(other) and all(map(same, value, other))
    return frame.is_missing(value) if other is None else type(value) is type(other) and value == other


@pytest.mark.parametrize("seed", range(40))
def test_generated_columns_come_back_from_every_file_with_the_types_they_had(tmp_path, seed):
    said = random.Random(seed)
    kinds = said.sample(list(KINDS), said.randint(1, 4))
    values = [KINDS[said.choice(kinds)](said) for _ in range(said.randint(1, 8))]
    rows = [record(i, **{COLUMN: value}) for i, value in enumerate(values)]
    table = results.write_tables(folder_of(tmp_path / "run", rows), {})
    numbers = {type(v) for v in values if v is not None} == {int, float} and all(abs(v) <= 2**53 for v in values if type(v) is int)
    wanted = [float(v) if numbers and v is not None else v for v in values]
    assert all(map(same, table[COLUMN].tolist(), wanted)), (values, table[COLUMN].tolist())
    for name in ("results.parquet", "results.csv"):
        assert_frame_equal(diffbench.load(tmp_path / "run" / name), table)
    shown = layout.named(table, [COLUMN])[COLUMN]
    assert len(set(shown)) == len({repr(v) if v is not None else "-" for v in wanted} | ({"-"} if "-" in wanted else set())), "no two values read alike"


@pytest.mark.parametrize(("values", "dtype"), [([1, 2], "int64"), ([1, None], "Int64"), ([True, None], "boolean"), ([0.5, 1.0], "float64"), ([1, 0.5], "float64"), ([None, None], "object")])
def test_a_column_of_one_type_has_that_type_in_parquet(tmp_path, values, dtype):
    table = frame.frame([record(i, **{COLUMN: v}) for i, v in enumerate(values)])
    (tmp_path / "x.parquet").write_bytes(table_files.as_parquet(table))
    assert table[COLUMN].dtype == dtype == diffbench.load(tmp_path / "x.parquet")[COLUMN].dtype
    assert not (pyarrow.parquet.read_schema(tmp_path / "x.parquet").field(COLUMN).metadata or {}).get(b"diffbench")


def test_a_column_of_several_types_is_marked_in_parquet_and_holds_json(tmp_path):
    (tmp_path / "x.parquet").write_bytes(table_files.as_parquet(frame.frame([record(0, **{COLUMN: 1}), record(1, **{COLUMN: "1"})])))
    assert pyarrow.parquet.read_schema(tmp_path / "x.parquet").field(COLUMN).metadata[b"diffbench"] == b"json"
    assert list(pandas.read_parquet(tmp_path / "x.parquet")[COLUMN]) == ["1", '"1"'], "as any other reader sees it"


@pytest.mark.parametrize("key", LIKE_NUMBERS)
def test_keys_that_look_like_numbers_are_texts_whoever_wrote_the_file(tmp_path, key):
    table = frame.frame([record(0, extractor_key=key, train_key=key)])
    table.to_csv(tmp_path / "plain.csv", index=False)
    (tmp_path / "ours.csv").write_bytes(table_files.as_csv(table))
    for name in ("plain.csv", "ours.csv"):
        found = diffbench.load(tmp_path / name)
        assert found["extractor_key"][0] == found["train_key"][0] == key


@pytest.mark.parametrize("text", FORMULAS)
def test_no_cell_of_any_csv_begins_a_formula_and_reading_undoes_it(tmp_path, text):
    made = [row | {"dataset": text, "backbone": text, "conditioning": text, "extractor_remark": text} for row in made_rows.rows(backbones=("unet",))]
    run = made_rows.folder(tmp_path / "run", made)
    exports.write(run, ["csv"])
    files = [run / "results.csv", *(run / "exports").glob("*.csv")]
    assert len(files) == 4
    for path in files:
        cells = pandas.read_csv(path, dtype=str, header=None, keep_default_na=False, lineterminator="\n").to_numpy().ravel()
        assert not [cell for cell in cells if cell.lstrip()[:1] in "=@＝" and cell.strip()], path
        assert not [cell for cell in cells if cell[:1] in "+\t\r" and cell], path
    assert set(diffbench.load(run / "results.csv")["dataset"]) == {diffbench.load(run)["dataset"][0]} == {text}


def test_a_number_keeps_its_sign_and_a_pivot_its_names_are_guarded():
    table = pandas.DataFrame({"column": ["=x", "-1"], "mean": [-1.5, -2.0]})
    assert table_files.as_csv(table) == b"column,mean\n'=x,-1.5\n-1,-2.0\n"
    assert table_files.pivot_as_csv(table.pivot_table(index="column", values="mean")).splitlines()[1:] == [b"-1,-2.0", b"'=x,-1.5"]


def test_downloads_of_the_page_are_guarded_as_files_are(tmp_path):
    if shutil.which("node") is None:
        pytest.skip("no node here to run the page's script")
    script = page._part("script.js")
    code = script[script.index("  const isNumber"):script.index("  function save")]
    asked = [*FORMULAS, *LIKE_NUMBERS, "-1", "10", "-", "x", "'x", "0.5", "a,b"]
    done = subprocess.run(["node", "-e", f"{code}\nconsole.log(JSON.stringify({json.dumps(asked)}.map(guarded).concat([quoted(-1.5), quoted(null), quoted('a\\rb')])))"],
                          capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [*map(table_files.guarded, asked), "-1.5", "", '"a\rb"']


@pytest.mark.parametrize("name", ["results.parquet", "results.csv"])
def test_a_file_that_is_no_table_is_a_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(b'a,b\n1,2,3,4\n"' if name.endswith("csv") else b"{}")
    with pytest.raises(DiffbenchError, match=rf"{name} is no table of results: .*\. Running the matrix again writes it anew"):
        diffbench.load(tmp_path / name)
