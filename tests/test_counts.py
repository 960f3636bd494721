"""Counts that gate every change: what was reviewed in benchmarks/counts.json, and that counting is right where the answer is known."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import diffbench
from diffbench.benching import counting, stored_counts
from diffbench.benching.cases import Work, cases
from diffbench.cli.bench import command
from diffbench.errors import DiffbenchError
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
FILE = Path(__file__).resolve().parents[1] / "benchmarks" / "counts.json"
UPDATE = "diffbench bench --counts benchmarks/counts.json --update"
STORED = stored_counts.read(FILE).get(stored_counts.torch_version())
CASES = [case for case in cases(REGISTRY) if case.is_counted]


def prepared(case):
    try:
        return case.prepare(CPU)
    except DiffbenchError as reason:
        pytest.skip(str(reason))


def stored_for(case):
    if STORED is None:
        pytest.skip(f"benchmarks/counts.json has no counts for torch {stored_counts.torch_version()}: measured ones could not be compared")
    if not case.is_ours:
        pytest.skip("a stranger's component has no stored count")
    assert case.name in STORED, f"{case.name} has no stored counts; run `{UPDATE}` and commit the file"
    return STORED[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_counts_are_as_reviewed(case):
    work = prepared(case)
    found = counting.count(work, CPU)
    assert not stored_counts.changes(case.name, stored_for(case), found, UPDATE)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.suite == "backbone" and case.name.partition(": ")[2].startswith("forward of")],
                         ids=lambda case: case.name)
def test_graph_breaks_are_as_reviewed(case):
    found = counting.graph_breaks(prepared(case))
    assert not stored_counts.changes(case.name, stored_for(case), {"graph_breaks": found}, UPDATE)


def test_no_stored_count_is_of_a_case_that_is_gone():
    assert set(STORED or ()) <= {case.name for case in CASES}, f"run `{UPDATE}` and commit the file"


def counted(run, **more):
    return counting.count(Work(run=run, **more), CPU)


class TestCounting:
    def test_operators_flops_and_bytes_of_a_product(self):
        a, b = torch.ones(3, 5), torch.ones(5, 7)
        assert counted(lambda: a @ b) == {"operations": 1, "synchronisations": 0, "flops": 2 * 3 * 5 * 7, "peak_bytes": 4 * 3 * 7}

    def test_backward_is_counted_too(self):
        a, b = torch.ones(3, 5, requires_grad=True), torch.ones(5, 7)

        def run():
            (a @ b).backward(torch.ones(3, 7))
            a.grad = None
        assert counted(run)["flops"] == 2 * (2 * 3 * 5 * 7), "a product forward and one for the gradient"

    def test_the_peak_is_of_what_lives_at_once(self):
        x = torch.ones(1000)                              # 4000 bytes, made before

        def two_after_another():
            y = x + 1
            del y
            z = x + 2
            del z

        def two_together():
            y = x + 1
            z = x + 2
            return y, z
        assert counted(two_after_another)["peak_bytes"] == 4000
        assert counted(two_together)["peak_bytes"] == 8000

    def test_a_view_and_a_change_in_place_take_no_memory(self):
        x = torch.ones(1000)
        assert counted(lambda: x.view(10, 100).t().add_(1))["peak_bytes"] == 0

    def test_what_autograd_keeps_is_memory(self):
        x = torch.ones(1000, requires_grad=True)
        assert counted(lambda: x.exp().exp().exp())["peak_bytes"] == 3 * 4000
        with torch.no_grad():
            assert counted(lambda: x.exp().exp().exp())["peak_bytes"] == 2 * 4000

    @pytest.mark.parametrize(("wait", "times"), [
        (lambda x: x.sum().item(), 1), (lambda x: float(x[0]) + float(x[1]), 2), (lambda x: x.nonzero(), 1), (lambda x: x[x > 0], 1), (lambda x: bool(x.any()), 1),
        (lambda x: x.tolist(), 0), (lambda x: x.masked_fill(x > 0, 1.0), 0), (lambda x: x[torch.tensor([0, 1])], 0), (lambda x: torch.where(x > 0, x, -x), 0),
    ])
    def test_what_waits_for_the_device(self, wait, times):
        x = torch.ones(4)
        assert counted(lambda: wait(x))["synchronisations"] == times

    def test_evaluations_are_those_of_one_run(self):
        calls = []
        assert counted(lambda: calls.append(1), evaluations=lambda: 1.5 * len(calls))["nfe"] == 1.5

    def test_the_first_run_is_not_counted(self):
        remembered = {}

        def run():
            if not remembered:
                remembered["x"] = torch.ones(100)
            return remembered["x"]
        assert counted(run)["operations"] == 0

    @pytest.mark.slow
    def test_graph_breaks(self):
        class Broken(nn.Module):
            def forward(self, x):
                x = x + 1
                torch._dynamo.graph_break()
                return x + 2

        class Whole(nn.Module):
            def forward(self, x):
                return x + 3
        assert [counting.graph_breaks(Work(run=lambda: None, traced=(made(), (torch.ones(2),)))) for made in (Broken, Whole)] == [1, 0]


class TestStored:
    COUNTS = {"scheduler ddim: 10 steps": {"operations": 30, "nfe": 10}}

    def test_a_change_is_a_sentence_with_the_command(self):
        changed = stored_counts.changes("scheduler ddim: 10 steps", {"operations": 30, "nfe": 10}, {"operations": 33, "nfe": 10, "flops": 1}, "update it")
        assert changed == ["scheduler ddim: 10 steps: operations was 30 and is 33 (+10.0%). Where that is meant, run `update it` and commit the file"]

    def test_versions_of_torch_are_kept_apart_and_what_is_gone_goes(self, tmp_path):
        path = tmp_path / "counts.json"
        stored_counts.write(path, "2.10", self.COUNTS, whole=True)
        stored_counts.write(path, "2.9", {"a": {"operations": 1}}, whole=True)
        stored_counts.write(path, "2.9", {"b": {"operations": 2}}, whole=False)
        assert stored_counts.read(path) == {"2.9": {"a": {"operations": 1}, "b": {"operations": 2}}, "2.10": self.COUNTS}
        assert list(json.loads(path.read_text())) == ["2.9", "2.10"], "in the order of the versions"
        stored_counts.write(path, "2.9", {"b": {"operations": 3}}, whole=True)
        assert stored_counts.read(path)["2.9"] == {"b": {"operations": 3}}

    @pytest.mark.parametrize(("text", "said"), [
        ("{", "counts.json cannot be read: "),
        *((text, "counts.json is no file of counts: expected {torch version: {case: {count: value}}}") for text in ("[]", '{"2.9": []}', '{"2.9": {"a": 1}}'))])
    def test_another_file_is_refused(self, tmp_path, text, said):
        path = tmp_path / "counts.json"
        path.write_text(text)
        with pytest.raises(DiffbenchError, match=re.escape(said)):
            stored_counts.read(path)

    def test_the_file_in_the_checkout_is_as_the_command_writes_it(self):
        assert FILE.read_text() == stored_counts._as_text(stored_counts.read(FILE))


@diffbench.register
@dataclass(frozen=True, kw_only=True)
class StrangersEuler(diffbench.Scheduler):
    """A stranger's: Euler's method with an operator too many."""

    steps: int = 10

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        alpha_s, sigma_s = schedule.scales(s)
        return (alpha_s * x0 + sigma_s * eps) * 1.0, state


def bench(*arguments):
    """(exit code, standard output, standard error)."""
    result = CliRunner().invoke(command, [*arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout, result.stderr


class TestCommand:
    ONE = ("--suite", "scheduler", "-k", "strangers_euler and steps")

    def test_a_strangers_component_is_counted_with_the_built_ins_and_never_stored_nor_failed(self, tmp_path):
        path = tmp_path / "counts.json"
        code, out, _ = bench("--counts", str(path), "--update", "--suite", "scheduler", "-k", "10 steps")
        assert code == 0 and "strangers_euler" in out
        assert not any("strangers" in name for name in stored_counts.read(path)[stored_counts.torch_version()])
        code, out, _ = bench("--counts", str(path), *self.ONE, "--json")
        found = json.loads(out)
        assert code == 0 and found["changed"] == []
        (counts,) = found["counts"].values()
        assert counts["operations"] == 40 and counts["nfe"] == 10, "two products, a sum and the operator too many"

    def test_a_change_fails_and_the_update_mends_it(self, tmp_path):
        path = tmp_path / "counts.json"
        asked = ("--counts", str(path), "--suite", "frechet")
        assert bench(*asked, "--update")[0] == 0
        changed = stored_counts.read(path)
        version = stored_counts.torch_version()
        name = next(iter(changed[version]))
        changed[version][name]["operations"] += 1
        path.write_text(json.dumps(changed))
        code, _, said = bench(*asked)
        assert code == 1 and f"{name}: operations was" in said and "--update" in said
        assert bench(*asked, "--update")[0] == 0 == bench(*asked)[0]

    def test_a_version_of_torch_without_counts_is_measured_and_not_compared(self, tmp_path):
        code, out, said = bench("--counts", str(tmp_path / "counts.json"), *self.ONE)
        assert code == 0 and "strangers_euler" in out and "measured and not compared" in said
