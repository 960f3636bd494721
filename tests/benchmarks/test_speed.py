"""Comparing times with another version: pairs of processes, cases, what is refused, and one whole comparison with another commit."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click import UsageError
from click.testing import CliRunner

import diffbench
from benchmarks.speed import gate, other_version
from benchmarks.speed.__main__ import command
from benchmarks.speed.cases import cases, ours
from benchmarks.speed.pairs import LAPS, Request, Version, measure
from diffbench.errors import DiffbenchError
from diffbench.testing.speed import figures
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]
KINDS = ("scheduler", "backbone", "conditioning", "objective", "dataset", "extractor")


def bench(*arguments):
    """(exit code, standard output, standard error)."""
    result = CliRunner().invoke(command, [*arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout, result.stderr


FAKE = """\
import json, sys
facts, seconds, log = json.loads({facts!r}), {seconds}, open({log!r}, "a", buffering=1)
for line in sys.stdin:
    message = json.loads(line)
    if message["do"] == "begin":
        answer = facts
    elif message["case" if message["do"] == "prepare" else "do"] == "broken":
        answer = {{"why": "TypeError: no such option"}}
    else:
        runs = message.get("runs", 1)
        log.write(f"{{message['do']}} {name} {{runs}}\\n")
        answer = {{"wall": seconds * runs, "processor": 2 * seconds * runs}}
    print(json.dumps(answer), flush=True)
"""


class TestPairs:
    """With processes that measure nothing and say what they were told to."""

    MACHINE = {"torch": "2.15", "threads": 1}

    def version(self, folder, name, seconds=0.01, cases=("x",), machine=MACHINE, **facts):
        home = folder / name
        home.mkdir()
        facts = {"cases": list(cases), "machine": machine, "from": str(home / "diffbench" / "__init__.py")} | facts
        script, python = home / "fake.py", home / "python"
        script.write_text(FAKE.format(facts=json.dumps(facts), seconds=seconds, log=str(folder / "log"), name=name))
        python.write_text(f"#!/bin/sh\nexec {sys.executable} {script}\n")
        python.chmod(0o755)
        return Version(name=name, python=str(python), path=(str(home),))

    def measure(self, there, here, pairs=3, **asked):
        return measure(there, here, Request(**asked), pairs)

    def test_laps_are_taken_in_turns_and_who_begins_alternates(self, tmp_path):
        found = self.measure(self.version(tmp_path, "there"), self.version(tmp_path, "here", seconds=0.011))
        told = (tmp_path / "log").read_text().splitlines()
        assert told[:2] == ["prepare there 1", "prepare here 1"]
        assert told[2:8] == ["lap there 2", "lap here 2", "lap here 2", "lap there 2", "lap there 2", "lap here 2"], "laps of 20 ms: two runs"
        assert len(found.laps["x", "wall"]) == 3 and all(len(laps.there) == len(laps.here) == LAPS for laps in found.laps["x", "wall"])
        assert [laps.ratio for laps in found.laps["x", "wall"]] == pytest.approx([1.1] * 3)
        assert found.laps["x", "processor"][0].there == pytest.approx([0.02] * LAPS) and found.machine == self.MACHINE

    def test_code_that_is_slowed_is_found_to_be(self, tmp_path):
        found = measure(self.version(tmp_path, "there", 0.001), self.version(tmp_path, "here", 0.001), Request(), 3,
                        slowed=1.05)
        (verdict,) = gate.judge(found.laps)
        assert verdict.ratio == pytest.approx(1.05) and verdict.is_slower

    def test_the_processors_clock_says_nothing_of_several_threads(self, tmp_path):
        assert set(self.measure(self.version(tmp_path, "there"), self.version(tmp_path, "here"), threads=2).laps) == {("x", "wall")}

    def test_what_one_version_cannot_do_is_left_out_with_the_reason(self, tmp_path):
        found = self.measure(self.version(tmp_path, "there", cases=["x", "old", "broken"]), self.version(tmp_path, "here", cases=["x", "new", "broken"]))
        assert {name for name, _ in found.laps} == {"x"}
        assert found.left_out == {"new": "there has no such case", "old": "here has no such case", "broken": "in there: TypeError: no such option"}

    def test_versions_on_different_torch_are_not_compared(self, tmp_path):
        with pytest.raises(DiffbenchError, match="cannot be compared, the difference would not be ours: torch 2.14 and 2.15"):
            self.measure(self.version(tmp_path, "there", machine={"torch": "2.14", "threads": 1}), self.version(tmp_path, "here"))

    def test_a_version_that_cannot_begin(self, tmp_path):
        with pytest.raises(DiffbenchError, match="there cannot be measured: ImportError: no torch"):
            self.measure(self.version(tmp_path, "there", why="ImportError: no torch"), self.version(tmp_path, "here"))

    def test_a_process_that_ends(self, tmp_path):
        there = self.version(tmp_path, "there")
        Path(there.python).write_text("#!/bin/sh\nexit 3\n")
        with pytest.raises(DiffbenchError, match="the process that measures there ended with exit code 3 at "):
            self.measure(there, self.version(tmp_path, "here"))

    def test_a_version_that_another_installation_hides(self, tmp_path):
        elsewhere = str(tmp_path / "elsewhere" / "diffbench" / "__init__.py")
        with pytest.raises(DiffbenchError, match="and its process imported diffbench from .*elsewhere"):
            self.measure(self.version(tmp_path, "there", **{"from": elsewhere}), self.version(tmp_path, "here"))


class TestCases:
    ALL = cases(REGISTRY)

    def test_every_registered_component_of_every_timed_kind_has_one(self):
        for kind in KINDS:
            for ref in REGISTRY.refs(kind):
                assert any(case.name.startswith(f"{kind} {ref.full_name}: ") and case.is_timed for case in self.ALL), f"{kind} {ref.full_name} is not timed"

    def test_names_are_unique_and_the_harness_has_its_own(self):
        assert len({case.name for case in self.ALL}) == len(self.ALL)
        assert {case.name.partition(":")[0] for case in self.ALL} >= {"frechet", "training", "sampling", "plan", "store", "run"}

    def test_components_are_chosen_by_name_and_cases_by_all_phrases(self):
        names = [case.name for case in cases(REGISTRY, ["ddim", "unet"], ["step", "8x8"])]
        assert names == ["scheduler ddim: a step of 64x1x8x8"]
        assert {case.name for case in ours(REGISTRY)} <= {case.name for case in self.ALL}

    @pytest.mark.parametrize("case", [case for case in ALL if case.name.startswith(("plan", "store"))], ids=lambda case: case.name)
    def test_cases_that_are_timed_and_not_counted_can_be_run_twice(self, case):
        work = case.prepare(CPU)
        work.run()
        work.run()


class TestFigures:
    def test_times_come_with_their_machine_and_are_compared_on_it_alone(self, tmp_path):
        code, out, _ = bench("-k", "frechet", "-k", "length 64", "--json")
        stored = json.loads(out)
        assert code == 0 and stored["machine"]["torch"] == torch.__version__ and stored["machine"]["threads"] == torch.get_num_threads()
        (figure,) = stored["figures"]
        assert 0 < figure["low"] <= figure["seconds"] <= figure["high"]
        path = tmp_path / "before.json"
        path.write_text(out)
        assert figures.seconds_before(path, "cpu") == {figure["case"]: figure["seconds"]}
        stored["machine"]["threads"] += 3
        path.write_text(json.dumps(stored))
        with pytest.raises(DiffbenchError, match=r"were taken elsewhere and are not compared: then and now threads 4 and 1"):
            bench("-k", "frechet", "--beside", str(path))

    def test_a_ratio_stands_beside_earlier_times(self, tmp_path):
        path = tmp_path / "before.json"
        path.write_text(json.dumps({"machine": figures.machine_key("cpu"), "left_out": {}, "figures": [
            {"case": "frechet: distance of 1000 from 1000 features of length 64", "seconds": 1e-9}]}))
        _, out, _ = bench("-k", "frechet", "-k", "length 64", "--beside", str(path))
        assert "ratio to before" in out and "threads 1" in out

    def test_another_file_is_refused(self, tmp_path):
        (tmp_path / "x.json").write_text("{}")
        with pytest.raises(DiffbenchError, match="is not what `diffbench bench --json` writes"):
            figures.seconds_before(tmp_path / "x.json", "cpu")


class TestRefusals:
    def test_two_ways_to_compare_at_once(self):
        with pytest.raises(UsageError, match="give one of them"):
            bench("--against", "HEAD", "--counts", "x.json")

    def test_fewer_than_three_pairs(self):
        with pytest.raises(UsageError, match="3"):
            bench("--against", "HEAD", "--pairs", "2")

    def test_an_unknown_commit(self):
        in_a_checkout()
        with pytest.raises(DiffbenchError, match="there is no commit 'no-such-thing'"):
            bench("--against", "no-such-thing")

    def test_an_installation_that_is_no_checkout(self, monkeypatch, tmp_path):
        monkeypatch.setattr(diffbench, "__file__", str(tmp_path / "diffbench" / "__init__.py"))
        with pytest.raises(DiffbenchError, match="needs a git checkout"):
            bench("--against", "HEAD")

    def test_no_case_that_fits(self):
        with pytest.raises(DiffbenchError, match="`python -m benchmarks.speed` means no case: kinds that have some are backbone"):
            bench("-k", "nothing")

    def test_another_torch_is_not_compared(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text('dependencies = [\n  "torch>=99",\n  "numpy>=2",\n]\n')
        with pytest.raises(DiffbenchError, match="needs torch>=99, and times on two versions of torch are not compared"):
            other_version._environment(tmp_path, tmp_path / "environment")

    def test_other_keys_are_not_compared(self):
        assert figures.differences({"torch": "2.14", "threads": 1}, {"torch": "2.15", "threads": 1}) == "torch 2.14 and 2.15"


def in_a_checkout():
    try:
        other_version.here()
    except DiffbenchError as reason:
        pytest.skip(str(reason))


def test_the_environment_of_this_version_serves_a_version_that_asks_for_the_same():
    assert other_version._environment(ROOT, Path("not made"))[1].startswith("in this interpreter's environment")


@pytest.mark.slow
def test_a_comparison_with_the_last_commit():
    """Threshold 1.5: the claim is that everything works, not that two equal versions are never 3 % apart."""
    in_a_checkout()
    code, out, said = bench("--against", "HEAD", "ddim", "-k", "8x8", "--threshold", "1.5", "--json")
    found = json.loads(out)
    assert code == 0 and found["there"].startswith("HEAD (") and found["environment"].startswith("in this interpreter's environment")
    (case,) = found["cases"]
    assert len(case["ratios"]) == 3 and case["there_seconds"] > 0 and case["clock"] == "processor" and case["verdict"] == "no difference found"
    assert found["machine"]["torch"] == torch.__version__ and "pair 3 of 3 measured" in said
    worktrees = subprocess.run(["git", "-C", str(ROOT), "worktree", "list"], capture_output=True, text=True, check=True).stdout
    assert "diffbench-against-" not in worktrees, "what was checked out is gone"
