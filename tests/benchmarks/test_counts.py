"""Counts that gate every change: what was reviewed in benchmarks/counts.json, and that counting is right where the answer is known."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from click import UsageError
from click.testing import CliRunner
from torch import nn

import diffbench
from benchmarks.speed.__main__ import command as of_checkout
from benchmarks.speed.cases import ours
from diffbench.cli.bench import command
from diffbench.errors import DiffbenchError
from diffbench.testing.speed import counting, counts_file
from diffbench.testing.speed.case import Work
from tests.conftest import REGISTRY

CPU = torch.device("cpu")
FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "counts.json"
UPDATE = "python -m benchmarks.speed --counts benchmarks/counts.json --update"
STORED = counts_file.read(FILE).get(counts_file.torch_version())
CASES = [case for case in ours(REGISTRY) if case.is_counted]


def prepared(case):
    try:
        return case.prepare(CPU)
    except DiffbenchError as reason:
        pytest.skip(str(reason))


def stored_for(case):
    if STORED is None:
        pytest.skip(f"benchmarks/counts.json has no counts for torch {counts_file.torch_version()}: measured ones could not be compared")
    assert case.name in STORED, f"{case.name} has no stored counts; run `{UPDATE}` and commit the file"
    return STORED[case.name]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_counts_are_as_reviewed(case):
    work = prepared(case)
    found = counting.count(work, CPU)
    assert not counts_file.changes(case.name, stored_for(case), found, UPDATE)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if case.name.startswith("backbone ") and ": forward of" in case.name],
                         ids=lambda case: case.name)
def test_graph_breaks_are_as_reviewed(case):
    found = counting.graph_breaks(prepared(case))
    assert not counts_file.changes(case.name, stored_for(case), {"graph_breaks": found}, UPDATE)


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
        changed = counts_file.changes("scheduler ddim: 10 steps", {"operations": 30, "nfe": 10}, {"operations": 33, "nfe": 10, "flops": 1}, "update it")
        assert changed == ["scheduler ddim: 10 steps: operations was 30 and is 33 (+10.0%). Where that is meant, run `update it` and commit the file"]

    def test_versions_of_torch_are_kept_apart_and_what_is_gone_goes(self, tmp_path):
        path = tmp_path / "counts.json"
        counts_file.write(path, "2.10", self.COUNTS, whole=True)
        counts_file.write(path, "2.9", {"a": {"operations": 1}}, whole=True)
        counts_file.write(path, "2.9", {"b": {"operations": 2}}, whole=False)
        assert counts_file.read(path) == {"2.9": {"a": {"operations": 1}, "b": {"operations": 2}}, "2.10": self.COUNTS}
        assert list(json.loads(path.read_text())) == ["2.9", "2.10"], "in the order of the versions"
        counts_file.write(path, "2.9", {"b": {"operations": 3}}, whole=True)
        assert counts_file.read(path)["2.9"] == {"b": {"operations": 3}}

    @pytest.mark.parametrize(("text", "said"), [
        ("{", "counts.json cannot be read: "),
        *((text, "counts.json is no file of counts: expected {torch version: {case: {count: value}}}") for text in ("[]", '{"2.9": []}', '{"2.9": {"a": 1}}'))])
    def test_another_file_is_refused(self, tmp_path, text, said):
        path = tmp_path / "counts.json"
        path.write_text(text)
        with pytest.raises(DiffbenchError, match=re.escape(said)):
            counts_file.read(path)

    def test_the_file_in_the_checkout_is_as_the_command_writes_it(self):
        assert FILE.read_text() == counts_file._as_text(counts_file.read(FILE))


@diffbench.register
@dataclass(frozen=True, kw_only=True)
class StrangersEuler(diffbench.Scheduler):
    """A stranger's: Euler's method with an operator too many."""

    steps: int = 10

    def step(self, denoise, schedule, x_t, t, s, state, noise):
        x0, eps, _ = denoise(x_t, t)
        alpha_s, sigma_s = schedule.scales(s)
        return (alpha_s * x0 + sigma_s * eps) * 1.0, state


def bench(*arguments, program=command):
    """(exit code, standard output, standard error)."""
    result = CliRunner().invoke(program, [*arguments], standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.return_value, result.stdout, result.stderr


class TestCommand:
    def test_a_component_is_guarded_by_counts_in_a_repository_of_its_own(self, tmp_path):
        path = tmp_path / "counts.json"
        asked = ("strangers_euler", "-k", "steps", "--counts", str(path))
        code, out, said = bench(*asked, "--json")
        found = json.loads(out)
        (counts,) = found["counts"].values()
        assert code == 0 and found["changed"] == [] and "measured and not compared" in said
        assert counts["operations"] == 40 and counts["nfe"] == 10, "two products, a sum and the operator too many"
        assert bench(*asked, "--update")[0] == 0 == bench(*asked)[0]
        version = counts_file.torch_version()
        ((name, stored),) = counts_file.read(path)[version].items()
        counts_file.write(path, version, {name: stored | {"operations": 39}}, whole=False)
        code, _, said = bench(*asked)
        assert code == 1 and f"{name}: operations was 39 and is 40 (+2.6%). Where that is meant, run `diffbench bench strangers_euler -k 'steps' --counts {path} --update`" in said
        assert bench(*asked, "--update")[0] == 0 == bench(*asked)[0]

    def test_the_counts_of_this_checkout_are_those_of_its_own_components_and_of_the_harness(self, tmp_path):
        path = tmp_path / "counts.json"
        assert bench("--counts", str(path), "--update", "-k", "10 steps", program=of_checkout)[0] == 0
        names = counts_file.read(path)[counts_file.torch_version()]
        assert "scheduler ddim: 10 steps" in names and "training: 10 steps with 16 images" in names and not any("strangers" in name for name in names)

    def test_times_of_a_component(self):
        code, out, _ = bench("strangers_euler", "-k", "8x8")
        assert code == 0 and "scheduler strangers_euler: a step of 64x1x8x8" in out and "Machine: " in out

    def test_what_excludes_or_needs_another_option(self):
        with pytest.raises(UsageError, match="--update needs --counts FILE"):
            bench("--update")
        with pytest.raises(UsageError, match="--beside and --counts are two ways to compare"):
            bench("--beside", "a", "--counts", "b")

    def test_a_kind_without_cases(self):
        with pytest.raises(DiffbenchError, match="`diffbench bench spacing` means no case: kinds that have some are backbone, conditioning"):
            bench("spacing")
