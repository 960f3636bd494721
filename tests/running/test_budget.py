"""A budget of time: what it leaves no time for is a row that says so, and the same line again goes on."""

import pytest
from click.testing import CliRunner

import diffbench
from diffbench.cli.run import command
from diffbench.errors import MatrixError
from tests.running.test_order import TINY


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFFBENCH_HOME", str(tmp_path / "home"))


def test_what_no_time_is_left_for_is_not_run_and_the_same_line_goes_on(tmp_path, home):
    first = diffbench.run(TINY, out=tmp_path / "run", device="cpu", jobs=1, budget=1e-6)
    assert first.ended_early and not first.is_complete and first.counts == {"not run": 8} and not first.answer
    rows = diffbench.load(tmp_path / "run")
    assert set(rows["status"]) == {"not run"} and set(rows["reason"]) == {"the budget of the run ended before it; the same line again goes on"}
    assert "the budget of the run ended before it" in (tmp_path / "run" / "fid.md").read_text()
    again = diffbench.run(TINY, out=tmp_path / "run", device="cpu")
    assert again.is_complete and again.counts == {"ok": 8} and len(again.answer) > 8
    assert set(diffbench.load(tmp_path / "run")["status"]) == {"ok"}


def test_rows_that_another_run_has_finished_meanwhile_are_not_taken_for_not_run(tmp_path, home):
    diffbench.run(TINY, out=tmp_path / "run", device="cpu", budget=1e-6)
    diffbench.run(TINY, out=tmp_path / "other", device="cpu")
    again = diffbench.run(TINY, out=tmp_path / "run", device="cpu")
    assert again.stages_run == 0 and again.counts == {"ok": 8}


def test_the_command_line_ends_with_3(tmp_path, home):
    import json

    (tmp_path / "m.yaml").write_text(json.dumps(TINY))
    asked = [str(tmp_path / "m.yaml"), "--device", "cpu", "--out", str(tmp_path / "run")]
    ended = CliRunner().invoke(command, [*asked, "--budget", "0.000001s"])
    assert ended.exit_code == 3 and "the budget ended before all was done; the same line again goes on from here" in ended.output
    wrong = CliRunner().invoke(command, [*asked, "--budget", "soon"])
    assert wrong.exit_code == 2 and "write a duration such as 90s, 10m or 3h, got 'soon'" in wrong.output


def test_of_the_matrix(tmp_path, home):
    assert diffbench.run(TINY | {"run": {"budget": "0.000001s"}}, out=tmp_path / "run", device="cpu").ended_early
    assert diffbench.plan(TINY | {"run": {"budget": "2h"}}, device="cpu").matrix.run.budget_seconds == 7200
    with pytest.raises(MatrixError, match="a duration such as 90s, 10m, 3h, or none"):
        diffbench.plan(TINY | {"run": {"budget": -1}}, device="cpu")
