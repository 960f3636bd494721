"""The day on a GPU, without one: every part at toy size, parts that fail, hang and die, and the page of what was never measured."""

import json
import os
import sys
import textwrap
import time

import pytest
import torch

import benchmarks.gpu.__main__ as day
from benchmarks.gpu import page
from benchmarks.gpu.day import PARTS, Day, Finding, NotMeasured, Part, attempt, without_paths

DRY_SECONDS = 240.0                   # of processors: two minutes of two cores, however busy they are


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_day_runs_dry(tmp_path, capfd):
    """What cannot be had on a CPU is said to be not measured; nothing fails."""
    began = processor_seconds()
    code = day.main(["--out", str(tmp_path), "--dry", "--seconds", "800"])
    told = capfd.readouterr().out
    assert code == 0, told
    for part in PARTS:
        record = json.loads((tmp_path / f"{part.name}.json").read_text())
        assert record["is_dry"] and {step["status"] for step in record["steps"]} <= {"ok", "not measured"}, told
        assert all(step["said"] and step["asks"].endswith(".") for step in record["steps"])
    records = {f"{part.name}.json" for part in PARTS}
    assert {path.name for path in tmp_path.iterdir()} - {f"{part.name}.log" for part in PARTS} == records, "a part that prints nothing leaves no log"
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2_000_000
    assert processor_seconds() - began < DRY_SECONDS


def processor_seconds():
    """Of all processes that this one waited for."""
    times = os.times()
    return times.children_user + times.children_system


def good(day):
    """Whether it is good."""
    return Finding("it is", {"x": 1.0})


def bad(day):
    """Whether it is bad."""
    raise ZeroDivisionError("a bad step")


def absent(day):
    """Whether it is there."""
    raise NotMeasured("there is none here")


def attempted(tmp_path, steps, seconds=60.0):
    attempt(PARTS[0], steps, Day(torch.device("cpu"), True, tmp_path, None, time.monotonic() + seconds), tmp_path / "x.json")
    return json.loads((tmp_path / "x.json").read_text())


def test_a_step_that_fails_leaves_its_traceback_and_the_next_goes_on(tmp_path):
    record = attempted(tmp_path, (bad, absent, good))
    assert record["status"] == "failed" and [step["status"] for step in record["steps"]] == ["failed", "not measured", "ok"]
    failed, missing, fine = record["steps"]
    assert failed["said"] == "ZeroDivisionError: a bad step" and "raise ZeroDivisionError" in failed["traceback"]
    assert missing["said"] == "there is none here" and fine["figures"] == {"x": 1.0} and fine["asks"] == "Whether it is good."
    assert attempted(tmp_path, (good, absent))["status"] == "not measured" and attempted(tmp_path, (good,))["status"] == "ok"


def test_steps_for_which_no_time_is_left_are_not_tried(tmp_path):
    record = attempted(tmp_path, (good,), seconds=-1.0)
    assert record["status"] == "not tried" and record["steps"][0]["said"] == "the part's time was over"


@pytest.mark.parametrize(("does", "said"), [
    ("time.sleep(600)", "it was not over after 2 s"), ("os._exit(7)", "its process ended with 7"), ("os.kill(os.getpid(), 11)", "its process ended with -11")])
def test_a_part_that_hangs_or_dies_says_where(tmp_path, does, said):
    (tmp_path / "run.py").write_text(textwrap.dedent(f"""
        import faulthandler, os, sys, time, types
        from pathlib import Path
        import torch
        from benchmarks.gpu.day import Day, Part, Finding, attempt
        def first(day):
            "First."
            return Finding("done")
        def stuck_here(day):
            "Second."
            {does}
        out = Path(sys.argv[1])
        with open(out / "x.hang", "w") as hang:
            faulthandler.dump_traceback_later(2.0, file=hang, exit=True)
            attempt(Part("x", "X", 1.0), (first, stuck_here), Day(torch.device("cpu"), True, out, None, time.monotonic() + 60), out / "x.json")
    """))
    record = day.run(Part("x", "X", 1.0), [sys.executable, str(tmp_path / "run.py"), str(tmp_path)], 2.0, tmp_path)
    assert record == json.loads((tmp_path / "x.json").read_text()) and record["status"] == "failed" and record["said"] == said
    assert [step["status"] for step in record["steps"]] == ["ok", "failed"] and record["steps"][1]["said"] == said
    assert ("stuck_here" in record["steps"][1]["traceback"]) is does.startswith("time")
    assert not (tmp_path / "x.hang").exists()


def test_a_part_that_does_not_even_begin_is_said(tmp_path):
    record = day.run(Part("x", "X", 1.0), [sys.executable, "-c", "raise SystemExit('no module of that name')"], 5.0, tmp_path)
    assert (record["status"], record["said"], record["steps"]) == ("failed", "its process ended with 1", []) and "no module of that name" in record["log"]


def test_a_part_of_another_name_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        day.main(["--out", str(tmp_path), "--parts", "right,wrong"])
    assert "no part is named wrong; parts: right, main_job" in capsys.readouterr().err


def test_the_page_and_the_figures_are_those_of_the_records():
    found = page.records()
    assert page.PAGE.read_text() == page.page(found), "write it anew: python -m benchmarks.gpu.page"
    assert json.loads(page.FIGURES.read_text()) == json.loads(json.dumps(page.figures(found)))


def test_without_records_every_figure_is_not_measured_yet():
    text, rows = page.page([]), [line for line in page.page([]).splitlines() if line.startswith("| ") and not line.startswith(("| goal", "| question", "| backbone |"))]
    assert len(rows) > 20 and all(row.endswith(f"| {page.NOT_YET} |") for row in rows) and "**failed**" not in text


def record_of(steps, **changes):
    return {"part": "networks", "is_dry": False, "date": "2027-01-31", "before": {"device": "NVIDIA H100", "torch": "2.11.0", "driver": "580"},
            "steps": [{"name": name, "status": "ok", "said": "measured", "figures": figures} for name, figures in steps.items()]} | changes


def test_measured_gains_become_figures_that_auto_decides_by():
    ways = {"about": {"parameters": 200_000}, "bfloat16": {"seconds": 4.0, "utilisation": 0.1}, "graph": {"seconds": 1.0, "set_up_seconds": 2.0, "utilisation": 0.4}}
    steps = {"training_steps": {"train": {"dit B/2": ways}}, "compiled_training_steps": {"train": {"dit B/2": {"compiled": {"gain": 1.5, "set_up_seconds": 60.0, "utilisation": 0.15}}}}}
    found = [record_of(steps), record_of({}, date="2026-01-31"), record_of({}, part="right")]
    assert page.figures(found) == {"NVIDIA H100": {"ways": [{"kind": "train", "way": "graphs", "parameters": 200_000, "gain": 4.0, "seconds": 2.0},
                                                           {"kind": "train", "way": "on", "parameters": 200_000, "gain": 1.5, "seconds": 60.0}]}}
    assert "| 40 % (graph) (NVIDIA H100) |" in page.page(found)


def test_measured_rates_become_the_number_of_workers_on_a_gpu():
    """The fewest that come near the best: 4 here, for 8 are 3 % faster."""
    rates = {"1": 100.0, "2": 190.0, "4": 300.0, "8": 309.0, "1 from a graph": 400.0, "8 from a graph": 500.0}
    steps = {"trainings_in_processes": {"processes": {"unet 0.2 M": {"parameters": 200_000, "images_per_second": rates},
                                                      "unet 2 M": {"parameters": 2_000_000, "images_per_second": {"1": 50.0}}}}}
    assert page.figures([record_of(steps, part="small_networks")]) == {"NVIDIA H100": {"sharing": [{"parameters": 200_000, "workers": 4, "gain": 3.0}]}}


def test_a_dry_record_is_no_record(tmp_path):
    (tmp_path / "day").mkdir()
    (tmp_path / "day" / "networks.json").write_text(json.dumps(record_of({}, is_dry=True)))
    assert page.records(tmp_path) == []
    (tmp_path / "day" / "networks.json").write_text(json.dumps(record_of({})))
    assert [r["date"] for r in page.records(tmp_path)] == ["2027-01-31"]


@pytest.mark.parametrize(("text", "published"), [
    ('File "/scratch/somebody/checkout/benchmarks/gpu/day.py", line 3', 'File "benchmarks/gpu/day.py", line 3'),
    ("--junitxml=/scratch/ab/tests.xml", "--junitxml=tests.xml"),
    ("the artefact in /scratch/ab/home/store/sample/af/afb is damaged", "the artefact in afb is damaged"),
    ("DiT-B/2 at 3/4 of 12 images/s, https://a.b/c/d, tests/stages/test_x.py", "DiT-B/2 at 3/4 of 12 images/s, https://a.b/c/d, tests/stages/test_x.py"),
])
def test_records_hold_no_paths_of_a_machine(text, published):
    assert without_paths(text) == published


def test_the_records_that_are_kept_hold_none():
    for path in (*page.RECORDS.glob("*/*.json"), page.PAGE):
        text = path.read_text()
        assert text == without_paths(text), path
